//! `/api/openapi.json`: what the native API takes and answers, as OpenAPI 3.1. A table here is the
//! document; the tests hold it against the routes.

use axum::response::Response;
use serde_json::{Map, Value, json};

use super::ok;
use crate::registry::Code;

/// One operation: method, path, what it does, its query parameters, its body, what it answers.
struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    query: &'static [(&'static str, &'static str)],
    body: Option<&'static str>,
    answer: Shape,
}

/// What an operation answers.
#[derive(Clone, Copy)]
enum Shape {
    /// An object of this schema.
    One(&'static str),
    /// A page of them.
    Page(&'static str),
    /// 204.
    Nothing,
}

use Shape::{Nothing, One, Page};

const PAGE: (&str, &str) = ("limit", "Most items of a page, 1-1000; 100 unless told");
const CURSOR: (&str, &str) = ("cursor", "What the page before said as `next`");

const fn operation(
    (method, path): (&'static str, &'static str),
    summary: &'static str,
    query: &'static [(&'static str, &'static str)],
    body: Option<&'static str>,
    answer: Shape,
) -> Operation {
    Operation {
        method,
        path,
        summary,
        query,
        body,
        answer,
    }
}

const SESSION: &str = "/api/v1/session";
const EXPLAIN: &str = "/api/v1/explain";
const LEVELS: &str = "/api/v1/levels";
const DEFAULT_LEVEL: &str = "/api/v1/levels/default";
const LEVEL: &str = "/api/v1/levels/{kind}/{name}";
const OVERRIDES: &str = "/api/v1/overrides";
const DEFAULT_OVERRIDE: &str = "/api/v1/overrides/default";
const OVERRIDE: &str = "/api/v1/overrides/{kind}/{name}";
const GROUPS: &str = "/api/v1/groups";
const GROUP: &str = "/api/v1/groups/{name}";
const MEMBERS: &str = "/api/v1/groups/{name}/members";
const MEMBER: &str = "/api/v1/groups/{name}/members/{device}";
const DESTINATIONS: &str = "/api/v1/destinations";
const DESTINATION: &str = "/api/v1/destinations/{name}";
const TAP: &str = "/api/v1/destinations/{name}/tap";
const LETTERS: &str = "/api/v1/destinations/{name}/dead-letters";
const LETTER: &str = "/api/v1/destinations/{name}/dead-letters/{n}";
const REPLAY: &str = "/api/v1/destinations/{name}/dead-letters/replay";
const DROP: &str = "/api/v1/destinations/{name}/dead-letters/drop";
const DEVICES: &str = "/api/v1/devices";
const DEVICE: &str = "/api/v1/devices/{name}";

const LOGS: &str = "/api/v1/logs";
const COUNTS: &str = "/api/v1/logs/counts";
const TAIL: &str = "/api/v1/logs/tail";
const DOWNLOAD: &str = "/api/v1/logs/download";
#[cfg(feature = "graphql")]
const GRAPHQL: &str = "/graphql";
const DEVICE_LOGS: &str = "/api/v1/devices/{name}/logs";

/// A search's conditions, and what one operation has besides.
macro_rules! search {
    ($($more:expr),* $(,)?) => {
        &[
            ("device", "Of these devices; names divided by commas"),
            ("group", "Of devices of these groups, and of groups in them"),
            ("source", "Of these sources"),
            ("level", "This level and what is worse"),
            ("since", "Logged at this time or later: RFC 3339, or before now as 15m, 2h, 7d"),
            ("until", "Logged before this time"),
            ("grep", "A regular expression that is found in the message"),
            ("filter", "A condition in the language of routes"),
            ("store", "The name of a store, if there are several"),
            $($more),*
        ]
    };
}

#[rustfmt::skip]
const OPERATIONS: &[Operation] = &[
    operation(("get", LEVELS), "All documents that say a level or settings", &[PAGE, CURSOR], None, Page("Level")),
    operation(("get", DEFAULT_LEVEL), "The level of the default", &[], None, One("Level")),
    operation(("put", DEFAULT_LEVEL), "Replace what the default says of levels and settings", &[], Some("LevelPart"), One("Level")),
    operation(("patch", DEFAULT_LEVEL), "Change the given fields, null removes (RFC 7396)", &[], Some("LevelPart"), One("Level")),
    operation(("delete", DEFAULT_LEVEL), "Remove what the default says of levels and settings", &[], None, Nothing),
    operation(("get", LEVEL), "The level of a group, device, source, principal or source-ip", &[], None, One("Level")),
    operation(("put", LEVEL), "Replace what it says of levels and settings", &[], Some("LevelPart"), One("Level")),
    operation(("patch", LEVEL), "Change the given fields, null removes (RFC 7396)", &[], Some("LevelPart"), One("Level")),
    operation(("delete", LEVEL), "Remove what it says of levels and settings", &[], None, Nothing),
    operation(("get", OVERRIDES), "Temporary levels that run", &[PAGE, CURSOR], None, Page("Override")),
    operation(("get", DEFAULT_OVERRIDE), "The temporary level of the default", &[], None, One("Override")),
    operation(("put", DEFAULT_OVERRIDE), "Set a temporary level of the default", &[], Some("NewOverride"), One("Override")),
    operation(("delete", DEFAULT_OVERRIDE), "End it", &[], None, Nothing),
    operation(("get", OVERRIDE), "The temporary level of a group or device", &[], None, One("Override")),
    operation(("put", OVERRIDE), "Set a temporary level of a group or device", &[], Some("NewOverride"), One("Override")),
    operation(("delete", OVERRIDE), "End it", &[], None, Nothing),
    operation(("get", EXPLAIN), "The level of a device, and every rule that spoke or could have",
        &[("device", "The device"), ("source", "Of which source"), ("principal", "Who published"), ("address", "From where"), ("time", "When the event happened, RFC 3339")],
        None, One("Explanation")),
    operation(("get", GROUPS), "Thing groups", &[PAGE, CURSOR], None, Page("Group")),
    operation(("post", GROUPS), "Create a group", &[], Some("NewGroup"), One("Group")),
    operation(("get", GROUP), "One group", &[], None, One("Group")),
    operation(("patch", GROUP), "Change what is said of a group; null removes", &[], Some("GroupPatch"), One("Group")),
    operation(("delete", GROUP), "Delete a group with its memberships; not while it has children", &[], None, Nothing),
    operation(("get", MEMBERS), "The devices in a group",
        &[("recursive", "true: those of the groups in it too"), PAGE, CURSOR], None, Page("Name")),
    operation(("put", MEMBER), "Put a device into a group", &[], None, One("Membership")),
    operation(("delete", MEMBER), "Take a device out of a group", &[], None, Nothing),
    operation(("get", DEVICES), "Devices",
        &[("group", "Of this group, subgroups included"), ("query", "That match a query, as dynamic groups have it"), ("online", "true or false"), PAGE, CURSOR],
        None, Page("Device")),
    operation(("get", DEVICE), "One device", &[], None, One("Device")),
    operation(("put", DEVICE), "Declare a device", &[], Some("NewDevice"), One("Device")),
    operation(("patch", DEVICE), "Change what is said of a device; null removes", &[], Some("DevicePatch"), One("Device")),
    operation(("delete", DEVICE), "Remove everything that is retained of a device", &[], None, Nothing),
    operation(("get", "/api/v1/history"), "Who changed what, newest first",
        &[("subject", "Of this alone: default, group:<name>, device:<name> and so on"), PAGE, CURSOR], None, Page("HistoryEntry")),
    operation(("get", DESTINATIONS), "Destinations, and how they are", &[], None, Page("Destination")),
    operation(("get", DESTINATION), "One destination", &[], None, One("Destination")),
    operation(("get", TAP), "What it is being sent, as NDJSON without an end", &[], None, One("Event")),
    operation(("get", LETTERS), "Events that it refused for good", &[PAGE, CURSOR], None, Page("DeadLetter")),
    operation(("get", LETTER), "One of them", &[], None, One("DeadLetter")),
    operation(("post", REPLAY), "Send dead letters again", &[], Some("Letters"), One("LettersDone")),
    operation(("post", DROP), "Delete dead letters", &[], Some("Letters"), One("LettersDone")),
    operation(("get", LOGS), "What was logged",
        search![("order", "newest (unless told), oldest or arrival"), PAGE, ("cursor", "What the page before said as `next`, or the `place` of an event")],
        None, Page("FoundEvent")),
    operation(("get", COUNTS), "How much was logged over time, by level", search![("step", "The width of a step: 30s, 5m, 1h"), ("by", "device: each of `device` by itself")], None, One("Counts")),
    operation(("get", TAIL), "What was logged last, then what arrives, as server-sent events (`Last-Event-ID` goes on)",
        search![("history", "How many events before it begins, at most 1000; 10 unless told")], None, One("FoundEvent")),
    operation(("get", DOWNLOAD), "All of it as a file",
        search![("order", "oldest (unless told) or newest"), ("format", "ndjson (unless told) or text"), ("gzip", "true: compressed")], None, One("Event")),
    operation(("delete", DEVICE_LOGS), "Forget what a device has logged", &[], None, Nothing),
    #[cfg(feature = "graphql")]
    operation(("post", GRAPHQL), "A GraphQL query over devices, groups and what was logged; introspection tells the schema", &[],
        Some("GraphqlRequest"), One("GraphqlAnswer")),
    operation(("get", "/api/v1/alerts"), "Rules and their open alerts: all rules, at most 1,000 alerts of each", &[], None, Page("AlertRule")),
    operation(("get", SESSION), "Who one is, and whether anybody has to sign in", &[], None, One("Session")),
    operation(("post", SESSION), "Sign in, by `name` and `password` or by `token`: sets a cookie, which later requests show", &[],
        Some("Credentials"), One("Session")),
    operation(("delete", SESSION), "Sign out", &[], None, Nothing),
    operation(("get", "/api/v1/problems"), "Documents that are there and do not act as they read", &[PAGE, CURSOR], None, Page("Problem")),
];

pub(super) async fn document() -> Response {
    ok(&whole())
}

/// The document.
pub(super) fn whole() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "thinglog", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "bearer": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "thinglog_session"},
            },
        },
        "security": [{"basic": []}, {"bearer": []}, {"session": []}, {}],
    })
}

fn described(operation: &Operation) -> Value {
    let in_path = operation.path.split('/').filter_map(|level| {
        let name = level.strip_prefix('{')?.strip_suffix('}')?;
        Some(json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
    });
    let in_query = operation.query.iter().map(|(name, description)| {
        json!({"name": name, "in": "query", "required": *name == "device" && operation.path == EXPLAIN,
               "description": description, "schema": {"type": "string"}})
    });
    let parameters: Vec<Value> = in_path.chain(in_query).collect();
    let error = json!({"$ref": "#/components/schemas/Error"});
    let (status, answer) = match operation.answer {
        Nothing => ("204", json!({"description": "Done"})),
        One(name) => ("200", content(&json!({"$ref": schema(name)}))),
        Page(name) => {
            let items = json!({"type": "array", "items": {"$ref": schema(name)}});
            let next = json!({"type": "string", "description": "The cursor of the next page"});
            let page = json!({"type": "object", "required": ["items"],
                              "properties": {"items": items, "next": next}});
            ("200", content(&page))
        }
    };
    let mut described = json!({
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {status: answer, "default": content(&error)},
    });
    let creates = operation.method == "post"
        && operation.path.starts_with("/api/")
        && operation.path != SESSION;
    if creates || operation.path == DEVICE && operation.method == "put" {
        described["responses"]["201"] = described["responses"]["200"].clone();
    }
    if let Some(body) = operation.body {
        let required = operation.path != DEVICE || operation.method != "put";
        described["requestBody"] = content(&json!({"$ref": schema(body)}));
        described["requestBody"]["required"] = json!(required);
    }
    described
}

fn schema(name: &str) -> String {
    format!("#/components/schemas/{name}")
}

fn content(schema: &Value) -> Value {
    json!({"description": "", "content": {"application/json": {"schema": schema}}})
}

fn object(properties: Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required})
}

fn schemas() -> Value {
    let text = json!({"type": "string"});
    let number = json!({"type": "integer"});
    let time = json!({"type": "string", "format": "date-time"});
    let level = json!({"type": "string", "enum": ["DEBUG", "INFO", "WARN", "ERROR", "DISABLED"]});
    let levels = json!({"type": "object", "additionalProperties": level});
    let texts = json!({"type": "object", "additionalProperties": text});
    let names = json!({"type": "array", "items": text});
    let any = json!({"type": "object"});
    let attributes =
        json!({"type": "object", "additionalProperties": {"type": ["string", "null"]}});
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    let part = json!({"level": level, "disabled": {"type": "boolean"}, "sources": levels,
                      "upload": any, "limits": any, "env": texts});
    let mut whole = part.clone();
    for (field, schema) in [
        ("type", &text),
        ("name", &text),
        ("by", &text),
        ("at", &time),
        ("role", &text),
    ] {
        whole[field] = schema.clone();
    }
    let flag = json!({"type": "boolean"});
    let step = object(
        json!({"time": time, "debug": number, "info": number, "warn": number, "error": number}),
        &["time", "debug", "info", "warn", "error"],
    );
    let steps = json!({"type": "array", "items": step});
    let device = [
        ("device", &text),
        ("online", &flag),
        ("last_contact", &time),
        ("level", &level),
        ("why", &text),
        ("override", &any),
        ("groups", &names),
        ("type", &text),
        ("attributes", &texts),
        ("reported_attributes", &texts),
        ("version", &text),
        ("desired_revision", &text),
        ("revision", &text),
        ("principal", &text),
        ("address", &text),
        ("connected_since", &time),
        ("spool_events", &number),
        ("spool_bytes", &number),
        ("dropped", &number),
        ("dropped_by", &any),
        ("upload", &text),
        ("persistent", &flag),
        ("clock_synced", &flag),
        ("created", &time),
        ("document_version", &number),
        ("by", &text),
        ("at", &time),
    ];
    let alert = object(
        json!({"id": text, "device": text, "group": text, "starts": time, "last": time,
               "count": number, "labels": texts, "annotations": texts}),
        &["id", "starts", "count", "labels", "annotations"],
    );
    let per = json!({"type": "string", "enum": ["device", "group", "fleet"]});
    let alert_rule = object(
        json!({"rule": text, "when": text, "opens": text, "by": per, "to": names, "severity": text,
               "open": number, "alerts": {"type": "array", "items": alert}}),
        &["rule", "when", "opens", "by", "to", "open", "alerts"],
    );
    let device: Map<String, Value> = device
        .map(|(field, schema)| (field.to_owned(), schema.clone()))
        .into_iter()
        .collect();
    let device = object(
        device.into(),
        &["device", "groups", "level", "why", "desired_revision"],
    );
    json!({
        "Error": object(json!({"error": object(json!({
            "code": {"type": "string", "enum": codes}, "message": text}), &["code", "message"])}), &["error"]),
        "Name": text,
        "LevelPart": object(part, &[]),
        "Level": object(whole, &["type"]),
        "NewOverride": object(json!({"level": level, "for_s": number, "until": time, "sources": levels}), &["level"]),
        "Override": object(json!({"type": text, "name": text, "level": level, "until": time, "for_s": number,
            "sources": levels, "by": text, "at": time}), &["type", "level", "until", "for_s"]),
        "Explanation": object(json!({"device": text, "source": text, "principal": text, "address": text,
            "time": time, "level": level, "why": text, "rules": {"type": "array", "items": any}}),
            &["device", "time", "level", "why", "rules"]),
        "NewGroup": object(json!({"name": text, "parent": text, "query": text, "description": text,
            "attributes": texts}), &["name"]),
        "GroupPatch": object(json!({"description": {"type": ["string", "null"]}, "attributes": attributes,
            "query": text, "expected_version": number}), &[]),
        "Group": object(json!({"name": text, "parent": text, "ancestors": names, "children": names,
            "members": number, "query": text, "description": text, "attributes": texts, "created": time,
            "version": number, "level": level, "sources": levels, "upload": any, "limits": any, "env": texts,
            "override": any, "problem": text, "by": text, "at": time}), &["name", "ancestors", "children", "members"]),
        "Membership": object(json!({"group": text, "device": text}), &["group", "device"]),
        "NewDevice": object(json!({"type": text, "attributes": texts}), &[]),
        "DevicePatch": object(json!({"type": {"type": ["string", "null"]}, "attributes": attributes,
            "expected_version": number}), &[]),
        "Device": device,
        "Destination": object(json!({"name": text, "type": text, "routes": names, "ready": flag, "reason": text,
            "events": {"type": "object", "additionalProperties": number}, "retries": number, "restarts": number,
            "redelivered": number, "bytes": number, "lag_ms": number, "requests": any, "in_hand_bytes": number,
            "dead_letters": number, "dead_letters_lost": number}), &["name", "type", "ready", "events", "lag_ms"]),
        "Event": any,
        "FoundEvent": object(json!({"id": text, "time": time, "received": time, "device": text, "source": text,
            "level": level, "severity": number, "message": text, "attributes": any, "place": text,
            "time_estimated": flag, "truncated": flag}),
            &["time", "received", "device", "source", "level", "severity", "message", "place"]),
        "Counts": object(json!({"items": steps, "devices": {"type": "object", "additionalProperties": steps},
            "step_s": {"type": "number"}, "since": time, "partial": flag, "effort": any}), &["step_s", "since", "partial"]),
        "GraphqlRequest": object(json!({"query": text, "operationName": text, "variables": any}), &["query"]),
        "GraphqlAnswer": object(json!({"data": {"type": ["object", "null"]}, "errors": {"type": "array", "items": any}}), &[]),
        "DeadLetter": object(json!({"n": number, "refused": time, "reason": text, "event": any}),
            &["n", "refused", "reason", "event"]),
        "Letters": object(json!({"letters": {"type": "array", "items": number}, "all": flag}), &[]),
        "LettersDone": object(json!({"asked": number, "done": flag, "dropped": number, "accepted": number,
            "refused": number, "error": text}), &["asked", "done"]),
        "HistoryEntry": object(json!({"at": time, "by": text, "subject": text, "change": text, "topic": text,
            "document": {"type": ["object", "null"]}}), &["at", "subject", "change", "topic"]),
        "Session": object(json!({"name": {"type": ["string", "null"]}, "role": {"type": "string", "enum": ["operator", "admin"]},
            "groups": {"type": ["array", "null"], "items": text}, "sign_in": flag}), &["name", "role", "groups", "sign_in"]),
        "Credentials": object(json!({"name": text, "password": text, "token": text}), &[]),
        "AlertRule": alert_rule,
        "Problem": object(json!({"topic": text, "reason": text, "fault": text, "last_good": {"type": "boolean"}}),
            &["topic", "reason", "fault", "last_good"]),
    })
}
