//! One question, all ways to ask it: pages over HTTP, GraphQL, the tail with its history, downloads and
//! the command line find the same events in the same order; and GraphQL by itself: who sees what, what is
//! refused and how.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use thinglog_tests::mosquitto;
use thinglog_tests::mqtt::{Connection, Version};
use thinglog_tests::site::Site;
use thinglog_tests::wait;

const STORE: &str = "[router.destinations.store]\ntype = \"store\"\n";
/// `alice:wonder` and `root:wonder`.
const ALICE: &str = "Authorization: Basic YWxpY2U6d29uZGVy\r\n";
const ROOT: &str = "Authorization: Basic cm9vdDp3b25kZXI=\r\n";
const JSON: &str = "Content-Type: application/json\r\n";

/// Sends a request of HTTP/1.0, whose answer ends with the connection and has no chunks.
fn send(site: &Site, line: &str, headers: &str, body: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(site.http).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let (host, length) = (site.http, body.len());
    write!(
        stream,
        "{line} HTTP/1.0\r\nHost: {host}\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    BufReader::new(stream)
}

/// Status and body.
fn asked(site: &Site, line: &str, headers: &str, body: &str) -> (u16, String) {
    let mut answer = String::new();
    send(site, line, headers, body)
        .read_to_string(&mut answer)
        .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}

/// A query and what is answered, by whom `headers` say.
fn graphql(site: &Site, headers: &str, query: &str, variables: &Value) -> Value {
    let body = json!({"query": query, "variables": variables}).to_string();
    let (status, answer) = asked(site, "POST /graphql", &format!("{JSON}{headers}"), &body);
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str(&answer).unwrap()
}

/// The data of an answer without errors.
#[track_caller]
fn data(answer: Value) -> Value {
    assert!(answer.get("errors").is_none(), "{answer}");
    answer["data"].clone()
}

fn encoded(text: &str) -> String {
    let bytes = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    bytes.collect()
}

/// Without what is said only sometimes, and what stands for that elsewhere.
fn plain(mut event: Value) -> Value {
    let event_object = event.as_object_mut().unwrap();
    event_object
        .retain(|_, value| !(value.is_null() || *value == json!(false) || *value == json!({})));
    event
}

fn without_place(mut event: Value) -> Value {
    event.as_object_mut().unwrap().remove("place");
    plain(event)
}

/// Has devices log something: levels, attributes, several sources, letters of all kinds.
fn fleet(site: &Site) {
    for (device, source) in [("lamp-1", "app"), ("lamp-2", "nginx"), ("door-1", "app")] {
        let mut client = Connection::open(site.mqtt, device, Version::V5).unwrap();
        for n in 0..40 {
            let level = ["DEBUG", "INFO", "WARN", "ERROR"][n % 4];
            let words = [
                "started",
                "timeout \u{1F4A1} ü",
                "disk\tfull <b>\u{7}",
                "GET /x?y=\"z\"",
            ];
            let mut event =
                json!({"level": level, "message": format!("{} {n}", words[n % 3]), "n": n});
            if n % 5 == 0 {
                event["http"] = json!({"status": 500 + n, "path": words[3]});
            }
            let topic = format!("thinglog/logs/{device}/{source}");
            client
                .publish(&topic, event.to_string().as_bytes())
                .unwrap();
            client.acknowledged().unwrap();
        }
    }
}

/// A question, in the words of the HTTP API.
type Question<'a> = &'a [(&'a str, &'a str)];

fn as_parameters(question: Question<'_>) -> String {
    let pairs = question
        .iter()
        .map(|(key, value)| format!("{key}={}&", encoded(value)));
    pairs.collect()
}

fn by_pages(site: &Site, question: Question<'_>, order: &str) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let parameters = as_parameters(question);
        let line = format!("GET /api/v1/logs?{parameters}order={order}&limit=7{cursor}");
        let (_, answer) = asked(site, &line, "", "");
        let mut page: Value = serde_json::from_str(&answer).unwrap();
        let Value::Array(items) = page["items"].take() else {
            panic!("{answer}");
        };
        found.extend(items.into_iter().map(plain));
        match page["next"].as_str() {
            None => return found,
            Some(next) => cursor = format!("&cursor={next}"),
        }
    }
}

const EVENTS: &str =
    "query($device: [String!], $where: LogConditions, $order: LogOrder, $cursor: String) {
    logEvents(device: $device, where: $where, order: $order, cursor: $cursor, limit: 7) {
        next
        items {
            id time received device source level severity message attributes place
            time_estimated: timeEstimated truncated
        }
    } }";

fn by_graphql(site: &Site, question: Question<'_>, order: &str) -> Vec<Value> {
    let mut variables = json!({"order": order.to_uppercase(), "where": {}});
    for (key, value) in question {
        match *key {
            "device" => variables["device"] = json!(value.split(',').collect::<Vec<_>>()),
            "group" | "source" => {
                variables["where"][key] = json!(value.split(',').collect::<Vec<_>>());
            }
            "level" => variables["where"][key] = json!(value.to_uppercase()),
            key => variables["where"][key] = json!(value),
        }
    }
    let mut found = Vec::new();
    loop {
        let page = data(graphql(site, "", EVENTS, &variables))["logEvents"].take();
        found.extend(page["items"].as_array().unwrap().iter().cloned().map(plain));
        match page["next"].as_str() {
            None => return found,
            Some(next) => variables["cursor"] = json!(next),
        }
    }
}

/// The history of a tail, which comes oldest first.
fn by_tail(site: &Site, question: Question<'_>) -> Vec<Value> {
    let parameters = as_parameters(question);
    let line = format!("GET /api/v1/logs/tail?{parameters}history=1000");
    let mut found = Vec::new();
    for line in send(site, &line, "", "").lines() {
        let line = line.unwrap();
        match line.strip_prefix("data: ") {
            Some("end") => return found,
            Some(event) => found.push(plain(serde_json::from_str(event).unwrap())),
            None => assert!(line != "event: failure", "{found:?}"),
        }
    }
    panic!("the tail ended: {found:?}");
}

fn by_download(site: &Site, question: Question<'_>, order: &str) -> Vec<Value> {
    let parameters = as_parameters(question);
    let line = format!("GET /api/v1/logs/download?{parameters}order={order}");
    let (status, lines) = asked(site, &line, "", "");
    assert_eq!(status, 200, "{lines}");
    let lines = lines.lines();
    lines
        .map(|line| plain(serde_json::from_str(line).unwrap()))
        .collect()
}

fn by_command(site: &Site, question: Question<'_>) -> Vec<Value> {
    let mut arguments = vec!["logs".to_owned(), "--json".into(), "--all".into()];
    for (key, value) in question {
        arguments.extend([format!("--{key}"), (*value).to_owned()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let lines = site.done(&arguments, "");
    let lines = lines.lines();
    lines
        .map(|line| without_place(serde_json::from_str(line).unwrap()))
        .collect()
}

#[test]
fn all_ways_to_ask_find_the_same_events_in_the_same_order() {
    let site = Site::new();
    site.configure(STORE);
    let _up = site.up();
    site.done(&["level", "set", "default", "DEBUG"], "");
    site.done(&["group", "create", "eu"], "");
    site.done(&["group", "add", "eu", "lamp-1"], "");
    site.done(&["group", "add", "eu", "door-1"], "");
    fleet(&site);
    let all = wait::until("all events in the store", || {
        let found = by_pages(&site, &[], "oldest");
        (found.len() == 120).then_some(found)
    });
    let time = |index: usize| all[index]["time"].as_str().unwrap();
    let (since, until) = (time(30), time(95));
    let questions: &[(Question<'_>, usize)] = &[
        (&[], 120),
        (&[("device", "lamp-1")], 40),
        (&[("device", "lamp-1,door-1"), ("level", "warn")], 40),
        (&[("group", "eu"), ("source", "app,nginx")], 80),
        (&[("source", "nginx"), ("level", "ERROR")], 10),
        (&[("since", since), ("until", until)], 65),
        (&[("since", since), ("group", "eu"), ("level", "info")], 38),
        (&[("grep", "time(d )?out")], 39),
        (&[("grep", "ü|<b>.{2}[0-9]$")], 48),
        (
            &[("filter", "http.status >= 520 and not source = nginx")],
            8,
        ),
        (
            &[
                ("filter", "n < 10 or message ~ /GET \\/x/"),
                ("since", "1h"),
            ],
            30,
        ),
        (&[("device", "nobody")], 0),
    ];
    for (question, count) in questions {
        let newest = by_pages(&site, question, "newest");
        let mut oldest = by_pages(&site, question, "oldest");
        assert_eq!(newest.len(), *count, "{question:?}");
        assert!(oldest.iter().rev().eq(&newest), "{question:?}");
        let arrival = by_pages(&site, question, "arrival");
        assert_eq!(arrival.len(), newest.len(), "{question:?}");
        assert_eq!(
            by_graphql(&site, question, "newest"),
            newest,
            "{question:?}"
        );
        assert_eq!(
            by_graphql(&site, question, "oldest"),
            oldest,
            "{question:?}"
        );
        assert_eq!(
            by_graphql(&site, question, "arrival"),
            arrival,
            "{question:?}"
        );
        assert_eq!(by_tail(&site, question), oldest, "{question:?}");
        oldest = oldest.into_iter().map(without_place).collect();
        let newest: Vec<Value> = newest.into_iter().map(without_place).collect();
        assert_eq!(
            by_download(&site, question, "oldest"),
            oldest,
            "{question:?}"
        );
        assert_eq!(
            by_download(&site, question, "newest"),
            newest,
            "{question:?}"
        );
        assert_eq!(by_command(&site, question), oldest, "{question:?}");
    }
}

#[test]
fn graphql_says_of_the_fleet_what_the_other_api_says() {
    let site = Site::new();
    site.configure(STORE);
    let _up = site.up();
    site.done(&["group", "create", "eu"], "");
    site.done(&["group", "add", "eu", "lamp-1"], "");
    site.done(&["level", "set", "default", "DEBUG"], "");
    site.done(&["level", "set", "group:eu", "WARN"], "");
    fleet(&site);
    wait::until("all events in the store", || {
        (by_pages(&site, &[], "oldest").len() == 100).then_some(())
    });
    let query = "{
        node(name: \"lamp-1\") {
            name online level why groups
            listLogEvents(where: {level: ERROR}, limit: 2) { items { message } next }
            logCounts(where: {since: \"1h\"}, step: \"1h\") { items { warn error debug info } stepS partial }
        }
        none: node(name: \"none\") { name }
        eu: nodes(group: \"eu\") { items { name } next }
        all: nodes(limit: 2) { items { name level } next }
        groups { items { name level members children } }
        group(name: \"eu\") { name ancestors }
        logCounts(device: [\"lamp-1\", \"lamp-2\"], step: \"1h\") { items { error } }
        deviceLogCounts(device: [\"lamp-1\", \"door-1\"], step: \"1h\") { devices { device items { error debug } } }
        explain(device: \"lamp-1\") { level why rules }
        history(subject: \"group:eu\") { items { subject change document } }
    }";
    let answer = graphql(&site, "", query, &json!({}));
    let errors = answer["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{answer}");
    assert_eq!(errors[0]["extensions"]["code"], "ResourceNotFound");
    assert_eq!(errors[0]["path"], json!(["none"]));
    let data = &answer["data"];
    let rest = |path: &str| -> Value {
        serde_json::from_str(&asked(&site, &format!("GET /api/v1/{path}"), "", "").1).unwrap()
    };
    let lamp = rest("devices/lamp-1");
    for (field, key) in [
        ("name", "device"),
        ("online", "online"),
        ("level", "level"),
        ("why", "why"),
        ("groups", "groups"),
    ] {
        assert_eq!(data["node"][field], lamp[key], "{field}");
    }
    assert_eq!(data["node"]["level"], "WARN");
    let events = &data["node"]["listLogEvents"];
    assert_eq!(events["items"].as_array().unwrap().len(), 2, "{events}");
    let same = rest("logs?device=lamp-1&level=error&limit=2");
    assert_eq!(events["next"], same["next"]);
    let sum = |items: &Value, level: &str| -> u64 {
        let items = items.as_array().unwrap().iter();
        items.map(|item| item[level].as_u64().unwrap()).sum()
    };
    let counts = &data["node"]["logCounts"];
    let of_lamp = ["debug", "info", "warn", "error"].map(|level| sum(&counts["items"], level));
    assert_eq!(
        (of_lamp, &counts["partial"]),
        ([0, 0, 10, 10], &json!(false))
    );
    assert_eq!(counts["stepS"], 3600.0);
    assert_eq!(data["eu"]["items"], json!([{"name": "lamp-1"}]));
    assert_eq!(data["all"]["items"].as_array().unwrap().len(), 2);
    assert_eq!(data["all"]["next"], rest("devices?limit=2")["next"]);
    let group = json!({"name": "eu", "level": "WARN", "members": 1, "children": []});
    assert_eq!(data["groups"]["items"], json!([group]));
    assert_eq!(data["group"], json!({"name": "eu", "ancestors": []}));
    assert_eq!(sum(&data["logCounts"]["items"], "error"), 20);
    let devices = data["deviceLogCounts"]["devices"].as_array().unwrap();
    let of = |device: &Value| (device["device"].clone(), sum(&device["items"], "debug"));
    let counted: Vec<_> = devices.iter().map(of).collect();
    assert_eq!(counted, [(json!("door-1"), 10), (json!("lamp-1"), 0)]);
    assert_eq!(data["explain"]["level"], "WARN");
    assert_eq!(
        data["explain"]["rules"],
        rest("explain?device=lamp-1")["rules"]
    );
    let history = rest("history?subject=group:eu");
    let changes = data["history"]["items"].as_array().unwrap();
    assert_eq!(changes.len(), history["items"].as_array().unwrap().len());
    assert_eq!(changes[0]["change"], history["items"][0]["change"]);
}

#[test]
fn what_graphql_refuses_it_refuses_in_words_and_goes_on() {
    let site = Site::new();
    site.configure(STORE);
    let _up = site.up();
    let code = |answer: &str| -> Value {
        let answer: Value = serde_json::from_str(answer).unwrap();
        assert!(answer["errors"][0]["message"].is_string(), "{answer}");
        answer["errors"][0]["extensions"]["code"].clone()
    };
    assert_eq!(
        asked(&site, "GET /graphql?query={groups{next}}", "", "").0,
        405
    );
    let small = json!({"query": "{ groups { next } }"}).to_string();
    for (headers, body, status, wanted) in [
        ("", small.clone(), 400, "InvalidRequest"),
        (
            "Content-Type: text/plain\r\n",
            small.clone(),
            400,
            "InvalidRequest",
        ),
        (JSON, "{".into(), 400, "InvalidRequest"),
        (JSON, format!("[{small},{small}]"), 400, "InvalidRequest"),
        (
            JSON,
            json!({"query": "{ groups {"}).to_string(),
            400,
            "InvalidRequest",
        ),
        (
            JSON,
            json!({"query": "{ gröups \u{1F4A1}"}).to_string(),
            400,
            "InvalidRequest",
        ),
        (
            JSON,
            json!({"query": ""}).to_string(),
            400,
            "InvalidRequest",
        ),
        (
            JSON,
            json!({"query": "{a".repeat(20_000)}).to_string(),
            410,
            "LimitExceeded",
        ),
        (
            JSON,
            json!({"query": " ".repeat(70_000)}).to_string(),
            410,
            "LimitExceeded",
        ),
        (
            JSON,
            json!({"query": format!("{{{}}}", "a:b ".repeat(600))}).to_string(),
            410,
            "LimitExceeded",
        ),
    ] {
        let (got, answer) = asked(&site, "POST /graphql", headers, &body);
        let shown: String = body.chars().take(60).collect();
        assert_eq!(
            (got, code(&answer)),
            (status, json!(wanted)),
            "{headers} {shown} {answer}"
        );
    }
    let foreign = format!("{JSON}Origin: http://evil.example\r\n");
    assert_eq!(asked(&site, "POST /graphql", &foreign, &small).0, 403);
    for (query, wanted, part) in [
        ("{ nothing }", "InvalidRequest", "nothing"),
        ("mutation { a }", "InvalidRequest", ""),
        (
            "{ logEvents(limit: 0) { next } }",
            "InvalidRequest",
            "limit",
        ),
        (
            "{ logEvents(where: {grep: \"(\"}) { next } }",
            "InvalidRequest",
            "regular expression",
        ),
        (
            "{ logEvents(where: {filter: \"level = LOUD\"}) { next } }",
            "InvalidRequest",
            "character 1",
        ),
        (
            "{ logEvents(device: []) { next } }",
            "InvalidRequest",
            "device",
        ),
        (
            "{ logEvents(cursor: \"x\") { next } }",
            "InvalidRequest",
            "cursor",
        ),
        (
            "{ deviceLogCounts(device: [\"a\"], where: {since: \"7d\"}, step: \"1s\") { partial } }",
            "InvalidRequest",
            "larger step",
        ),
        (
            "{ logEvents(where: {store: \"other\"}) { next } }",
            "ResourceNotFound",
            "no such store",
        ),
    ] {
        let answer = graphql(&site, "", query, &json!({}));
        let error = &answer["errors"][0];
        assert_eq!(error["extensions"]["code"], wanted, "{answer}");
        assert!(
            error["message"].as_str().unwrap().contains(part),
            "{answer}"
        );
    }
    let names: Vec<String> = (0..101).map(|n| n.to_string()).collect();
    let too_many = graphql(&site, "", EVENTS, &json!({"device": names}));
    assert_eq!(
        too_many["errors"][0]["extensions"]["code"],
        "InvalidRequest"
    );
    // Several searches of one request are answered one after the other.
    let some: String = (0..8)
        .map(|n| format!("a{n}: logEvents(limit: 1) {{ next }} "))
        .collect();
    let answer = data(graphql(&site, "", &format!("{{{some}}}"), &json!({})));
    assert_eq!(answer.as_object().unwrap().len(), 8);
}

#[test]
fn an_operator_of_a_group_sees_its_devices_only() {
    let test = "an_operator_of_a_group_sees_its_devices_only";
    if !mosquitto::installed(test) {
        return;
    }
    let site = Site::new();
    site.configure(STORE);
    site.configure("[broker.auth]\npasswords = \"passwords\"\ntokens = \"tokens\"\n");
    site.configure_http("sign_in = true");
    fs::write(site.path().join("tokens"), "").unwrap();
    for (name, more) in [
        ("root", &["--role", "admin"][..]),
        ("alice", &["--role", "operator", "--group", "eu"]),
    ] {
        fs::write(site.path().join(name), "wonder").unwrap();
        site.done(&[&["passwd", name], more].concat(), "wonder\n");
    }
    let _up = site.up();
    let login = ["--username", "root", "--password-file", "root"];
    site.done(&[&["group", "create", "eu"], &login[..]].concat(), "");
    site.done(&[&["group", "create", "us"], &login[..]].concat(), "");
    site.done(
        &[&["group", "add", "eu", "lamp-1"], &login[..]].concat(),
        "",
    );
    for device in ["lamp-1", "lamp-2"] {
        let topic = format!("thinglog/logs/{device}/app");
        let login = ["-q", "1", "-u", "root", "-P", "wonder"];
        mosquitto::publish(site.mqtt, &topic, format!("of {device}").as_bytes(), &login);
    }
    let query = "query($all: [String!]!) {
        nodes { items { name } }
        groups { items { name } }
        lamp: node(name: \"lamp-2\") { name }
        us: group(name: \"us\") { name }
        logEvents { items { message } }
        named: logEvents(device: $all, where: {filter: \"device = lamp-2 or message ~ /of/\"}) { items { message } }
        logCounts(step: \"1h\") { items { info } }
        deviceLogCounts(device: $all, step: \"1h\") { devices { device items { info } } }
        history { items { subject } }
    }";
    let variables = json!({"all": ["lamp-1", "lamp-2", "none"]});
    let everything = wait::until("both events in the store", || {
        let all = data(graphql(&site, ROOT, query, &variables));
        (all["logEvents"]["items"].as_array()?.len() == 2).then_some(all)
    });
    assert_eq!(
        everything["deviceLogCounts"]["devices"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    let answer = graphql(&site, ALICE, query, &variables);
    let seen = &answer["data"];
    assert_eq!(seen["nodes"]["items"], json!([{"name": "lamp-1"}]));
    assert_eq!(seen["groups"]["items"], json!([{"name": "eu"}]));
    for field in ["logEvents", "named"] {
        assert_eq!(
            seen[field]["items"],
            json!([{"message": "of lamp-1"}]),
            "{field}"
        );
    }
    assert_eq!(seen["logCounts"]["items"], json!([{"info": 1}]));
    let counted = json!([{"device": "lamp-1", "items": [{"info": 1}]}]);
    assert_eq!(seen["deviceLogCounts"]["devices"], counted);
    let subjects = seen["history"]["items"].as_array().unwrap();
    assert!(
        !subjects.is_empty() && !answer.to_string().contains("of lamp-2"),
        "{answer}"
    );
    assert!(
        !seen["history"].to_string().contains("group:us"),
        "{answer}"
    );
    let errors = answer["errors"].as_array().unwrap();
    let refused: Vec<(&Value, &Value)> = errors
        .iter()
        .map(|error| (&error["path"][0], &error["extensions"]["code"]))
        .collect();
    let no = json!("Unauthorized");
    assert_eq!(refused, [(&json!("lamp"), &no), (&json!("us"), &no)]);
    // The other API counts the same.
    let line = "GET /api/v1/logs/counts?by=device&device=lamp-1,lamp-2,none&step=1h";
    let counts: Value = serde_json::from_str(&asked(&site, line, ALICE, "").1).unwrap();
    let devices = counts["devices"].as_object().unwrap();
    assert_eq!(
        (devices.len(), &devices["lamp-1"][0]["info"]),
        (1, &json!(1))
    );
    // Nobody learns of the schema without a sign-in.
    let kinds = json!({"query": "{ __schema { types { name } } }"}).to_string();
    assert_eq!(asked(&site, "POST /graphql", JSON, &kinds).0, 401);
    let (status, kinds) = asked(&site, "POST /graphql", &format!("{JSON}{ALICE}"), &kinds);
    assert!(status == 200 && kinds.contains("LogEvents"), "{kinds}");
}
