//! Who may connect and who may do what, as clients meet it: over TCP and TLS, in both versions, by
//! raw packets and by mosquitto's clients.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "harness/certificates.rs"]
#[allow(dead_code)]
mod certificates;
mod harness;
#[path = "harness/login.rs"]
mod login;
#[path = "harness/site.rs"]
mod site;

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use certificates::{Authority, BOTH};
use harness::{Raw, Running};
use jsonwebtoken::{EncodingKey, Header};
use login::{Client, Login};
use site::{SECRET, Site, alice, connect, root, users};
use thinglog_broker::{
    Broker, Config, Transport,
    access::{Auth, Role, password, token},
};
use tokio::net::TcpStream;

/// Refused, in 3.1.1 and in 5.
const WRONG: [(u8, u8); 2] = [(4, 4), (5, 0x86)];
const FORBIDDEN: [(u8, u8); 2] = [(4, 5), (5, 0x87)];
const FOREIGN_ID: [(u8, u8); 2] = [(4, 2), (5, 0x85)];

fn jwt(name: &str, seconds: u64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let claims = serde_json::json!({"sub": name, "exp": now + seconds});
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}

async fn refused(login: Login<'_>, broker: &Running, codes: [(u8, u8); 2]) {
    for (level, code) in codes {
        let login = Login {
            level,
            ..login.clone()
        };
        let answer = login.connect(broker.address).await.err();
        assert_eq!(answer, Some(code), "{} in version {level}", login.id);
    }
}

#[tokio::test]
async fn each_method_lets_in_who_proves_their_name_and_nobody_else() {
    let site = Site::new("");
    let broker = site.start().await;
    let bearer = jwt("sensor", 60);
    for level in [4, 5] {
        connect(root(level), &broker).await;
        connect(site.lamp(level), &broker).await;
        let bearer = Login {
            id: "sensor/1",
            ..Login::new(level, "jwt", &bearer)
        };
        connect(bearer, &broker).await;
    }
    refused(Login::nobody(4, "x"), &broker, FORBIDDEN).await;
    refused(Login::new(4, "root", "wrong"), &broker, WRONG).await;
    refused(Login::new(4, "nobody", "secret"), &broker, WRONG).await;
    refused(Login::new(4, "lamp", &site.door), &broker, WRONG).await;
    refused(Login::new(4, "nobody", &site.lamp), &broker, WRONG).await;
    let expired = jwt("sensor", 0);
    refused(Login::new(4, "sensor", &expired), &broker, WRONG).await;
    let binary = Login {
        password: Some(b"\xFF\0secret"),
        ..root(4)
    };
    refused(binary, &broker, WRONG).await;
    assert!(broker.refused("wrong user name or password") >= 6);
    assert!(broker.refused("wrong device name or token") >= 4);
    assert!(broker.refused("token has expired") >= 2);
    broker.stop().await;
}

#[tokio::test]
async fn a_password_may_be_any_bytes() {
    let site = Site::new("");
    let bytes = b"\xFF\0\xC3( \n";
    let hash = password::Secret::Hash(password::hash(bytes).unwrap());
    site.write("passwords", &password::set("", "bin", hash, None).unwrap());
    let broker = site.start().await;
    for level in [4, 5] {
        let login = Login {
            password: Some(bytes),
            ..Login::new(level, "bin", "")
        };
        connect(login, &broker).await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_certificate_says_who_its_client_is() {
    let site = Site::new("");
    let authority = Authority::new();
    let mut tls = authority.issue("broker").write(site.dir.path());
    tls.client_ca = Some(authority.write(&site.path("ca.pem")));
    site.write("passwords", "press:*:role=admin\n");
    let config = Config {
        tls: Some(tls),
        ..site.config()
    };
    let broker = Running::start_with(config).await;
    let over = async |name: &str| {
        let stream = TcpStream::connect(broker.at(Transport::Tls)).await.unwrap();
        let identity = authority.issue(name);
        let stream = authority.connect(stream, &BOTH, Some(&identity)).await;
        Raw::over(stream.unwrap())
    };
    // The name is the certificate's, whatever user name is sent.
    let mut drill = Login {
        id: "drill",
        ..root(5)
    }
    .connect_over(over("drill").await)
    .await
    .ok()
    .unwrap();
    assert_eq!(drill.publish("thinglog/logs/drill/app", 1, false).await, 0);
    assert_eq!(
        drill.publish("thinglog/logs/lamp/app", 1, false).await,
        0x87
    );
    let press = Login::nobody(5, "any")
        .connect_over(over("press").await)
        .await;
    let code = press.ok().unwrap().publish("any/topic", 1, false).await;
    assert!(code < 0x80, "{code:#x}");
    let foreign = Login::nobody(5, "lamp")
        .connect_over(over("drill").await)
        .await;
    assert_eq!(foreign.err(), Some(0x85));
    broker.stop().await;
}

#[tokio::test]
async fn a_device_writes_its_own_topics_and_a_forbidden_publish_goes_nowhere() {
    let site = Site::new("");
    let broker = site.start().await;
    let mut watch = connect(root(5), &broker).await;
    assert_eq!(watch.subscribe("#").await, 1);
    for level in [4, 5] {
        let mut lamp = connect(site.lamp(level), &broker).await;
        for topic in [
            "thinglog/logs/door/app",
            "thinglog/reported/door",
            "thinglog/config/default",
            "other",
            "$SYS/broker/uptime",
        ] {
            for qos in [0, 1, 2] {
                let code = lamp.publish(topic, qos, false).await;
                let told = if level == 5 && qos > 0 { 0x87 } else { 0 };
                assert_eq!(code, told, "{topic} at QoS {qos} in version {level}");
            }
        }
        for topic in ["thinglog/logs/lamp/app", "thinglog/reported/lamp"] {
            assert!(lamp.publish(topic, 1, false).await < 0x80, "{topic}");
            let mut came = watch.until(topic).await;
            came.retain(|topic| topic != "thinglog/connected/lamp");
            assert_eq!(came, [topic], "nothing else came before");
        }
    }
    assert_eq!(broker.refused("not allowed to publish"), 30);
    broker.stop().await;
}

#[tokio::test]
async fn a_subscription_is_granted_where_some_rule_could_match() {
    let site = Site::new("user alice\ntopic read a/+/c\ntopic deny a/x/c\n");
    let broker = site.start().await;
    for (level, refusal) in [(4, 0x80), (5, 0x87)] {
        let mut user = connect(alice(level), &broker).await;
        for filter in ["a/b/c", "a/#", "#", "+/b/+", "a/+/c"] {
            assert_eq!(user.subscribe(filter).await, 1, "{filter}");
        }
        for filter in ["b/#", "a/b", "a/x/c", "$SYS/#", "a/+/d"] {
            assert_eq!(user.subscribe(filter).await, refusal, "{filter}");
        }
        let mut lamp = connect(site.lamp(level), &broker).await;
        assert_eq!(lamp.subscribe("thinglog/desired/lamp").await, 1);
        assert_eq!(lamp.subscribe("thinglog/desired/door").await, refusal);
        assert_eq!(lamp.subscribe("$SYS/#").await, refusal);
    }
    broker.stop().await;
}

#[tokio::test]
async fn every_delivery_is_checked_retained_queued_and_durable_ones_included() {
    let site = Site::new(
        "user alice\ntopic read thinglog/config/#\ntopic deny thinglog/config/secret\ntopic read thinglog/logs/lamp/#\n",
    );
    let broker = site.start().await;
    let mut writer = connect(root(5), &broker).await;
    let publish = async |writer: &mut Client, retain| {
        for topic in ["config/secret", "config/open", "desired/lamp"] {
            writer
                .publish(&format!("thinglog/{topic}"), 1, retain)
                .await;
        }
        for topic in ["logs/door/app", "logs/lamp/app"] {
            writer.publish(&format!("thinglog/{topic}"), 1, false).await;
        }
    };
    let sorted = |mut topics: Vec<String>| {
        topics.sort();
        topics
    };
    let seen = ["thinglog/config/open", "thinglog/logs/lamp/app"];
    publish(&mut writer, true).await;
    for level in [4, 5] {
        let persistent = Login {
            clean: false,
            id: if level == 4 { "four" } else { "five" },
            ..alice(level)
        };
        // Retained ones at the subscription.
        let mut reader = connect(persistent.clone(), &broker).await;
        assert_eq!(reader.subscribe("#").await, 1);
        assert_eq!(reader.next().await.topic, "thinglog/config/open");
        // Live ones.
        publish(&mut writer, false).await;
        let live = vec![reader.next().await.topic, reader.next().await.topic];
        assert_eq!(sorted(live), seen);
        // Those of an absence.
        drop(reader);
        publish(&mut writer, false).await;
        let mut reader = connect(persistent, &broker).await;
        assert!(reader.present);
        let queued = vec![reader.next().await.topic, reader.next().await.topic];
        assert_eq!(sorted(queued), seen);
        reader.raw.ping().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn where_a_message_comes_from_is_told_to_routers_and_admins_only() {
    let site = Site::new("user alice\ntopic read thinglog/#\n");
    let broker = site.start().await;
    let mut admin = connect(root(5), &broker).await;
    let mut user = connect(alice(5), &broker).await;
    assert_eq!(
        user.subscribe_from("thinglog/logs/#", Some("earliest"))
            .await,
        0x87
    );
    assert_eq!(user.subscribe("thinglog/logs/#").await, 1);
    let filter = "thinglog/logs/#";
    assert_eq!(admin.subscribe_from(filter, Some("earliest")).await, 1);
    let mut lamp = connect(site.lamp(4), &broker).await;
    lamp.publish("thinglog/logs/lamp/app", 1, false).await;
    let stamped = admin.next().await;
    assert_eq!(stamped.payload, "thinglog/logs/lamp/app");
    assert!(
        stamped.says("thinglog-principal\0\x04lamp"),
        "{:?}",
        stamped.properties
    );
    assert!(stamped.says("thinglog-address") && stamped.says("thinglog-offset"));
    assert!(!user.next().await.says("thinglog-"));
    broker.stop().await;
}

#[tokio::test]
async fn a_will_is_authorised_at_connect_and_again_when_it_is_sent() {
    let site = Site::new("user alice\ntopic write wills/#\n");
    let broker = site.start().await;
    let forbidden = Login {
        will: Some("thinglog/reported/door"),
        ..site.lamp(4)
    };
    refused(forbidden, &broker, FORBIDDEN).await;
    let mut watch = connect(root(5), &broker).await;
    watch.subscribe("#").await;
    let will = |topic| Login {
        will: Some(topic),
        ..alice(4)
    };
    drop(connect(will("wills/first"), &broker).await);
    assert_eq!(watch.next().await.topic, "wills/first");
    let user = connect(will("wills/second"), &broker).await;
    site.write("acl", "user alice\ntopic write other/#\n");
    assert!(broker.reload.reload().is_empty());
    drop(user);
    // The session's end, and with it the will, comes before this client takes its place.
    drop(connect(will("other/third"), &broker).await);
    assert_eq!(watch.until("other/third").await, ["other/third"]);
    broker.stop().await;
}

#[tokio::test]
async fn a_session_belongs_to_its_principal_also_after_a_restart() {
    let site = Site::new("");
    let broker = site.start().await;
    let persistent = |login| Login {
        id: "shared-id",
        clean: false,
        ..login
    };
    let mut owner = connect(persistent(root(5)), &broker).await;
    refused(persistent(alice(4)), &broker, FOREIGN_ID).await;
    let thief = Login {
        clean: true,
        ..persistent(alice(4))
    };
    refused(thief.clone(), &broker, FOREIGN_ID).await;
    owner.raw.send(0xC0, &[]).await;
    assert_eq!(
        owner.raw.packet().await,
        [0xD0, 0],
        "the owner stays connected"
    );
    drop(owner);
    broker.stop().await;

    let broker = site.start().await;
    refused(thief, &broker, FOREIGN_ID).await;
    assert!(connect(persistent(root(5)), &broker).await.present);
    let device = Login {
        id: "shared-id",
        ..site.lamp(4)
    };
    refused(device, &broker, FOREIGN_ID).await;
    broker.stop().await;
}

#[tokio::test]
async fn sessions_of_before_there_were_logins_go_to_who_comes_for_them() {
    let site = Site::new("");
    let open = Config {
        auth: Auth::default(),
        ..site.config()
    };
    let persistent = |login| Login {
        id: "old",
        clean: false,
        ..login
    };
    let broker = Running::start_with(open).await;
    let nobody = Login::nobody(5, "old");
    let mut client = connect(persistent(nobody), &broker).await;
    assert!(client.publish("any/topic", 1, false).await < 0x80);
    broker.stop().await;
    let broker = site.start().await;
    assert!(connect(persistent(root(5)), &broker).await.present);
    refused(persistent(alice(4)), &broker, FOREIGN_ID).await;
    broker.stop().await;
}

#[tokio::test]
async fn a_device_without_a_client_id_gets_one_of_its_own() {
    let site = Site::new("");
    let broker = site.start().await;
    let mut raw = Raw::open(broker.address).await;
    let mut body = b"\0\x04MQTT\x05\xC2\0\x3c\0".to_vec();
    for text in ["", "lamp", &site.lamp] {
        harness::put_text(&mut body, text);
    }
    raw.send(0x10, &body).await;
    let connack = raw.packet().await;
    assert_eq!(connack[3], 0);
    assert!(
        connack.windows(10).any(|bytes| bytes == b"lamp/auto-"),
        "{connack:02x?}"
    );
    broker.stop().await;
}

#[tokio::test]
async fn a_reload_disconnects_who_lost_a_right_they_use_and_leaves_the_others() {
    let site = Site::new("user alice\ntopic read a/#\ntopic readwrite b/#\n");
    let broker = site.start().await;
    let mut reader = connect(alice(5), &broker).await;
    reader.subscribe("a/#").await;
    let other = Login {
        id: "writer",
        ..alice(5)
    };
    let mut writer = connect(other, &broker).await;
    assert!(writer.publish("b/x", 1, false).await < 0x80);
    let mut lamp = connect(site.lamp(5), &broker).await;
    let mut door = connect(Login::new(5, "door", &site.door), &broker).await;

    site.write("acl", "user alice\ntopic read b/#\nbroken\n");
    let errors = broker.reload.reload();
    assert!(
        errors[0].to_string().contains("acl:3: \"broken\""),
        "{}",
        errors[0]
    );
    assert!(
        writer.publish("b/x", 1, false).await < 0x80,
        "the old rules serve"
    );

    site.write("acl", "user alice\ntopic read b/#\n");
    let tokens = fs::read_to_string(site.path("tokens")).unwrap();
    site.write("tokens", &token::remove(&tokens, "lamp").unwrap());
    assert!(broker.reload.reload().is_empty());
    let (code, text) = reader.farewell().await;
    assert_eq!(code, 0x87);
    assert!(
        text.contains("subscription is not allowed any more"),
        "{text}"
    );
    let (code, text) = lamp.farewell().await;
    assert_eq!(code, 0x87);
    assert!(text.contains("token was removed"), "{text}");
    assert_eq!(broker.refused("the device's token was removed"), 1);
    assert_eq!(writer.publish("b/x", 1, false).await, 0x87);
    assert!(door.publish("thinglog/logs/door/app", 1, false).await < 0x80);
    refused(site.lamp(4), &broker, WRONG).await;
    broker.stop().await;
}

#[tokio::test]
async fn what_waits_for_a_client_is_checked_by_the_rights_it_comes_back_with() {
    let site = Site::new("user alice\ntopic read a/#\ntopic read b/#\n");
    let broker = site.start().await;
    let persistent = Login {
        clean: false,
        ..alice(4)
    };
    let mut reader = connect(persistent.clone(), &broker).await;
    assert_eq!(reader.subscribe("#").await, 1);
    drop(reader);
    let mut writer = connect(root(5), &broker).await;
    for topic in ["a/1", "b/1", "a/2", "b/2"] {
        writer.publish(topic, 1, false).await;
    }
    site.write("acl", "user alice\ntopic read b/#\n");
    assert!(broker.reload.reload().is_empty());
    let mut reader = connect(persistent, &broker).await;
    assert_eq!(reader.until("b/2").await, ["b/1", "b/2"]);
    broker.stop().await;
}

#[tokio::test]
async fn a_connection_ends_with_its_token() {
    let site = Site::new("");
    let broker = site.start().await;
    let bearer = jwt("sensor", 2);
    let mut client = connect(Login::new(5, "sensor", &bearer), &broker).await;
    let (code, text) = client.farewell().await;
    assert_eq!(code, 0x87);
    assert!(text.contains("expired"), "{text}");
    broker.stop().await;
}

#[tokio::test]
async fn clients_without_a_name_have_the_rules_before_the_first_user() {
    let site = Site::new("topic read weather/#\nuser alice\ntopic readwrite #\n");
    let mut config = site.config();
    config.auth.anonymous = true;
    let broker = Running::start_with(config).await;
    let mut nobody = connect(Login::nobody(5, "x"), &broker).await;
    assert_eq!(nobody.subscribe("weather/#").await, 1);
    assert_eq!(nobody.subscribe("thinglog/#").await, 0x87);
    assert_eq!(nobody.publish("weather/x", 1, false).await, 0x87);
    refused(Login::new(4, "alice", "wrong"), &broker, WRONG).await;
    broker.stop().await;
}

#[tokio::test]
async fn a_flood_of_guesses_is_refused_and_devices_and_users_log_in_meanwhile() {
    let site = Site::new("");
    let broker = site.start().await;
    connect(root(5), &broker).await;
    let guess = |n: usize| async move {
        let user = format!("user-{n}");
        Login::new(5, &user, "guess")
            .connect(broker.address)
            .await
            .err()
    };
    let guesses: Vec<_> = (0..400).map(guess).collect();
    let flood = async {
        let mut codes = Vec::new();
        let mut running = tokio::task::JoinSet::new();
        guesses
            .into_iter()
            .for_each(|guess| drop(running.spawn(guess)));
        while let Some(code) = running.join_next().await {
            codes.push(code.unwrap());
        }
        codes
    };
    let others = async {
        for _ in 0..20 {
            connect(site.lamp(5), &broker).await;
            connect(root(5), &broker).await;
        }
    };
    let (codes, ()) = tokio::join!(flood, others);
    assert!(
        codes.iter().all(|code| matches!(code, Some(0x86 | 0x89))),
        "{codes:?}"
    );
    assert!(codes.contains(&Some(0x89)), "some are sent away");
    broker.stop().await;
}

#[tokio::test]
async fn a_part_of_the_process_logs_in_and_takes_up_what_a_separate_router_left() {
    let site = Site::new("");
    site.write(
        "passwords",
        &users(&[("router", "role=router"), ("alice", "")]),
    );
    let separate = Login {
        id: "thinglog-router/file",
        clean: false,
        ..Login::new(5, "router", "secret")
    };
    let broker = site.start().await;
    connect(separate.clone(), &broker).await;
    broker.stop().await;

    let registry = prometheus::Registry::new();
    let broker = Broker::bind(site.config(), &registry).await.unwrap();
    let (user, secret) = broker.login_for("router", Role::Router).unwrap();
    let address: SocketAddr = broker.address();
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(broker.run(stop.clone()));
    let own = Login {
        id: "thinglog-router/file",
        clean: false,
        ..Login::new(5, &user, &secret)
    };
    let client = own.connect(address).await.ok().unwrap();
    assert!(client.present);
    drop(client);
    assert!(
        separate.connect(address).await.is_ok(),
        "and the other way round"
    );
    stop.cancel();
    running.await.unwrap();
}

/// Runs one of mosquitto's clients; whether it succeeded, and what it printed.
fn mosquitto(name: &str, address: SocketAddr, args: &[&str]) -> (bool, String) {
    let output = Command::new(name)
        .args([
            "-h",
            &address.ip().to_string(),
            "-p",
            &address.port().to_string(),
        ])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

fn has_mosquitto() -> bool {
    let found = |name: &str| Command::new(name).arg("--help").output().is_ok();
    let both = found("mosquitto_pub") && found("mosquitto_sub");
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(
        both || !ci,
        "mosquitto_pub and mosquitto_sub are missing (Debian: mosquitto-clients)"
    );
    if !both {
        eprintln!("SKIPPED: no mosquitto_pub and mosquitto_sub (Debian: mosquitto-clients)");
    }
    both
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquittos_clients_log_in_and_are_refused() {
    if !has_mosquitto() {
        return;
    }
    let site = Site::new("");
    let broker = site.start().await;
    let address = broker.address;
    let lamp = site.lamp.clone();
    let path: &Path = Path::new("thinglog/reported/lamp");
    let topic = path.to_str().unwrap();
    tokio::task::spawn_blocking(move || {
        for version in ["mqttv311", "mqttv5"] {
            let login = [
                "-V", version, "-i", "lamp", "-u", "lamp", "-P", &lamp, "-q", "1",
            ];
            let publish = |more: &[&str]| mosquitto("mosquitto_pub", address, more);
            let args = [&login[..], &["-t", topic, "-m", "here", "-r"]].concat();
            let (done, text) = publish(&args);
            assert!(done && text.is_empty(), "{version}: {text}");
            let reader = [
                "-V", version, "-u", "root", "-P", "secret", "-t", topic, "-C", "1", "-W", "5",
            ];
            let (done, text) = mosquitto("mosquitto_sub", address, &reader);
            assert!(done && text == "here\n", "{version}: {text}");
            let wrong = [
                "-V", version, "-u", "root", "-P", "wrong", "-t", topic, "-m", "x",
            ];
            let (done, text) = publish(&wrong);
            assert!(!done && !text.is_empty(), "{version}: {text}");
            let nobody = ["-V", version, "-t", topic, "-m", "x"];
            let (done, text) = publish(&nobody);
            assert!(
                !done && text.to_lowercase().contains("not authori"),
                "{version}: {text}"
            );
            let foreign = [&login[..], &["-t", "thinglog/reported/door"]].concat();
            let (_, text) = mosquitto(
                "mosquitto_sub",
                address,
                &[&foreign[..], &["-W", "5"]].concat(),
            );
            assert!(text.contains("denied"), "{version}: {text}");
        }
    })
    .await
    .unwrap();
    broker.stop().await;
}
