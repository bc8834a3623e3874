"""Who signs wrongly hears why and nothing is done; who is limited to groups stays within them."""

import datetime
import json
import os
import threading
from unittest import mock

import boto3
import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.httpsession import URLLib3Session

from clients import ENDPOINT, ROLE, aws, client, refused, run_process

WRONG = "wrong" * 8


def shifted(**shift):
    moved = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(**shift)
    return mock.patch("botocore.auth.get_current_datetime", lambda **_: moved.replace(tzinfo=None))


def own_id():
    return {"aws_access_key_id": os.environ["AWS_ACCESS_KEY_ID"]}


def send(change=lambda request: None, *, path="/things/tampered", body=b"{}", service="iot", session=None):
    """Signs a request, changes it, sends it; status and the error's name."""
    credentials = boto3.Session().get_credentials().get_frozen_credentials()
    request = AWSRequest("POST", f"{ENDPOINT}{path}", data=body)
    request.headers["Content-Type"] = "application/json"
    botocore.auth.SigV4Auth(credentials, service, "eu-north-1").add_auth(request)
    change(request)
    answer = (session or URLLib3Session()).send(request.prepare())
    return answer.status_code, answer.headers.get("x-amzn-ErrorType")


def signatures():
    iot = client()
    iot.list_things()
    message = refused("InvalidSignatureException", client(aws_secret_access_key=WRONG, **own_id()).list_things)
    assert "secret" in message, message
    nobody = client(aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key=WRONG)
    assert "not known" in refused("UnrecognizedClientException", nobody.list_things)
    own = boto3.Session().get_credentials()
    session = client(aws_session_token="token", aws_secret_access_key=own.secret_key, **own_id())
    refused("UnrecognizedClientException", session.list_things)
    with mock.patch.dict(os.environ, AWS_SECRET_ACCESS_KEY=WRONG):
        aws("list-things", fails="InvalidSignatureException", run=run_process)
    aws("list-things --no-sign-request", fails="MissingAuthenticationTokenException")

    for shift, word in [({"minutes": -16}, "expired"), ({"minutes": 16}, "not yet current")]:
        with shifted(**shift):
            message = refused("InvalidSignatureException", client().list_things)
            assert word in message, message
            # Nothing of it is kept for later: the same words are refused whatever they ask for.
            assert send() == (403, "InvalidSignatureException")
    for shift in [{"minutes": -14}, {"minutes": 14}]:
        with shifted(**shift):
            client().list_things()

    def body(request):
        request.data = b'{"thingTypeName":"evil"}'

    def path(request):
        request.url = request.url.replace("tampered", "other")

    def query(request):
        request.url += "?a=1"

    def header(request):
        request.headers["Content-Type"] = "text/plain"

    def added(request):
        request.headers["X-Amz-Target"] = "x"

    def hash_of_another(request):
        request.headers["X-Amz-Content-SHA256"] = "0" * 64

    for change in [body, path, query, header, added, hash_of_another]:
        assert send(change) == (403, "InvalidSignatureException"), change.__name__
    assert send(service="s3") == (403, "InvalidSignatureException")
    unsigned = lambda request: request.headers.__delitem__("Authorization")
    assert send(unsigned) == (403, "MissingAuthenticationTokenException")
    assert iot.list_things()["things"] == []
    assert send() == (200, None)
    assert [thing["thingName"] for thing in iot.list_things()["things"]] == ["tampered"]


def sizes():
    """What is too large is refused before it is looked at, and what follows is served."""
    iot = client()

    def too_large(request):
        request.headers["X-Large"] = "x" * (200 << 10)

    def too_many(request):
        for n in range(200):
            request.headers[f"X-{n}"] = "x"

    for change in [too_large, too_many]:
        assert send(change)[0] == 431, change.__name__
    fits = json.dumps({"thingTypeName": "lamp"}).encode().ljust(1 << 20)
    assert send(body=fits) == (200, None)
    assert send(body=fits + b" ") == (413, "InvalidRequestException")
    assert send(body=b"[" * 100_000) == (400, "InvalidRequestException")
    assert send(path="/things/x?a=1&a=1") == (400, "InvalidRequestException")
    for path in ["/thing-types/x", "/things/x/jobs"]:
        assert send(path=path) == (404, "UnknownOperationException"), path
    message = aws("list-thing-types", fails="UnknownOperationException")
    assert "GET /thing-types" in message, message
    assert send(body=b'{"attributePayload":[]}') == (400, "InvalidRequestException")
    # Many at a time, of one key: each is answered.
    answers = []

    def ask(n):
        answers.append(send(path=f"/things/many-{n}"))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [(200, None)] * 100, answers
    assert len(iot.list_things(maxResults=250)["things"]) == 101


def scoped():
    """An operator of group `eu` sees and sets that group and its things; ADMIN_* is an admin's key."""
    admin = client(aws_access_key_id=os.environ["ADMIN_ID"], aws_secret_access_key=os.environ["ADMIN_SECRET"])
    admin.set_v2_logging_options(roleArn=ROLE, defaultLogLevel="INFO")
    for name, parent in [("world", None), ("eu", "world"), ("de", "eu"), ("us", "world")]:
        admin.create_thing_group(thingGroupName=name, **({"parentGroupName": parent} if parent else {}))
    for name, group in [("lamp-de", "de"), ("lamp-us", "us")]:
        admin.create_thing(thingName=name, attributePayload={"attributes": {"model": "x1"}})
        admin.add_thing_to_thing_group(thingName=name, thingGroupName=group)
    admin.create_dynamic_thing_group(thingGroupName="x1", queryString="attributes.model:x1")
    iot = client()
    target = lambda kind, name: {"logTarget": {"targetType": kind, "targetName": name}, "logLevel": "DEBUG"}
    for kind, name in [("THING_GROUP", "de"), ("CLIENT_ID", "lamp-de")]:
        iot.set_v2_logging_level(**target(kind, name))
    others = [("THING_GROUP", "us"), ("CLIENT_ID", "lamp-us"), ("SOURCE_IP", "192.0.2.1"), ("PRINCIPAL_ID", "p")]
    for kind, name in others:
        refused("AccessDeniedException", iot.set_v2_logging_level, **target(kind, name))
        admin.set_v2_logging_level(**target(kind, name))
        refused("AccessDeniedException", iot.delete_v2_logging_level, targetType=kind, targetName=name)
    refused("AccessDeniedException", iot.set_v2_logging_level, logTarget={"targetType": "DEFAULT"}, logLevel="INFO")

    listed = [it["logTarget"]["targetName"] for it in iot.list_v2_logging_levels()["logTargetConfigurations"]]
    assert listed == ["de", "lamp-de"], listed
    assert [it["groupName"] for it in iot.list_thing_groups()["thingGroups"]] == ["de", "eu"]
    assert [it["thingName"] for it in iot.list_things()["things"]] == ["lamp-de"]
    assert iot.list_things_in_thing_group(thingGroupName="eu", recursive=True)["things"] == ["lamp-de"]
    groups = iot.list_thing_groups_for_thing(thingName="lamp-de")["thingGroups"]
    assert [it["groupName"] for it in groups] == ["de"], groups
    above = iot.describe_thing_group(thingGroupName="eu")["thingGroupMetadata"]
    assert above["parentGroupName"] == "world", above
    us = {"thingName": "lamp-us", "thingGroupName": "us"}
    for call, arguments in [
        (iot.set_v2_logging_options, {"disableAllLogs": True}),
        (iot.get_v2_logging_options, {}),
        (iot.get_logging_options, {}),
        (iot.set_logging_options, {"loggingOptionsPayload": {"roleArn": ROLE}}),
        (iot.create_thing_group, {"thingGroupName": "mine", "parentGroupName": "eu"}),
        (iot.update_thing_group, {"thingGroupName": "eu", "thingGroupProperties": {}}),
        (iot.delete_thing_group, {"thingGroupName": "eu"}),
        (iot.create_dynamic_thing_group, {"thingGroupName": "mine", "queryString": "thingName:*"}),
        (iot.delete_dynamic_thing_group, {"thingGroupName": "x1"}),
        (iot.describe_thing_group, {"thingGroupName": "us"}),
        (iot.describe_thing_group, {"thingGroupName": "world"}),
        (iot.list_things_in_thing_group, {"thingGroupName": "us"}),
        (iot.list_thing_groups, {"parentGroup": "world"}),
        (iot.list_thing_groups_for_thing, {"thingName": "lamp-us"}),
        (iot.describe_thing, {"thingName": "lamp-us"}),
        (iot.create_thing, {"thingName": "mine"}),
        (iot.update_thing, {"thingName": "lamp-de", "removeThingType": True}),
        (iot.delete_thing, {"thingName": "lamp-de"}),
        (iot.add_thing_to_thing_group, {"thingName": "lamp-us", "thingGroupName": "eu"}),
        (iot.remove_thing_from_thing_group, us),
        (iot.update_thing_groups_for_thing, {"thingName": "lamp-us", "thingGroupsToAdd": ["eu"]}),
    ]:
        message = refused("AccessDeniedException", call, **arguments)
        assert message.startswith("eve: "), message
    # What was refused changed nothing, and nothing tells what there is elsewhere.
    assert admin.get_v2_logging_options()["disableAllLogs"] is False
    assert len(admin.list_things()["things"]) == 2 and len(admin.list_thing_groups()["thingGroups"]) == 5
    assert len(admin.list_v2_logging_levels()["logTargetConfigurations"]) == 1 + 2 + len(others)
