"""Logging: every command of AWS's page "Configure AWS IoT logging", then what its reference says beyond."""

import json

from clients import ROLE, aws, client, refused, run_process

OPTIONS = {"roleArn": ROLE, "defaultLogLevel": "WARN", "disableAllLogs": False}
TARGETS = [
    ("THING_GROUP", "my-thing-group", "DEBUG"),
    ("CLIENT_ID", "ClientId1", "INFO"),
    ("SOURCE_IP", "192.168.100.5", "ERROR"),
    ("PRINCIPAL_ID", "principal:1", "DISABLED"),
]
EVENTS = [{"eventType": "Connect", "logLevel": "DEBUG"}, {"eventType": "Publish-In", "logLevel": "WARN"}]


def target(kind, name=None):
    return {"targetType": kind, **({"targetName": name} if name else {})}


def listed(answer):
    """Kind, name and level of each entry."""
    entries = answer["logTargetConfigurations"]
    return [(it["logTarget"]["targetType"], it["logTarget"].get("targetName"), it["logLevel"]) for it in entries]


def logging_page():
    """The page, command by command, by the command line."""
    message = aws("get-v2-logging-options", fails="NotConfiguredException", run=run_process)
    assert "set the logging options" in message, message
    aws("list-v2-logging-levels", fails="NotConfiguredException")
    aws("set-v2-logging-level --log-target targetType=DEFAULT --log-level INFO", fails="NotConfiguredException")
    assert aws(f"set-v2-logging-options --role-arn {ROLE} --default-log-level WARN") is None
    assert aws("get-v2-logging-options", run=run_process) == OPTIONS
    aws("create-thing-group --thing-group-name my-thing-group")
    for kind, name, level in TARGETS:
        set_level = f"set-v2-logging-level --log-target targetType={kind},targetName={name} --log-level {level}"
        assert aws(set_level) is None
    assert listed(aws("list-v2-logging-levels")) == [("DEFAULT", None, "WARN"), *TARGETS]
    assert listed(aws("list-v2-logging-levels --target-type THING_GROUP")) == TARGETS[:1]
    assert listed(aws("list-v2-logging-levels --page-size 2")) == [("DEFAULT", None, "WARN"), *TARGETS]
    first = aws("list-v2-logging-levels --max-results 3")
    rest = aws("list-v2-logging-levels --max-results 3 --next-token", first["nextToken"])
    assert listed(first) + listed(rest) == [("DEFAULT", None, "WARN"), *TARGETS] and "nextToken" not in rest
    aws("set-v2-logging-level --log-target targetType=DEFAULT --log-level INFO")
    assert aws("get-v2-logging-options")["defaultLogLevel"] == "INFO"
    for _ in range(2):
        assert aws("delete-v2-logging-level --target-type THING_GROUP --target-name my-thing-group") is None
    assert listed(aws("list-v2-logging-levels")) == [("DEFAULT", None, "INFO"), *TARGETS[1:]]
    aws("set-v2-logging-options --disable-all-logs")
    assert aws("get-v2-logging-options") == {**OPTIONS, "defaultLogLevel": "INFO", "disableAllLogs": True}
    assert listed(aws("list-v2-logging-levels")) == [("DEFAULT", None, "INFO"), *TARGETS[1:]]
    aws("set-v2-logging-options --no-disable-all-logs --event-configurations", json.dumps(EVENTS))
    options = {**OPTIONS, "defaultLogLevel": "INFO", "eventConfigurations": EVENTS}
    assert aws("get-v2-logging-options --verbose") == options
    # The older version of the two calls.
    set_options = "set-logging-options --logging-options-payload"
    assert aws(set_options, f"roleArn={ROLE},logLevel=ERROR") is None
    assert aws("get-logging-options") == {"roleArn": ROLE, "logLevel": "ERROR"}


def logging_refusals():
    """What is refused, under which name, and why; and what is left out or repeated."""
    iot = client()
    lamp = target("CLIENT_ID", "lamp-7")
    refused("NotConfiguredException", iot.get_v2_logging_options)
    refused("NotConfiguredException", iot.list_v2_logging_levels)
    refused("NotConfiguredException", iot.set_v2_logging_level, logTarget=lamp, logLevel="INFO")
    assert iot.get_logging_options().get("roleArn") is None
    assert "roleArn" in refused("InvalidRequestException", iot.set_v2_logging_options)
    refused("InvalidRequestException", iot.set_v2_logging_options, roleArn="a" * 2049)
    iot.set_v2_logging_options(roleArn=ROLE, defaultLogLevel="WARN")

    # Options that are left out stay, but disableAllLogs, whose default is false.
    iot.set_v2_logging_options(disableAllLogs=True)
    assert iot.get_v2_logging_options()["disableAllLogs"] is True
    iot.set_v2_logging_options(defaultLogLevel="ERROR")
    options = iot.get_v2_logging_options()
    assert (options["roleArn"], options["defaultLogLevel"], options["disableAllLogs"]) == (ROLE, "ERROR", False)

    iot.set_v2_logging_options(eventConfigurations=EVENTS)
    assert iot.get_v2_logging_options()["eventConfigurations"] == EVENTS
    iot.set_v2_logging_options(eventConfigurations=EVENTS[1:])
    assert iot.get_v2_logging_options()["eventConfigurations"] == EVENTS[1:]
    iot.set_v2_logging_options(defaultLogLevel="WARN")
    assert iot.get_v2_logging_options()["eventConfigurations"] == EVENTS[1:]
    for wrong, why in [
        ([{**EVENTS[0], "logDestination": "/aws/other"}], "logDestination"),
        ([{"logLevel": "INFO"}], "eventType"),
        ([{"eventType": "", "logLevel": "INFO"}], "eventType"),
        ([{"eventType": "x" * 513, "logLevel": "INFO"}], "eventType"),
        ([EVENTS[0], EVENTS[0]], "twice"),
        ([{"eventType": f"e{n}", "logLevel": "INFO"} for n in range(101)], "100"),
    ]:
        message = refused("InvalidRequestException", iot.set_v2_logging_options, eventConfigurations=wrong)
        assert why in message, message
    assert iot.get_v2_logging_options()["eventConfigurations"] == EVENTS[1:]
    iot.set_v2_logging_options(eventConfigurations=[])
    assert "eventConfigurations" not in iot.get_v2_logging_options()

    for wrong in [
        target("THING_GROUP", "nowhere"),
        target("THING_GROUP", "a/b"),
        target("THING_GROUP"),
        target("CLIENT_ID"),
        target("DEFAULT", "x"),
        target("OTHER", "x"),
        target("SOURCE_IP", "no-address"),
        target("CLIENT_ID", "x" * 129),
        {},
    ]:
        refused("InvalidRequestException", iot.set_v2_logging_level, logTarget=wrong, logLevel="INFO")
    assert "LOUD" in aws("set-v2-logging-level --log-target targetType=DEFAULT --log-level LOUD", fails="InvalidRequestException")
    refused("InvalidRequestException", iot.set_v2_logging_level, logTarget=lamp)
    refused("InvalidRequestException", iot.set_v2_logging_level, logLevel="INFO")
    refused("InvalidRequestException", iot.set_v2_logging_options, defaultLogLevel="LOUD")
    refused("InvalidRequestException", iot.delete_v2_logging_level, targetType="DEFAULT", targetName="x")
    refused("InvalidRequestException", iot.delete_v2_logging_level, targetType="OTHER", targetName="x")
    refused("InvalidRequestException", iot.list_v2_logging_levels, targetType="OTHER")
    payload = {"roleArn": ROLE, "logLevel": "LOUD"}
    refused("InvalidRequestException", iot.set_logging_options, loggingOptionsPayload=payload)
    refused("InvalidRequestException", iot.set_logging_options, loggingOptionsPayload={"logLevel": "INFO"})
    # IPv6, in whatever spelling, is one address.
    iot.set_v2_logging_level(logTarget=target("SOURCE_IP", "2001:db8::1"), logLevel="INFO")
    found = listed(iot.list_v2_logging_levels(targetType="SOURCE_IP"))
    assert found == [("SOURCE_IP", "2001:db8::1", "INFO")], found
    # Names of principals are whatever a client logs in with.
    principal = "CN=lamp 7/ü"
    iot.set_v2_logging_level(logTarget=target("PRINCIPAL_ID", principal), logLevel="INFO")
    found = listed(iot.list_v2_logging_levels(targetType="PRINCIPAL_ID"))
    assert found == [("PRINCIPAL_ID", principal, "INFO")], found
    iot.delete_v2_logging_level(targetType="PRINCIPAL_ID", targetName=principal)
    assert listed(iot.list_v2_logging_levels(targetType="PRINCIPAL_ID")) == []
