"""Lists page by page, each entry exactly once, by boto3's paginators, by hand and by the command line."""

from clients import ROLE, aws, client, refused

NAMES = [f"p{n:03}" for n in range(60)]


def lists(iot):
    """Operation, field, how an entry is called, and arguments of each list; every one holds NAMES."""
    group = {"thingGroupName": "p000"}
    return [
        (iot.list_thing_groups, "thingGroups", lambda it: it["groupName"], {}),
        (iot.list_things, "things", lambda it: it["thingName"], {}),
        (iot.list_things_in_thing_group, "things", str, group),
        (
            iot.list_v2_logging_levels,
            "logTargetConfigurations",
            lambda it: it["logTarget"]["targetName"],
            {"targetType": "THING_GROUP"},
        ),
    ]


def pagination():
    iot = client()
    iot.set_v2_logging_options(roleArn=ROLE, defaultLogLevel="INFO")
    for name in NAMES:
        iot.create_thing_group(thingGroupName=name)
        iot.set_v2_logging_level(logTarget={"targetType": "THING_GROUP", "targetName": name}, logLevel="WARN")
        iot.create_thing(thingName=name)
        iot.add_thing_to_thing_group(thingName=name, thingGroupName="p000")
    for call, field, name, arguments in lists(iot):
        operation = call.__name__
        for size in [7, 59, 60, 61, 250]:
            pages = iot.get_paginator(operation).paginate(PaginationConfig={"PageSize": size}, **arguments)
            pages = [[name(it) for it in page[field]] for page in pages]
            assert [it for page in pages for it in page] == NAMES, (operation, size, pages)
            assert len(pages) == -(-60 // size), (operation, size, len(pages))
        page = call(**arguments)
        assert len(page[field]) == 25, operation
        # What comes and goes between two pages moves nothing else.
        for token in ["!", "", "x" * 5000, page["nextToken"][:7]]:
            refused("InvalidRequestException", call, nextToken=token, **arguments)
        for size in [0, 251, -1]:
            refused("InvalidRequestException", call, maxResults=size, **arguments)
        # A token is of the list that gave it.
        others = [other for other in lists(iot) if other[0].__name__ != operation]
        for other, *_, more in others:
            refused("InvalidRequestException", other, nextToken=page["nextToken"], **more)
    token = iot.list_things()["nextToken"]
    refused("InvalidRequestException", iot.list_things, nextToken=token, attributeName="model")
    iot.delete_thing(thingName="p024")
    assert iot.list_things(nextToken=token, maxResults=1)["things"][0]["thingName"] == "p025"
    assert len(aws("list-thing-groups --page-size 7")["thingGroups"]) == 60
    some = aws("list-things --max-items 3")
    assert len(some["things"]) == 3
    more = aws("list-things --max-items 3 --starting-token", some["NextToken"])
    assert [it["thingName"] for it in more["things"]] == ["p003", "p004", "p005"], more
