//! The fleet through the native API and through retained messages, over a real broker: what one does the
//! other sees, and a router that has lost everything knows it again.
#![allow(clippy::unwrap_used)]

mod common;

use common::http::{Answer, ask};
use common::{Client, Mosquitto, Running, config, until};
use serde_json::{Value, json};

async fn get(router: &Running, path: &str) -> Answer {
    ask(router.http, "GET", path, None).await
}

async fn send(router: &Running, method: &str, path: &str, body: Value) -> Answer {
    ask(router.http, method, path, Some(body)).await
}

/// Waits until an answer is as wanted; gives it.
async fn until_answer(router: &Running, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = std::time::Instant::now() + common::PATIENCE;
    loop {
        let answer = get(router, path).await;
        if wanted(&answer.body) {
            return answer.body;
        }
        assert!(std::time::Instant::now() < deadline, "{path}: {answer:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn names(body: &Value) -> Vec<&str> {
    let items = body["items"].as_array().unwrap().iter();
    items
        .map(|item| {
            item.as_str()
                .or(item["device"].as_str())
                .or(item["name"].as_str())
                .unwrap()
        })
        .collect()
}

#[tokio::test]
async fn a_level_that_is_set_can_be_read_at_once_and_reaches_the_device() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let router = Running::start(config(broker.port, data.path())).await;
    let mut watcher = Client::connect(broker.port, "watcher");
    watcher.subscribe("thinglog/config/#").await;
    watcher.subscribe("thinglog/desired/#").await;

    let level = "/api/v1/levels/device/lamp-7";
    assert_eq!(get(&router, level).await.code(), "ResourceNotFound");
    let answer = send(
        &router,
        "PUT",
        level,
        json!({"level": "DEBUG", "sources": {"nginx": "WARN"}}),
    )
    .await;
    assert_eq!(
        (answer.status, &answer.body["level"]),
        (200, &json!("DEBUG"))
    );
    assert_eq!(answer.body["by"], "anonymous");
    let (topic, document) = watcher.next(|topic| topic.contains("/config/")).await;
    assert_eq!(topic, "thinglog/config/device/lamp-7");
    assert_eq!(document["sources"], json!({"nginx": "WARN"}));
    let (topic, desired) = watcher.next(|topic| topic.contains("/desired/")).await;
    assert_eq!(topic, "thinglog/desired/lamp-7");
    assert_eq!(desired["sources"], json!({"nginx": "WARN"}));

    send(&router, "PATCH", level, json!({"sources": {"nginx": null}})).await;
    let body = get(&router, level).await.body;
    assert_eq!(
        (&body["level"], &body["sources"]),
        (&json!("DEBUG"), &Value::Null)
    );
    let explained = get(&router, "/api/v1/explain?device=lamp-7").await.body;
    assert_eq!(explained["level"], "DEBUG");
    assert_eq!(ask(router.http, "DELETE", level, None).await.status, 204);
    assert_eq!(get(&router, level).await.code(), "ResourceNotFound");
    until_answer(&router, "/api/v1/devices/lamp-7", |body| {
        body["level"] == "INFO"
    })
    .await;

    let bad = send(&router, "PUT", level, json!({"level": "LOUD"})).await;
    assert_eq!((bad.status, bad.code()), (400, "InvalidRequest"));
    let unknown = send(&router, "PUT", level, json!({"levle": "INFO"})).await;
    assert!(
        unknown.body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("levle")
    );
    router.stop().await;
}

#[tokio::test]
async fn groups_devices_and_overrides_through_the_api() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let router = Running::start(config(broker.port, data.path())).await;
    let create = |name: &str, parent: Option<&str>| json!({"name": name, "parent": parent});
    let groups = "/api/v1/groups";
    assert_eq!(
        send(&router, "POST", groups, create("world", None))
            .await
            .status,
        201
    );
    assert_eq!(
        send(&router, "POST", groups, create("eu", Some("world")))
            .await
            .status,
        201
    );
    assert_eq!(
        send(&router, "POST", groups, create("eu", Some("world")))
            .await
            .status,
        200
    );
    let other = send(&router, "POST", groups, create("eu", None)).await;
    assert_eq!(other.code(), "ResourceAlreadyExists");
    for device in ["lamp-1", "lamp-2", "lamp-3"] {
        let path = format!("/api/v1/groups/eu/members/{device}");
        assert_eq!(ask(router.http, "PUT", &path, None).await.status, 200);
    }
    let page = get(
        &router,
        "/api/v1/groups/world/members?recursive=true&limit=2",
    )
    .await
    .body;
    assert_eq!(names(&page), ["lamp-1", "lamp-2"]);
    let next = page["next"].as_str().unwrap();
    let rest = get(
        &router,
        &format!("/api/v1/groups/world/members?recursive=true&cursor={next}"),
    )
    .await;
    assert_eq!(names(&rest.body), ["lamp-3"]);
    assert!(names(&get(&router, "/api/v1/groups/world/members").await.body).is_empty());
    let joined = ask(
        router.http,
        "PUT",
        "/api/v1/groups/world/members/lamp-1",
        None,
    )
    .await;
    assert_eq!(joined.code(), "Conflict", "{joined:?}");

    let wanted = json!({"level": "DEBUG", "for_s": 600});
    let set = send(&router, "PUT", "/api/v1/overrides/group/world", wanted).await;
    assert_eq!(set.status, 200, "{set:?}");
    let device = get(&router, "/api/v1/devices/lamp-1").await.body;
    assert_eq!(device["level"], "DEBUG");
    assert_eq!(device["groups"], json!(["eu", "world"]));
    let over = get(&router, "/api/v1/overrides").await.body;
    assert_eq!(over["items"][0]["name"], "world");
    assert_eq!(
        ask(router.http, "DELETE", "/api/v1/overrides/group/world", None)
            .await
            .status,
        204
    );

    let tagged = json!({"attributes": {"model": "x1"}});
    send(&router, "PATCH", "/api/v1/devices/lamp-2", tagged).await;
    let found = get(&router, "/api/v1/devices?query=model%20%3D%20%22x1%22")
        .await
        .body;
    assert_eq!(names(&found), ["lamp-2"]);
    let found = get(&router, "/api/v1/devices?group=world&limit=1000")
        .await
        .body;
    assert_eq!(names(&found), ["lamp-1", "lamp-2", "lamp-3"]);
    assert_eq!(
        get(&router, "/api/v1/devices?groop=world").await.status,
        400
    );

    assert_eq!(
        ask(router.http, "DELETE", "/api/v1/devices/lamp-2", None)
            .await
            .status,
        204
    );
    assert_eq!(
        get(&router, "/api/v1/devices/lamp-2").await.code(),
        "ResourceNotFound"
    );
    let members = get(&router, "/api/v1/groups/eu/members").await.body;
    assert_eq!(names(&members), ["lamp-1", "lamp-3"]);
    let refused = ask(router.http, "DELETE", "/api/v1/groups/world", None).await;
    assert_eq!(refused.code(), "InvalidRequest");
    for group in ["eu", "world"] {
        let path = format!("/api/v1/groups/{group}");
        assert_eq!(ask(router.http, "DELETE", &path, None).await.status, 204);
    }
    assert!(names(&get(&router, groups).await.body).is_empty());
    router.stop().await;
}

#[tokio::test]
async fn a_router_that_has_lost_its_data_knows_the_fleet_again() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let router = Running::start(config(broker.port, data.path())).await;
    let mut device = Client::connect(broker.port, "device");
    device.publish("thinglog/logs/plain-1/app", "hello").await;
    let reported = r#"{"online":true,"version":"1.2","attributes":{"model":"x1"},"dropped":7}"#;
    device.retain("thinglog/reported/lamp-7", reported).await;
    device
        .retain(
            "thinglog/config/group/x1",
            r#"{"query":"model = \"x1\"","level":"DEBUG"}"#,
        )
        .await;
    let lamp = "/api/v1/devices/lamp-7";
    let before = until_answer(&router, lamp, |body| body["level"] == "DEBUG").await;
    assert_eq!(before["reported_attributes"], json!({"model": "x1"}));
    assert_eq!(
        (&before["online"], &before["dropped"]),
        (&json!(true), &json!(7))
    );
    let plain = until_answer(&router, "/api/v1/devices/plain-1", |body| {
        body["last_contact"].is_string()
    })
    .await;
    // The desired document is what makes it known to others.
    let mut watcher = Client::connect(broker.port, "watcher");
    watcher.subscribe("thinglog/desired/plain-1").await;
    watcher.next(|_| true).await;
    router.stop().await;

    // With its data it also knows when a device that only publishes was last heard of.
    let router = Running::start(config(broker.port, data.path())).await;
    let again = until_answer(&router, "/api/v1/devices/plain-1", |body| {
        body["device"].is_string()
    })
    .await;
    assert_eq!(again["last_contact"], plain["last_contact"]);
    router.stop().await;

    let fresh = tempfile::tempdir().unwrap();
    let router = Running::start(config(broker.port, fresh.path())).await;
    let after = until_answer(&router, lamp, |body| body["level"] == "DEBUG").await;
    for field in [
        "groups",
        "desired_revision",
        "reported_attributes",
        "version",
        "online",
    ] {
        assert_eq!(after[field], before[field], "{field}");
    }
    let all = get(&router, "/api/v1/devices").await.body;
    assert_eq!(names(&all), ["lamp-7", "plain-1"]);
    let offline = get(&router, "/api/v1/devices?online=false").await.body;
    assert_eq!(names(&offline), ["plain-1"]);
    router.stop().await;
}

#[tokio::test]
async fn a_bad_document_changes_nothing_and_is_explained() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let router = Running::start(config(broker.port, data.path())).await;
    let mut operator = Client::connect(broker.port, "operator");
    operator.subscribe("thinglog/alerts/config").await;
    operator
        .retain("thinglog/config/device/lamp-7", r#"{"level":"DEBUG"}"#)
        .await;
    operator
        .retain("thinglog/config/device/lamp-7", r#"{"levle":"WARN"}"#)
        .await;
    let (_, alert) = operator.next(|_| true).await;
    assert!(
        alert["reason"].as_str().unwrap().contains("levle"),
        "{alert}"
    );
    let problems = get(&router, "/api/v1/problems").await.body;
    assert_eq!(problems["items"][0]["topic"], "config/device/lamp-7");
    let level = get(&router, "/api/v1/levels/device/lamp-7").await.body;
    assert_eq!(level["level"], "DEBUG");
    // A change through the API puts it right.
    let put = send(
        &router,
        "PUT",
        "/api/v1/levels/device/lamp-7",
        json!({"level": "WARN"}),
    )
    .await;
    assert_eq!(put.status, 200);
    let problems = get(&router, "/api/v1/problems").await.body;
    assert_eq!(problems["items"], json!([]));
    router.stop().await;
}

/// Two routers of one broker, with folders of their own.
async fn two_routers(port: u16) -> Vec<(Running, tempfile::TempDir)> {
    let mut routers = Vec::new();
    for n in 0..2 {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(port, folder.path());
        let destination = config.destinations.remove("file").unwrap();
        config.destinations.insert(format!("file-{n}"), destination);
        routers.push((Running::start(config).await, folder));
    }
    routers
}

#[tokio::test]
async fn two_routers_agree_whoever_is_asked() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let routers = two_routers(broker.port).await;
    let mut changes = Vec::new();
    for n in 0..40 {
        let to = routers[n % 2].0.http;
        let path = format!("/api/v1/levels/device/lamp-{}", n % 5);
        let level = ["DEBUG", "WARN", "ERROR"][n % 3];
        changes.push(tokio::spawn(async move {
            ask(to, "PUT", &path, Some(json!({"level": level})))
                .await
                .status
        }));
    }
    for change in changes {
        assert_eq!(change.await.unwrap(), 200);
    }
    let [(one, _), (other, _)] = &routers[..] else {
        panic!()
    };
    let mine = get(one, "/api/v1/levels").await.body;
    until_answer(other, "/api/v1/levels", |body| *body == mine).await;
    let deleted = ask(one.http, "DELETE", "/api/v1/devices/lamp-0", None).await;
    assert_eq!(deleted.status, 204);
    until_answer(other, "/api/v1/devices/lamp-0", |body| {
        body["error"].is_object()
    })
    .await;
    for (router, _) in routers {
        router.stop().await;
    }
}

#[tokio::test]
async fn a_deleted_device_stays_deleted_whoever_else_looks() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let routers = two_routers(broker.port).await;
    let [(one, _), (other, _)] = &routers[..] else {
        panic!()
    };
    let groups = ["red", "green", "blue"];
    for group in groups {
        send(one, "POST", "/api/v1/groups", json!({"name": group})).await;
        let level = json!({"level": "WARN"});
        send(one, "PUT", &format!("/api/v1/levels/group/{group}"), level).await;
    }
    let names: Vec<String> = (0..20).map(|n| format!("lamp-{n}")).collect();
    for name in &names {
        let level = json!({"level": "DEBUG"});
        send(one, "PUT", &format!("/api/v1/levels/device/{name}"), level).await;
        for group in groups {
            let path = format!("/api/v1/groups/{group}/members/{name}");
            assert_eq!(ask(one.http, "PUT", &path, None).await.status, 200);
        }
    }
    for name in &names {
        let path = format!("/api/v1/devices/{name}");
        assert_eq!(ask(one.http, "DELETE", &path, None).await.status, 204);
        assert_eq!(get(one, &path).await.code(), "ResourceNotFound");
    }
    for name in &names {
        let path = format!("/api/v1/devices/{name}");
        until_answer(other, &path, |body| body["error"].is_object()).await;
    }
    let mut watcher = Client::connect(broker.port, "watcher");
    watcher.subscribe("thinglog/desired/#").await;
    watcher.publish("thinglog/desired/end", "{}").await;
    let (topic, _) = watcher.next(|_| true).await;
    assert_eq!(topic, "thinglog/desired/end", "nothing else is retained");
    for (router, _) in routers {
        router.stop().await;
    }
}

#[tokio::test]
async fn every_refusal_is_an_error_in_json() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let router = Running::start(config(broker.port, data.path())).await;
    for (method, path, body, status, code) in [
        ("GET", "/api/v1/nothing", None, 404, "ResourceNotFound"),
        ("POST", "/api/v1/devices", None, 405, "InvalidRequest"),
        ("GET", "/api/v1/devices/%FF", None, 400, "InvalidRequest"),
        ("GET", "/api/v1/devices?limit=", None, 400, "InvalidRequest"),
        (
            "GET",
            "/api/v1/levels/planet/x",
            None,
            400,
            "InvalidRequest",
        ),
        ("PUT", "/api/v1/levels/default", None, 400, "InvalidRequest"),
        (
            "PUT",
            "/api/v1/levels/default",
            Some(json!([1])),
            400,
            "InvalidRequest",
        ),
        ("PUT", "/api/v1/devices/a%20b", None, 400, "InvalidRequest"),
    ] {
        let answer = ask(router.http, method, path, body).await;
        assert_eq!(
            (answer.status, answer.code()),
            (status, code),
            "{method} {path}"
        );
        let message = answer.body["error"]["message"].as_str().unwrap();
        assert!(!message.is_empty(), "{method} {path}");
    }
    router.stop().await;
}

#[tokio::test]
async fn a_change_of_many_documents_is_refused_in_time_and_can_be_made_again() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let router = Running::start(config(broker.port, data.path())).await;
    send(&router, "POST", "/api/v1/groups", json!({"name": "eu"})).await;
    let mut operator = Client::connect(broker.port, "operator");
    for n in 0..300 {
        let topic = format!("thinglog/config/member/eu/lamp-{n:03}");
        operator.retain(&topic, "{}").await;
    }
    let group = "/api/v1/groups/eu";
    until_answer(&router, group, |body| body["members"] == 300).await;
    // It does not answer any more, and closes nothing.
    broker.freeze(true);
    let refused = ask(router.http, "DELETE", group, None).await;
    assert_eq!(
        (refused.status, refused.code()),
        (503, "ServiceUnavailable")
    );
    broker.freeze(false);
    until("the router is ready again", || router.health.is_ready()).await;
    assert_eq!(ask(router.http, "DELETE", group, None).await.status, 204);
    assert_eq!(get(&router, group).await.code(), "ResourceNotFound");
    router.stop().await;
}

#[tokio::test]
async fn who_changed_what_is_remembered_over_a_restart() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let router = Running::start(config(broker.port, data.path())).await;
    let level = "/api/v1/levels/device/lamp-7";
    send(&router, "PUT", level, json!({"level": "DEBUG"})).await;
    let mut operator = Client::connect(broker.port, "operator");
    operator
        .retain("thinglog/config/group/eu", r#"{"level":"WARN"}"#)
        .await;
    until_answer(&router, "/api/v1/groups/eu", |body| body["level"] == "WARN").await;
    assert_eq!(ask(router.http, "DELETE", level, None).await.status, 204);
    let history = "/api/v1/history";
    let all = get(&router, history).await.body;
    let told = |body: &Value| -> Vec<String> {
        let items = body["items"].as_array().unwrap().iter();
        let text = |item: &Value, field: &str| item[field].as_str().unwrap_or("-").to_owned();
        items
            .map(|it| {
                format!(
                    "{} {}: {}",
                    text(it, "by"),
                    text(it, "subject"),
                    text(it, "change")
                )
            })
            .collect()
    };
    let expected = [
        "anonymous device:lamp-7: no level (was DEBUG)",
        "- group:eu: level WARN",
        "anonymous device:lamp-7: level DEBUG",
    ];
    assert_eq!(told(&all), expected);
    assert_eq!(all["items"][0]["document"], Value::Null);
    router.stop().await;

    let router = Running::start(config(broker.port, data.path())).await;
    assert_eq!(get(&router, history).await.body, all);
    let device = get(&router, "/api/v1/history?subject=device:lamp-7&limit=1").await;
    assert_eq!(told(&device.body), expected[..1]);
    // What comes meanwhile moves no page.
    send(&router, "PUT", level, json!({"level": "INFO"})).await;
    let next = device.body["next"].as_str().unwrap();
    let rest = format!("/api/v1/history?subject=device:lamp-7&cursor={next}");
    assert_eq!(told(&get(&router, &rest).await.body), expected[2..]);
    for bad in ["subject=lamp", "cursor=x", "limit=0", "what=1"] {
        let refused = get(&router, &format!("{history}?{bad}")).await;
        assert_eq!((refused.status, refused.code()), (400, "InvalidRequest"));
    }
    router.stop().await;
}

#[tokio::test]
async fn a_thousand_concurrent_changes_are_all_made_and_none_is_lost() {
    let Some(broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let router = Running::start(config(broker.port, data.path())).await;
    let fleet = router.fleet.clone();
    let caller = thinglog_router::registry::Caller::anonymous();
    let mut changes = tokio::task::JoinSet::new();
    for n in 0..1000 {
        let (fleet, caller) = (fleet.clone(), caller.clone());
        changes.spawn(async move {
            // Fifty devices, twenty sources each: every change must keep the others'.
            let patch = json!({"sources": {format!("s{}", n / 50): "WARN"}});
            let change = thinglog_router::registry::Change::PatchLevel {
                target: thinglog_router::registry::Target::Device(format!("lamp-{}", n % 50)),
                patch: patch.as_object().unwrap().clone(),
            };
            fleet.change(change, &caller).await
        });
    }
    while let Some(done) = changes.join_next().await {
        done.unwrap().unwrap();
    }
    for n in 0..50 {
        let level = get(&router, &format!("/api/v1/levels/device/lamp-{n}"))
            .await
            .body;
        assert_eq!(level["sources"].as_object().unwrap().len(), 20);
    }
    router.stop().await;
}

#[tokio::test]
async fn without_a_broker_a_change_is_refused_and_reads_go_on() {
    let Some(mut broker) = Mosquitto::start() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let router = Running::start(config(broker.port, data.path())).await;
    let level = "/api/v1/levels/default";
    assert_eq!(
        send(&router, "PUT", level, json!({"level": "WARN"}))
            .await
            .status,
        200
    );
    broker.stop();
    let refused = send(&router, "PUT", level, json!({"level": "DEBUG"})).await;
    assert_eq!(
        (refused.status, refused.code()),
        (503, "ServiceUnavailable")
    );
    assert_eq!(get(&router, level).await.body["level"], "WARN");
    broker.restart();
    until("the router is ready again", || router.health.is_ready()).await;
    // What was refused is not published later.
    assert_eq!(get(&router, level).await.code(), "ResourceNotFound");
    assert_eq!(
        send(&router, "PUT", level, json!({"level": "INFO"}))
            .await
            .status,
        200
    );
    router.stop().await;
}
