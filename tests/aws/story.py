"""AWS's own clients against the router's HTTP: the aws command line and boto3.

    python story.py PART ENDPOINT

Keys come as AWS's environment variables. Parts: logging, groups, things, pages, signatures, scoped.
Every answer is held against AWS's own description of its shape: what it does not know or what it
requires and does not get is an error here, where AWS's clients would pass over it.
"""

import datetime
import json
import os
import subprocess
import sys
from unittest import mock

import boto3
import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session

PART, ENDPOINT = sys.argv[1:3]
AWS = os.path.join(os.path.dirname(sys.executable), "aws")
ROLE = "arn:aws:iam::123456789012:role/IoTLogsRole"
CHECKED = set()


def check_shape(value, shape, path):
    """Every member is known to AWS and of its type."""
    kinds = {
        "string": str,
        "boolean": bool,
        "integer": int,
        "long": int,
        "timestamp": (int, float),
        "list": list,
        "map": dict,
        "structure": dict,
    }
    kind = kinds[shape.type_name]
    assert isinstance(value, kind) and not (kind is int and isinstance(value, bool)), (path, value)
    if shape.type_name == "structure":
        unknown = set(value) - set(shape.members)
        assert not unknown, f"{path}: AWS knows no {unknown}"
        missing = set(shape.required_members) - set(value)
        assert not missing, f"{path}: {missing} is missing"
        for name, member in value.items():
            check_shape(member, shape.members[name], f"{path}.{name}")
    elif shape.type_name == "list":
        for member in value:
            check_shape(member, shape.member, f"{path}[]")
    elif shape.type_name == "map":
        for name, member in value.items():
            check_shape(name, shape.key, path)
            check_shape(member, shape.value, f"{path}.{name}")
    elif getattr(shape, "enum", None):
        assert value in shape.enum, f"{path}: {value} is none of {shape.enum}"


def check_answer(http_response, model, **_):
    """The raw body of an answer, before boto3 makes something of it."""
    body = json.loads(http_response.content or b"{}")
    if http_response.status_code < 300:
        if model.output_shape is None:
            assert body == {}, f"{model.name}: AWS answers nothing, not {body}"
        else:
            check_shape(body, model.output_shape, model.name)
    else:
        name = http_response.headers["x-amzn-ErrorType"]
        known = {shape.name: shape for shape in model.error_shapes}
        common = {
            "AccessDeniedException",
            "InvalidSignatureException",
            "UnrecognizedClientException",
        }
        assert name in known or name in common, f"{model.name} has no error {name}: {body}"
        if name in known:
            check_shape(body, known[name], f"{model.name}.{name}")
            assert http_response.status_code == known[name].metadata["error"]["httpStatusCode"]
        assert isinstance(body["message"], str) and body["message"]
    CHECKED.add(model.name)


def client(**options):
    made = boto3.client("iot", endpoint_url=ENDPOINT, **options)

    def check(parsed, model, http_response=None, **_):
        pass

    original = made._make_request

    def asked(operation_model, request_dict, request_context):
        http, parsed = original(operation_model, request_dict, request_context)
        check_answer(http, operation_model)
        return http, parsed

    made._make_request = asked
    return made


def aws(line, *more, fails=None):
    """Runs `aws iot <line>`; gives what it prints, or holds its error against `fails`."""
    command = [AWS, "iot", *line.split(), *more, "--endpoint-url", ENDPOINT, "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if fails:
        assert done.returncode != 0 and f"({fails})" in done.stderr, (line, done.stdout, done.stderr)
        return None
    assert done.returncode == 0, (line, done.stderr)
    return json.loads(done.stdout) if done.stdout.strip() else None


def refused(name, call, **arguments):
    try:
        answer = call(**arguments)
    except ClientError as error:
        got = error.response["Error"]
        assert got["Code"] == name, f"{name} expected: {got}"
        return got["Message"]
    raise AssertionError(f"{name} expected: {arguments} gave {answer}")


def logging():
    """AWS's page "Configure AWS IoT logging", command by command, then what it does not say."""
    iot = client()
    refused("NotConfiguredException", iot.get_v2_logging_options)
    refused("NotConfiguredException", iot.list_v2_logging_levels)
    target = {"targetType": "CLIENT_ID", "targetName": "lamp-7"}
    refused("NotConfiguredException", iot.set_v2_logging_level, logTarget=target, logLevel="INFO")
    assert iot.get_logging_options().get("roleArn") is None
    refused("InvalidRequestException", iot.set_v2_logging_options)

    aws(f"set-v2-logging-options --role-arn {ROLE} --default-log-level WARN")
    options = aws("get-v2-logging-options")
    assert options == {"roleArn": ROLE, "defaultLogLevel": "WARN", "disableAllLogs": False}, options
    aws("create-thing-group --thing-group-name my-thing-group")
    for kind, name, level in [
        ("THING_GROUP", "my-thing-group", "DEBUG"),
        ("CLIENT_ID", "ClientId1", "INFO"),
        ("SOURCE_IP", "192.168.100.5", "ERROR"),
        ("PRINCIPAL_ID", "principal:1", "DISABLED"),
    ]:
        aws(f"set-v2-logging-level --log-target targetType={kind},targetName={name} --log-level {level}")
    listed = aws("list-v2-logging-levels")["logTargetConfigurations"]
    assert [(entry["logTarget"], entry["logLevel"]) for entry in listed] == [
        ({"targetType": "DEFAULT"}, "WARN"),
        ({"targetType": "THING_GROUP", "targetName": "my-thing-group"}, "DEBUG"),
        ({"targetType": "CLIENT_ID", "targetName": "ClientId1"}, "INFO"),
        ({"targetType": "SOURCE_IP", "targetName": "192.168.100.5"}, "ERROR"),
        ({"targetType": "PRINCIPAL_ID", "targetName": "principal:1"}, "DISABLED"),
    ], listed
    only = aws("list-v2-logging-levels --target-type THING_GROUP")["logTargetConfigurations"]
    assert len(only) == 1 and only[0]["logLevel"] == "DEBUG", only
    aws("set-v2-logging-level --log-target targetType=DEFAULT --log-level INFO")
    assert aws("get-v2-logging-options")["defaultLogLevel"] == "INFO"
    aws("delete-v2-logging-level --target-type THING_GROUP --target-name my-thing-group")
    aws("delete-v2-logging-level --target-type THING_GROUP --target-name my-thing-group")
    aws("set-v2-logging-options --disable-all-logs")
    options = aws("get-v2-logging-options --verbose")
    assert options == {"roleArn": ROLE, "defaultLogLevel": "INFO", "disableAllLogs": True}, options
    levels = {entry["logTarget"].get("targetName") for entry in iot.list_v2_logging_levels()["logTargetConfigurations"]}
    assert levels == {None, "ClientId1", "192.168.100.5", "principal:1"}, levels
    iot.set_v2_logging_options(defaultLogLevel="ERROR")
    options = iot.get_v2_logging_options()
    assert options["disableAllLogs"] is False and options["roleArn"] == ROLE, options

    events = [{"eventType": "Connect", "logLevel": "DEBUG"}, {"eventType": "Publish-In", "logLevel": "WARN"}]
    iot.set_v2_logging_options(eventConfigurations=events)
    assert iot.get_v2_logging_options()["eventConfigurations"] == events
    iot.set_v2_logging_options(eventConfigurations=events[1:])
    assert iot.get_v2_logging_options()["eventConfigurations"] == events[1:]
    iot.set_v2_logging_options(defaultLogLevel="WARN")
    assert iot.get_v2_logging_options()["eventConfigurations"] == events[1:]
    message = refused(
        "InvalidRequestException",
        iot.set_v2_logging_options,
        eventConfigurations=[{**events[0], "logDestination": "/aws/other"}],
    )
    assert "logDestination" in message, message
    iot.set_v2_logging_options(eventConfigurations=[])
    assert "eventConfigurations" not in iot.get_v2_logging_options()

    for wrong in [
        {"targetType": "THING_GROUP", "targetName": "nowhere"},
        {"targetType": "THING_GROUP", "targetName": "a/b"},
        {"targetType": "THING_GROUP"},
        {"targetType": "DEFAULT", "targetName": "x"},
        {"targetType": "OTHER", "targetName": "x"},
        {"targetType": "SOURCE_IP", "targetName": "no-address"},
    ]:
        refused("InvalidRequestException", iot.set_v2_logging_level, logTarget=wrong, logLevel="INFO")
    refused("InvalidRequestException", iot.set_v2_logging_level, logTarget=target, logLevel="LOUD")
    refused("InvalidRequestException", iot.delete_v2_logging_level, targetType="DEFAULT", targetName="x")
    aws("set-v2-logging-options --default-log-level LOUD", fails="InvalidRequestException")

    aws("set-logging-options --logging-options-payload", json.dumps({"roleArn": ROLE, "logLevel": "DISABLED"}))
    assert aws("get-logging-options") == {"roleArn": ROLE, "logLevel": "DISABLED"}
    refused("InvalidRequestException", iot.set_logging_options, loggingOptionsPayload={"roleArn": ROLE, "logLevel": "X"})
    iot.set_logging_options(loggingOptionsPayload={"roleArn": ROLE, "logLevel": "INFO"})
    assert iot.get_logging_options()["logLevel"] == "INFO"


def groups():
    """Groups: every command of AWS's pages on static thing groups."""
    iot = client()
    made = aws("create-thing-group --thing-group-name world")
    assert made == aws("create-thing-group --thing-group-name world"), "the same again changes nothing"
    properties = {
        "thingGroupDescription": "lamps of Europe",
        "attributePayload": {"attributes": {"power": "low"}},
    }
    aws(
        "create-thing-group --thing-group-name eu --parent-group-name world --thing-group-properties",
        json.dumps(properties),
    )
    for name, parent in [("de", "eu"), ("be", "de"), ("us", "world")]:
        iot.create_thing_group(thingGroupName=name, parentGroupName=parent)
    described = aws("describe-thing-group --thing-group-name be")
    above = described["thingGroupMetadata"]["rootToParentThingGroups"]
    assert [group["groupName"] for group in above] == ["world", "eu", "de"], above
    assert above[0]["groupArn"] == made["thingGroupArn"]
    assert described["thingGroupMetadata"]["parentGroupName"] == "de"
    described = iot.describe_thing_group(thingGroupName="eu")
    assert described["thingGroupProperties"] == properties, described
    assert described["version"] == 1 and "status" not in described
    created = described["thingGroupMetadata"]["creationDate"]
    now = datetime.datetime.now(datetime.timezone.utc)
    assert abs(now - created) < datetime.timedelta(hours=1), created
    error = refused("ResourceAlreadyExistsException", iot.create_thing_group, thingGroupName="eu")
    assert "exists" in error

    message = refused(
        "VersionConflictException",
        iot.update_thing_group,
        thingGroupName="eu",
        thingGroupProperties={},
        expectedVersion=7,
    )
    assert message
    update = {"attributePayload": {"attributes": {"colour": "red"}, "merge": True}}
    assert iot.update_thing_group(thingGroupName="eu", thingGroupProperties=update, expectedVersion=1)["version"] == 2
    attributes = lambda: iot.describe_thing_group(thingGroupName="eu")["thingGroupProperties"]["attributePayload"]
    assert attributes() == {"attributes": {"power": "low", "colour": "red"}}, attributes()
    update = {"attributePayload": {"attributes": {"colour": "blue"}}, "thingGroupDescription": "new"}
    aws("update-thing-group --thing-group-name eu --thing-group-properties", json.dumps(update))
    assert attributes() == {"attributes": {"colour": "blue"}}, attributes()
    assert iot.describe_thing_group(thingGroupName="eu")["thingGroupProperties"]["thingGroupDescription"] == "new"

    names = lambda answer: [group["groupName"] for group in answer["thingGroups"]]
    assert names(aws("list-thing-groups")) == ["be", "de", "eu", "us", "world"]
    assert names(aws("list-thing-groups --no-recursive")) == ["world"]
    assert names(aws("list-thing-groups --parent-group world")) == ["eu", "us"]
    assert names(aws("list-thing-groups --parent-group world --recursive")) == ["be", "de", "eu", "us"]
    assert names(aws("list-thing-groups --name-prefix-filter e")) == ["eu"]
    refused("ResourceNotFoundException", iot.list_thing_groups, parentGroup="nowhere")
    refused("ResourceNotFoundException", iot.describe_thing_group, thingGroupName="nowhere")
    refused("InvalidRequestException", iot.create_thing_group, thingGroupName="a.b")
    refused("InvalidRequestException", iot.create_thing_group, thingGroupName="x", parentGroupName="nowhere")
    message = refused(
        "InvalidRequestException", iot.create_thing_group, thingGroupName="x", tags=[{"Key": "a", "Value": "b"}]
    )
    assert "tags" in message, message

    for thing in ["lamp:1", "lamp_2"]:
        iot.create_thing(thingName=thing)
    aws("add-thing-to-thing-group --thing-name lamp:1 --thing-group-name be")
    aws("add-thing-to-thing-group --thing-name lamp:1 --thing-group-name be")
    arn = iot.describe_thing(thingName="lamp_2")["thingArn"]
    iot.add_thing_to_thing_group(thingArn=arn, thingGroupArn=made["thingGroupArn"])
    things = lambda line: aws(f"list-things-in-thing-group --thing-group-name {line}")["things"]
    assert things("world") == ["lamp_2"] and things("world --recursive") == ["lamp:1", "lamp_2"]
    assert names(aws("list-thing-groups-for-thing --thing-name lamp:1")) == ["be"]
    message = refused(
        "InvalidRequestException", iot.add_thing_to_thing_group, thingName="lamp:1", thingGroupName="us"
    )
    assert "world" in message or "hierarchy" in message, message
    refused("ResourceNotFoundException", iot.add_thing_to_thing_group, thingName="lamp:1", thingGroupName="nowhere")
    refused("ResourceNotFoundException", iot.add_thing_to_thing_group, thingName="nobody", thingGroupName="us")
    refused("ResourceNotFoundException", iot.list_things_in_thing_group, thingGroupName="nowhere")
    refused("ResourceNotFoundException", iot.list_thing_groups_for_thing, thingName="nobody")
    refused("InvalidRequestException", iot.add_thing_to_thing_group, thingName="lamp:1")
    aws(
        "update-thing-groups-for-thing --thing-name lamp:1"
        " --thing-groups-to-add us --thing-groups-to-remove be"
    )
    assert things("be") == [] and things("us") == ["lamp:1"]
    aws("remove-thing-from-thing-group --thing-name lamp:1 --thing-group-name us")
    assert things("us") == []
    refused("ResourceNotFoundException", iot.remove_thing_from_thing_group, thingName="x", thingGroupName="us")

    deep = "be"
    for name in ["d5", "d6", "d7"]:
        iot.create_thing_group(thingGroupName=name, parentGroupName=deep)
        deep = name
    refused("InvalidRequestException", iot.create_thing_group, thingGroupName="d8", parentGroupName="d7")
    refused("InvalidRequestException", iot.delete_thing_group, thingGroupName="world")
    refused("VersionConflictException", iot.delete_thing_group, thingGroupName="d7", expectedVersion=9)
    aws("delete-thing-group --thing-group-name d7 --expected-version 1")
    aws("delete-thing-group --thing-group-name d7")
    aws("describe-thing-group --thing-group-name d7", fails="ResourceNotFoundException")


def dynamic():
    """Dynamic groups: a query says who is in them."""
    iot = client()
    for name, model in [("lamp-1", "x1"), ("lamp-2", "x1"), ("lamp-3", "x2")]:
        iot.create_thing(thingName=name, attributePayload={"attributes": {"model": model}})
    made = aws("create-dynamic-thing-group --thing-group-name x1 --query-string attributes.model:x1")
    assert made["queryString"] == "attributes.model:x1" and made["indexName"] == "AWS_Things", made
    things = aws("list-things-in-thing-group --thing-group-name x1")["things"]
    assert things == ["lamp-1", "lamp-2"], things
    described = iot.describe_thing_group(thingGroupName="x1")
    assert described["status"] == "ACTIVE" and described["queryVersion"] == "2017-09-30", described
    listed = iot.list_thing_groups_for_thing(thingName="lamp-1")["thingGroups"]
    assert [group["groupName"] for group in listed] == ["x1"], listed
    updated = iot.update_dynamic_thing_group(
        thingGroupName="x1", thingGroupProperties={}, queryString="attributes.model:x2", expectedVersion=1
    )
    assert updated["version"] == 2, updated
    assert iot.list_things_in_thing_group(thingGroupName="x1")["things"] == ["lamp-3"]
    refused("InvalidQueryException", iot.create_dynamic_thing_group, thingGroupName="y", queryString="((")
    refused("InvalidQueryException", iot.update_dynamic_thing_group, thingGroupName="x1", thingGroupProperties={}, queryString="((")
    refused("InvalidRequestException", iot.create_dynamic_thing_group, thingGroupName="y", queryString="a", indexName="other")
    refused("InvalidRequestException", iot.add_thing_to_thing_group, thingName="lamp-1", thingGroupName="x1")
    refused("InvalidRequestException", iot.delete_thing_group, thingGroupName="x1")
    aws("delete-dynamic-thing-group --thing-group-name x1")
    refused("ResourceNotFoundException", iot.describe_thing_group, thingGroupName="x1")


def things():
    iot = client()
    payload = {"attributes": {"model": "x1", "room": "12"}}
    made = aws("create-thing --thing-name lamp:7 --attribute-payload", json.dumps(payload))
    assert made == aws("create-thing --thing-name lamp:7 --attribute-payload", json.dumps(payload))
    refused("ResourceAlreadyExistsException", iot.create_thing, thingName="lamp:7")
    iot.create_thing(thingName="plug-1", thingTypeName="plug", attributePayload={"attributes": {"model": "x12"}})
    described = aws("describe-thing --thing-name lamp:7")
    assert described["thingId"] == made["thingId"] and described["thingArn"] == made["thingArn"]
    assert described["attributes"] == payload["attributes"] and described["version"] == 1, described
    assert described["defaultClientId"] == "lamp:7" and "thingTypeName" not in described

    names = lambda **filters: [thing["thingName"] for thing in iot.list_things(**filters)["things"]]
    assert names() == ["lamp:7", "plug-1"]
    assert names(attributeName="model", attributeValue="x1") == ["lamp:7"]
    assert names(attributeName="model", attributeValue="x1", usePrefixAttributeValue=True) == ["lamp:7", "plug-1"]
    assert names(thingTypeName="plug") == ["plug-1"]
    listed = aws("list-things --attribute-name room --attribute-value 12")["things"]
    assert [thing["thingName"] for thing in listed] == ["lamp:7"], listed

    update = {"attributes": {"room": "", "floor": "3"}, "merge": True}
    aws("update-thing --thing-name lamp:7 --expected-version 1 --attribute-payload", json.dumps(update))
    described = iot.describe_thing(thingName="lamp:7")
    assert described["attributes"] == {"model": "x1", "floor": "3"} and described["version"] == 2, described
    refused("VersionConflictException", iot.update_thing, thingName="lamp:7", expectedVersion=1)
    iot.update_thing(thingName="lamp:7", thingTypeName="lamp", attributePayload={"attributes": {"a": "b"}})
    described = iot.describe_thing(thingName="lamp:7")
    assert described["thingTypeName"] == "lamp" and described["attributes"] == {"a": "b"}, described
    iot.update_thing(thingName="lamp:7", removeThingType=True)
    assert "thingTypeName" not in iot.describe_thing(thingName="lamp:7")

    message = refused("InvalidRequestException", iot.create_thing, thingName="x", billingGroupName="costs")
    assert "billingGroupName" in message, message
    refused("InvalidRequestException", iot.create_thing, thingName="a b")
    refused("ResourceNotFoundException", iot.describe_thing, thingName="nobody")
    refused("ResourceNotFoundException", iot.update_thing, thingName="nobody", removeThingType=True)
    refused("VersionConflictException", iot.delete_thing, thingName="lamp:7", expectedVersion=1)
    aws("delete-thing --thing-name lamp:7")
    aws("delete-thing --thing-name lamp:7")
    aws("describe-thing --thing-name lamp:7", fails="ResourceNotFoundException")


def pages():
    """Lists page by page, each exactly once, by boto3's paginators and by hand."""
    iot = client()
    iot.set_v2_logging_options(roleArn=ROLE, defaultLogLevel="INFO")
    expected = [f"p{n:03}" for n in range(60)]
    for name in expected:
        iot.create_thing_group(thingGroupName=name)
        iot.set_v2_logging_level(logTarget={"targetType": "THING_GROUP", "targetName": name}, logLevel="WARN")
        iot.create_thing(thingName=name)
        iot.add_thing_to_thing_group(thingName=name, thingGroupName="p000")
    for operation, field, name, arguments in [
        ("list_thing_groups", "thingGroups", lambda it: it["groupName"], {}),
        ("list_things", "things", lambda it: it["thingName"], {}),
        ("list_things_in_thing_group", "things", str, {"thingGroupName": "p000"}),
        (
            "list_v2_logging_levels",
            "logTargetConfigurations",
            lambda it: it["logTarget"]["targetName"],
            {"targetType": "THING_GROUP"},
        ),
    ]:
        for size in [1, 7, 59, 60, 61, 250]:
            if size == 1 and operation != "list_things":
                continue
            pages = iot.get_paginator(operation).paginate(PaginationConfig={"PageSize": size}, **arguments)
            pages = [[name(it) for it in page[field]] for page in pages]
            assert [it for page in pages for it in page] == expected, (operation, size, pages)
            assert len(pages) == -(-60 // size), (operation, size, len(pages))
        assert len(getattr(iot, operation)(**arguments)[field]) == 25, operation
        refused("InvalidRequestException", getattr(iot, operation), nextToken="!", **arguments)
        for size in [0, 251]:
            with mock.patch("botocore.validate.ParamValidator.validate", return_value=mock.Mock(has_errors=lambda: False)):
                refused("InvalidRequestException", getattr(iot, operation), maxResults=size, **arguments)
    assert len(aws("list-thing-groups")["thingGroups"]) == 60
    assert len(aws("list-things --max-items 3")["things"]) == 3


def signatures():
    """Who signs wrongly hears why, and nothing is done."""
    iot = client()
    iot.list_things()
    key = os.environ["AWS_ACCESS_KEY_ID"]
    wrong = client(aws_access_key_id=key, aws_secret_access_key="wrong" * 8)
    message = refused("InvalidSignatureException", wrong.list_things)
    assert "secret" in message, message
    nobody = client(aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="wrong" * 8)
    refused("UnrecognizedClientException", nobody.list_things)
    session = client(aws_session_token="token")
    refused("UnrecognizedClientException", session.list_things)

    def at(**shift):
        moved = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(**shift)
        return mock.patch("botocore.auth.get_current_datetime", lambda **_: moved.replace(tzinfo=None))

    for shift, word in [({"minutes": -20}, "expired"), ({"minutes": 20}, "not yet current")]:
        with at(**shift):
            message = refused("InvalidSignatureException", client().list_things)
            assert word in message, message
    for shift in [{"minutes": -14}, {"minutes": 14}]:
        with at(**shift):
            client().list_things()

    credentials = boto3.Session().get_credentials().get_frozen_credentials()

    def send(change=lambda request: None, service="iot", body=b'{"attributePayload":{}}'):
        request = AWSRequest("POST", f"{ENDPOINT}/things/tampered?a=1", data=body)
        request.headers["Content-Type"] = "application/json"
        botocore.auth.SigV4Auth(credentials, service, "eu-north-1").add_auth(request)
        change(request)
        answer = URLLib3Session().send(request.prepare())
        return answer.status_code, answer.headers.get("x-amzn-ErrorType")

    def body(request):
        request.data = b'{"thingTypeName":"evil"}'

    def path(request):
        request.url = request.url.replace("tampered", "other")

    def query(request):
        request.url = request.url.replace("a=1", "a=2")

    def header(request):
        request.headers["Content-Type"] = "text/plain"

    for change in [body, path, query, header]:
        assert send(change) == (403, "InvalidSignatureException"), change.__name__
    assert send(service="s3") == (403, "InvalidSignatureException")
    # Signed as it should be, it is the query that is not known.
    assert send() == (400, "InvalidRequestException")

    def added(request):
        request.headers["X-Amz-Target"] = "x"

    assert send(added) == (403, "InvalidSignatureException")
    assert send(lambda request: request.headers.__delitem__("Authorization")) == (
        403,
        "MissingAuthenticationTokenException",
    )
    assert iot.list_things()["things"] == []


def scoped():
    """An operator of group `eu` sees and sets that group and its things; ADMIN_* is the admin's key."""
    admin = client(
        aws_access_key_id=os.environ["ADMIN_ID"], aws_secret_access_key=os.environ["ADMIN_SECRET"]
    )
    admin.set_v2_logging_options(roleArn=ROLE, defaultLogLevel="INFO")
    for name, parent in [("eu", None), ("de", "eu"), ("us", None)]:
        admin.create_thing_group(thingGroupName=name, **({"parentGroupName": parent} if parent else {}))
    for name, group in [("lamp-de", "de"), ("lamp-us", "us")]:
        admin.create_thing(thingName=name)
        admin.add_thing_to_thing_group(thingName=name, thingGroupName=group)
    iot = client()
    target = lambda kind, name: {"logTarget": {"targetType": kind, "targetName": name}, "logLevel": "DEBUG"}
    iot.set_v2_logging_level(**target("THING_GROUP", "de"))
    iot.set_v2_logging_level(**target("CLIENT_ID", "lamp-de"))
    for kind, name in [("THING_GROUP", "us"), ("CLIENT_ID", "lamp-us"), ("SOURCE_IP", "192.0.2.1")]:
        refused("AccessDeniedException", iot.set_v2_logging_level, **target(kind, name))
        admin.set_v2_logging_level(**target(kind, name))
    listed = [it["logTarget"]["targetName"] for it in iot.list_v2_logging_levels()["logTargetConfigurations"]]
    assert listed == ["de", "lamp-de"], listed
    assert [it["groupName"] for it in iot.list_thing_groups()["thingGroups"]] == ["de", "eu"]
    assert [it["thingName"] for it in iot.list_things()["things"]] == ["lamp-de"]
    for call, arguments in [
        (iot.set_v2_logging_options, {"disableAllLogs": True}),
        (iot.get_v2_logging_options, {}),
        (iot.create_thing_group, {"thingGroupName": "mine"}),
        (iot.delete_thing_group, {"thingGroupName": "eu"}),
        (iot.describe_thing_group, {"thingGroupName": "us"}),
        (iot.describe_thing, {"thingName": "lamp-us"}),
        (iot.add_thing_to_thing_group, {"thingName": "lamp-us", "thingGroupName": "eu"}),
    ]:
        refused("AccessDeniedException", call, **arguments)


PARTS = {part.__name__: part for part in [logging, groups, dynamic, things, pages, signatures, scoped]}
PARTS[PART]()
print(f"{PART}: {len(CHECKED)} operations answered as AWS does")
