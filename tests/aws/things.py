"""Things: made, described, found, changed and deleted."""

import json

from clients import aws, client, refused

PAYLOAD = {"attributes": {"model": "x1", "room": "12"}}


def things_story():
    iot = client()
    made = aws("create-thing --thing-name lamp:7 --attribute-payload", json.dumps(PAYLOAD))
    assert set(made) == {"thingName", "thingArn", "thingId"} and made["thingArn"].endswith(":thing/lamp:7"), made
    assert made == aws("create-thing --thing-name lamp:7 --attribute-payload", json.dumps(PAYLOAD))
    iot.create_thing(thingName="plug-1", thingTypeName="plug", attributePayload={"attributes": {"model": "x12"}})
    described = aws("describe-thing --thing-name lamp:7")
    expected = {**made, "defaultClientId": "lamp:7", **PAYLOAD, "version": 1}
    assert described == expected, described

    names = lambda **filters: [thing["thingName"] for thing in iot.list_things(**filters)["things"]]
    assert names() == ["lamp:7", "plug-1"]
    assert names(attributeName="model") == ["lamp:7", "plug-1"] and names(attributeName="room") == ["lamp:7"]
    assert names(attributeName="model", attributeValue="x1") == ["lamp:7"]
    assert names(attributeName="model", attributeValue="x1", usePrefixAttributeValue=True) == ["lamp:7", "plug-1"]
    assert names(thingTypeName="plug") == ["plug-1"]
    listed = aws("list-things --attribute-name room --attribute-value 12")["things"]
    entry = {name: expected[name] for name in ["thingName", "thingArn", "attributes", "version"]}
    assert listed == [entry], listed
    assert iot.list_things(thingTypeName="plug")["things"][0]["thingTypeName"] == "plug"

    update = {"attributes": {"room": "", "floor": "3"}, "merge": True}
    assert aws("update-thing --thing-name lamp:7 --expected-version 1 --attribute-payload", json.dumps(update)) is None
    described = iot.describe_thing(thingName="lamp:7")
    assert described["attributes"] == {"model": "x1", "floor": "3"} and described["version"] == 2, described
    iot.update_thing(thingName="lamp:7", thingTypeName="lamp", attributePayload={"attributes": {"a": "b"}})
    described = iot.describe_thing(thingName="lamp:7")
    assert described["thingTypeName"] == "lamp" and described["attributes"] == {"a": "b"}, described
    iot.update_thing(thingName="lamp:7", removeThingType=True)
    described = iot.describe_thing(thingName="lamp:7")
    assert "thingTypeName" not in described and described["version"] == 4, described

    for _ in range(2):
        assert aws("delete-thing --thing-name lamp:7") is None
    message = aws("describe-thing --thing-name lamp:7", fails="ResourceNotFoundException")
    assert '"lamp:7" does not exist' in message, message
    again = iot.create_thing(thingName="lamp:7")
    assert again["thingArn"] == made["thingArn"] and again["thingId"] != made["thingId"], "another life, another id"


def thing_refusals():
    iot = client()
    made = iot.create_thing(thingName="lamp:7", attributePayload=PAYLOAD)
    refused("ResourceAlreadyExistsException", iot.create_thing, thingName="lamp:7")
    try:
        iot.create_thing(thingName="lamp:7", thingTypeName="lamp", attributePayload=PAYLOAD)
    except iot.exceptions.ResourceAlreadyExistsException as error:
        got = error.response
        assert (got["resourceArn"], got["resourceId"]) == (made["thingArn"], made["thingId"]), got
    refused("VersionConflictException", iot.update_thing, thingName="lamp:7", expectedVersion=7)
    refused("VersionConflictException", iot.delete_thing, thingName="lamp:7", expectedVersion=7)
    refused("ResourceNotFoundException", iot.describe_thing, thingName="nobody")
    refused("ResourceNotFoundException", iot.update_thing, thingName="nobody", removeThingType=True)
    attributes = lambda attributes: {"attributePayload": {"attributes": attributes}}
    for arguments, why in [
        ({"thingName": "a b"}, "a b"),
        ({"thingName": "x" * 129}, "1-128"),
        ({"thingName": "x", "billingGroupName": "costs"}, "billingGroupName"),
        ({"thingName": "x", "thingTypeName": "a b"}, "thing type"),
        ({"thingName": "x", **attributes({"k": "v" * 801})}, "800"),
        ({"thingName": "x", **attributes({"k" * 129: "v"})}, "128"),
        ({"thingName": "x", **attributes({f"k{n}": "v" for n in range(51)})}, "50"),
    ]:
        message = refused("InvalidRequestException", iot.create_thing, **arguments)
        assert why in message, message
    both = {"thingTypeName": "a", "removeThingType": True}
    refused("InvalidRequestException", iot.update_thing, thingName="lamp:7", **both)
    refused("InvalidRequestException", iot.list_things, attributeValue="x")
    refused("InvalidRequestException", iot.list_things, attributeName="")
    assert iot.describe_thing(thingName="lamp:7")["version"] == 1
