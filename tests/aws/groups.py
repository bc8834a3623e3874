"""Thing groups, static and dynamic: the commands of AWS's pages about them, and their refusals."""

import datetime
import json

from clients import aws, client, refused

PROPERTIES = {
    "thingGroupDescription": "lamps of Europe",
    "attributePayload": {"attributes": {"power": "low"}},
}


def names(answer):
    return [group["groupName"] for group in answer["thingGroups"]]


def members(group, *more):
    return aws(f"list-things-in-thing-group --thing-group-name {group}", *more)["things"]


def static_groups():
    iot = client()
    made = aws("create-thing-group --thing-group-name world")
    assert set(made) == {"thingGroupName", "thingGroupArn", "thingGroupId"} and made["thingGroupName"] == "world"
    assert made == aws("create-thing-group --thing-group-name world"), "the same again changes nothing"
    create = "create-thing-group --thing-group-name eu --parent-group-name world --thing-group-properties"
    aws(create, json.dumps(PROPERTIES))
    for name, parent in [("de", "eu"), ("be", "de"), ("us", "world")]:
        iot.create_thing_group(thingGroupName=name, parentGroupName=parent)

    described = aws("describe-thing-group --thing-group-name be")
    assert described["thingGroupProperties"] == {}, described
    metadata = described["thingGroupMetadata"]
    above = metadata["rootToParentThingGroups"]
    assert [group["groupName"] for group in above] == ["world", "eu", "de"], above
    assert above[0]["groupArn"] == made["thingGroupArn"] and metadata["parentGroupName"] == "de"
    described = iot.describe_thing_group(thingGroupName="eu")
    assert described["thingGroupProperties"] == PROPERTIES, described
    assert described["version"] == 1 and "status" not in described and "queryString" not in described
    age = datetime.datetime.now(datetime.timezone.utc) - described["thingGroupMetadata"]["creationDate"]
    assert abs(age) < datetime.timedelta(minutes=10), age

    update = {"attributePayload": {"attributes": {"colour": "red"}, "merge": True}}
    arguments = {"thingGroupName": "eu", "thingGroupProperties": update}
    refused("VersionConflictException", iot.update_thing_group, **arguments, expectedVersion=7)
    assert iot.update_thing_group(**arguments, expectedVersion=1)["version"] == 2
    properties = lambda: iot.describe_thing_group(thingGroupName="eu")["thingGroupProperties"]
    assert properties()["attributePayload"] == {"attributes": {"power": "low", "colour": "red"}}, properties()
    update = {"attributePayload": {"attributes": {"colour": "blue"}}, "thingGroupDescription": "new"}
    updated = aws("update-thing-group --thing-group-name eu --thing-group-properties", json.dumps(update))
    assert updated == {"version": 3} and properties() == update, (updated, properties())
    update = {"attributePayload": {"attributes": {"colour": ""}, "merge": True}}
    iot.update_thing_group(thingGroupName="eu", thingGroupProperties=update)
    assert properties() == {"thingGroupDescription": "new"}, properties()

    assert names(aws("list-thing-groups")) == ["be", "de", "eu", "us", "world"]
    assert names(aws("list-thing-groups --no-recursive")) == ["world"]
    assert names(aws("list-thing-groups --parent-group world")) == ["eu", "us"]
    assert names(aws("list-thing-groups --parent-group world --recursive")) == ["be", "de", "eu", "us"]
    assert names(aws("list-thing-groups --name-prefix-filter e")) == ["eu"]
    groups = iot.list_thing_groups()["thingGroups"]
    assert {"groupName": "world", "groupArn": made["thingGroupArn"]} in groups, groups

    refused("VersionConflictException", iot.delete_thing_group, thingGroupName="be", expectedVersion=9)
    assert aws("delete-thing-group --thing-group-name be --expected-version 1") is None
    assert aws("delete-thing-group --thing-group-name be") is None
    message = aws("describe-thing-group --thing-group-name be", fails="ResourceNotFoundException")
    assert '"be" does not exist' in message, message


def group_refusals():
    iot = client()
    iot.create_thing_group(thingGroupName="eu", thingGroupProperties=PROPERTIES)
    exists = refused("ResourceAlreadyExistsException", iot.create_thing_group, thingGroupName="eu")
    assert "exists already" in exists, exists
    try:
        iot.create_thing_group(thingGroupName="eu")
    except iot.exceptions.ResourceAlreadyExistsException as error:
        described = iot.describe_thing_group(thingGroupName="eu")
        assert error.response["resourceArn"] == described["thingGroupArn"]
        assert error.response["resourceId"] == described["thingGroupId"], error.response
    for call, arguments in [
        (iot.list_thing_groups, {"parentGroup": "nowhere"}),
        (iot.describe_thing_group, {"thingGroupName": "nowhere"}),
        (iot.update_thing_group, {"thingGroupName": "nowhere", "thingGroupProperties": {}}),
        (iot.list_things_in_thing_group, {"thingGroupName": "nowhere"}),
    ]:
        refused("ResourceNotFoundException", call, **arguments)
    attributes = lambda attributes: {"attributePayload": {"attributes": attributes}}
    for arguments, why in [
        ({"thingGroupName": "a.b"}, "a.b"),
        ({"thingGroupName": "x" * 129}, "1-128"),
        ({"thingGroupName": "x", "parentGroupName": "nowhere"}, "parent"),
        ({"thingGroupName": "x", "tags": [{"Key": "a", "Value": "b"}]}, "tags"),
        ({"thingGroupName": "x", "thingGroupProperties": {"thingGroupDescription": "x" * 2029}}, "2028"),
        ({"thingGroupName": "x", "thingGroupProperties": attributes({"k": "v" * 801})}, "800"),
        ({"thingGroupName": "x", "thingGroupProperties": attributes({"k" * 129: "v"})}, "128"),
        ({"thingGroupName": "x", "thingGroupProperties": attributes({f"k{n}": "v" for n in range(51)})}, "50"),
        ({"thingGroupName": "x", "thingGroupProperties": attributes({"k": 5})}, "strings"),
    ]:
        message = refused("InvalidRequestException", iot.create_thing_group, **arguments)
        assert why in message, message
    most = {"thingGroupDescription": "x" * 2028, **attributes({f"k{n}".ljust(128, "k"): "v" * 800 for n in range(50)})}
    iot.create_thing_group(thingGroupName="x" * 128, thingGroupProperties=most)
    assert iot.describe_thing_group(thingGroupName="x" * 128)["thingGroupProperties"] == most

    above = "eu"
    for name in ["d2", "d3", "d4", "d5", "d6", "d7"]:
        iot.create_thing_group(thingGroupName=name, parentGroupName=above)
        above = name
    refused("InvalidRequestException", iot.create_thing_group, thingGroupName="d8", parentGroupName="d7")
    refused("InvalidRequestException", iot.delete_thing_group, thingGroupName="eu")
    for n in range(99):
        iot.create_thing_group(thingGroupName=f"c{n}", parentGroupName="eu")
    message = refused("InvalidRequestException", iot.create_thing_group, thingGroupName="c99", parentGroupName="eu")
    assert "100" in message, message


def membership():
    iot = client()
    for name, parent in [("world", None), ("eu", "world"), ("us", "world"), ("other", None)]:
        iot.create_thing_group(thingGroupName=name, **({"parentGroupName": parent} if parent else {}))
    for thing in ["lamp:1", "lamp_2"]:
        iot.create_thing(thingName=thing)
    for _ in range(2):
        assert aws("add-thing-to-thing-group --thing-name lamp:1 --thing-group-name eu") is None
    group, thing = iot.describe_thing_group(thingGroupName="world"), iot.describe_thing(thingName="lamp_2")
    iot.add_thing_to_thing_group(thingArn=thing["thingArn"], thingGroupArn=group["thingGroupArn"])
    assert members("world") == ["lamp_2"] and members("world", "--recursive") == ["lamp:1", "lamp_2"]
    listed = aws("list-thing-groups-for-thing --thing-name lamp:1")["thingGroups"]
    arn = iot.describe_thing_group(thingGroupName="eu")["thingGroupArn"]
    assert listed == [{"groupName": "eu", "groupArn": arn}], listed

    both = lambda thing, group: {"thingName": thing, "thingGroupName": group}
    message = refused("InvalidRequestException", iot.add_thing_to_thing_group, **both("lamp:1", "us"))
    assert "eu" in message, message
    for call in [iot.add_thing_to_thing_group, iot.remove_thing_from_thing_group]:
        refused("ResourceNotFoundException", call, **both("lamp:1", "nowhere"))
        refused("ResourceNotFoundException", call, **both("nobody", "us"))
        refused("InvalidRequestException", call, thingName="lamp:1")
        refused("InvalidRequestException", call, thingGroupName="us")
        refused("InvalidRequestException", call, **both("lamp:1", "us"), thingArn=thing["thingArn"])
        refused("InvalidRequestException", call, thingName="lamp:1", thingGroupArn="arn:aws:s3:::us")
    refused("ResourceNotFoundException", iot.list_thing_groups_for_thing, thingName="nobody")

    move = "update-thing-groups-for-thing --thing-name lamp:1"
    assert aws(f"{move} --thing-groups-to-add us other --thing-groups-to-remove eu") is None
    assert members("eu") == [] and members("us") == ["lamp:1"] and members("other") == ["lamp:1"]
    update = iot.update_thing_groups_for_thing
    refused("ResourceNotFoundException", update, thingName="lamp:1", thingGroupsToAdd=["nowhere"])
    refused("ResourceNotFoundException", update, thingName="nobody", thingGroupsToAdd=["us"])
    refused("InvalidRequestException", update, thingName="lamp:1", thingGroupsToAdd=["us"], thingGroupsToRemove=["us"])
    refused("InvalidRequestException", update, thingGroupsToAdd=["us"])
    for _ in range(2):
        assert aws("remove-thing-from-thing-group --thing-name lamp:1 --thing-group-name us") is None
    assert members("us") == []

    for n in range(9):
        iot.create_thing_group(thingGroupName=f"g{n}")
        iot.add_thing_to_thing_group(**both("lamp:1", f"g{n}"))
    message = refused("InvalidRequestException", iot.add_thing_to_thing_group, **both("lamp:1", "us"))
    assert "10" in message, message
    # A group that goes takes its memberships along.
    iot.delete_thing_group(thingGroupName="g0")
    iot.add_thing_to_thing_group(**both("lamp:1", "us"))


def dynamic_groups():
    """A query says who is in them."""
    iot = client()
    for name, model in [("lamp-1", "x1"), ("lamp-2", "x1"), ("lamp-3", "x2")]:
        iot.create_thing(thingName=name, attributePayload={"attributes": {"model": model}})
    create = "create-dynamic-thing-group --thing-group-name x1 --query-string"
    made = aws(create, "attributes.model:x1")
    query = {"queryString": "attributes.model:x1", "indexName": "AWS_Things", "queryVersion": "2017-09-30"}
    assert query.items() <= made.items() and made["thingGroupName"] == "x1", made
    assert aws(create, "attributes.model:x1") == made, "the same again changes nothing"
    aws(create, "attributes.model:x2", fails="ResourceAlreadyExistsException")
    assert members("x1") == ["lamp-1", "lamp-2"]
    described = iot.describe_thing_group(thingGroupName="x1")
    assert query.items() <= described.items() and described["status"] == "ACTIVE", described
    listed = iot.list_thing_groups_for_thing(thingName="lamp-1")["thingGroups"]
    assert [group["groupName"] for group in listed] == ["x1"], listed
    change = {"thingGroupName": "x1", "thingGroupProperties": {}, "queryString": "attributes.model:x2"}
    refused("VersionConflictException", iot.update_dynamic_thing_group, **change, expectedVersion=9)
    assert iot.update_dynamic_thing_group(**change, expectedVersion=1)["version"] == 2
    assert members("x1") == ["lamp-3"]
    properties = json.dumps({"thingGroupDescription": "new"})
    update = "update-dynamic-thing-group --thing-group-name x1 --thing-group-properties"
    assert aws(update, properties) == {"version": 3}
    described = iot.describe_thing_group(thingGroupName="x1")
    assert described["thingGroupProperties"] == {"thingGroupDescription": "new"}, described

    wrong = {**change, "queryString": "(("}
    refused("InvalidQueryException", iot.update_dynamic_thing_group, **wrong)
    new = {"thingGroupName": "y", "queryString": "attributes.a:b"}
    refused("InvalidQueryException", iot.create_dynamic_thing_group, **{**new, "queryString": "(("})
    refused("InvalidRequestException", iot.create_dynamic_thing_group, thingGroupName="y")
    refused("InvalidRequestException", iot.create_dynamic_thing_group, **new, indexName="other")
    refused("InvalidRequestException", iot.create_dynamic_thing_group, **new, queryVersion="1")
    refused("InvalidRequestException", iot.create_thing_group, thingGroupName="y", parentGroupName="x1")
    refused("InvalidRequestException", iot.add_thing_to_thing_group, thingName="lamp-1", thingGroupName="x1")
    refused("ResourceNotFoundException", iot.update_dynamic_thing_group, **{**change, "thingGroupName": "no"})
    # Each kind has calls of its own.
    iot.create_thing_group(thingGroupName="static")
    refused("InvalidRequestException", iot.delete_thing_group, thingGroupName="x1")
    refused("InvalidRequestException", iot.delete_dynamic_thing_group, thingGroupName="static")
    refused("InvalidRequestException", iot.update_dynamic_thing_group, **{**change, "thingGroupName": "static"})
    refused("InvalidRequestException", iot.update_thing_group, thingGroupName="x1", thingGroupProperties={})
    for n in range(99):
        iot.create_dynamic_thing_group(**{**new, "thingGroupName": f"y{n}"})
    message = refused("LimitExceededException", iot.create_dynamic_thing_group, **new)
    assert "100" in message, message
    refused("VersionConflictException", iot.delete_dynamic_thing_group, thingGroupName="x1", expectedVersion=1)
    assert aws("delete-dynamic-thing-group --thing-group-name x1 --expected-version 3") is None
    assert aws("delete-dynamic-thing-group --thing-group-name x1") is None
    refused("ResourceNotFoundException", iot.describe_thing_group, thingGroupName="x1")
