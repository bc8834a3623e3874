//! The main job, end to end, with the clients an operator has: what is published reaches the file and
//! the live topics, levels take effect everywhere, and a broker that is away costs nothing.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;
use thinglog_tests::mosquitto::{self, VERSIONS, Watch};
use thinglog_tests::process::{Process, binary};
use thinglog_tests::site::Site;
use thinglog_tests::wait;

/// A command that writes every line of its stdin that begins with `e` to stderr, others to stdout.
const ECHO: &str = "while read -r kind text; do \
    if [ \"$kind\" = e ]; then echo \"$text\" >&2; else echo \"$text\"; fi; done";

/// A watch that is known to be subscribed: it has seen a probe.
fn watch_logs(broker: SocketAddr) -> Watch {
    let watch = Watch::start(broker, "thinglog/logs/lamp-7/#", &["-F", "%t"]);
    wait::until("the watch to be subscribed", || {
        mosquitto::publish(broker, "thinglog/logs/lamp-7/probe", b"probe", &[]);
        (!watch.lines().is_empty()).then_some(())
    });
    watch
}

#[test]
fn plain_clients_reach_the_file_and_the_live_topics() {
    if !mosquitto::installed("plain_clients_reach_the_file_and_the_live_topics") {
        return;
    }
    let site = Site::new();
    let _up = site.up();
    let live = Watch::start(site.mqtt, "thinglog/live/+/info/#", &["-v"]);
    wait::until("the live topic to carry a probe", || {
        mosquitto::publish(site.mqtt, "thinglog/logs/probe/app", b"probe", &[]);
        (!live.lines().is_empty()).then_some(())
    });
    for version in VERSIONS {
        let topic = "thinglog/logs/lamp-7/app";
        let json = format!(r#"{{"level":"warn","message":"hot in {version}","celsius":91.5}}"#);
        mosquitto::publish(site.mqtt, topic, json.as_bytes(), &["-V", version]);
        let plain = format!("hello in plain {version}");
        mosquitto::publish(site.mqtt, topic, plain.as_bytes(), &["-V", version]);

        let event = site.event(&plain);
        assert_eq!(event["device"], "lamp-7");
        assert_eq!(event["source"], "app");
        assert_eq!(event["level"], "INFO");
        let hot = site.event(&format!("hot in {version}"));
        assert_eq!(hot["level"], "WARN");
        assert_eq!(hot["attributes"]["celsius"], 91.5);

        let line = wait::until("the live topic to carry the event", || {
            live.lines().into_iter().find(|line| line.contains(&plain))
        });
        let (topic, payload) = line.split_once(' ').unwrap();
        assert_eq!(topic, "thinglog/live/lamp-7/info/app");
        let payload: Value = serde_json::from_str(payload).unwrap();
        assert_eq!(payload["id"], event["id"]);
        assert!(
            live.lines().iter().all(|line| !line.contains("hot in")),
            "WARN on an info topic"
        );
    }
}

#[test]
fn lines_and_arrays_are_several_events() {
    if !mosquitto::installed("lines_and_arrays_are_several_events") {
        return;
    }
    let site = Site::new();
    let _up = site.up();
    let topic = "thinglog/logs/lamp-7/app";
    mosquitto::publish(site.mqtt, topic, b"first line\nsecond line\n", &[]);
    mosquitto::publish(
        site.mqtt,
        topic,
        br#"[{"msg":"third"},{"msg":"fourth","lvl":"error"}]"#,
        &[],
    );
    assert_eq!(site.event("fourth")["level"], "ERROR");
    let messages: Vec<_> = site
        .events()
        .iter()
        .map(|event| event["message"].clone())
        .collect();
    assert_eq!(messages, ["first line", "second line", "third", "fourth"]);
}

#[test]
fn what_is_neither_text_nor_a_batch_is_quarantined_and_blocks_nothing() {
    if !mosquitto::installed("what_is_neither_text_nor_a_batch_is_quarantined_and_blocks_nothing") {
        return;
    }
    let site = Site::new();
    let _up = site.up();
    let topic = "thinglog/logs/lamp-7/app";
    mosquitto::publish(site.mqtt, topic, &[0xff, 0xfe, 0x00, 0x80, 0xc3], &[]);
    mosquitto::publish(site.mqtt, topic, b"after it", &[]);
    site.event("after it");
    let held = wait::until("the payload in quarantine", || site.quarantine().pop());
    assert_eq!(held["topic"], topic);
    assert_eq!(held["payload"], "//4AgMM=");
    assert!(!held["reason"].as_str().unwrap().is_empty());
    assert_eq!(site.events().len(), 1);
}

/// `desired/lamp-7` once it has this level, and known by the device that is online.
fn level_in_force(broker: SocketAddr, level: &str) {
    let desired: Value = wait::until(&format!("{level} to be desired"), || {
        let text = mosquitto::retained(broker, "thinglog/desired/lamp-7")?;
        let desired: Value = serde_json::from_str(&text).unwrap();
        (desired["level"] == level).then_some(desired)
    });
    wait::until("the device to report the level", || {
        let text = mosquitto::retained(broker, "thinglog/reported/lamp-7")?;
        let reported: Value = serde_json::from_str(&text).unwrap();
        (reported["online"] == true && reported["revision"] == desired["revision"]).then_some(())
    });
}

/// With ERROR in force: INFO of the agent is not sent, INFO of a plain client is not passed on.
fn only_errors_pass(site: &Site, edge: &mut impl Write, round: &str) {
    let watch = watch_logs(site.mqtt);
    for n in 0..50 {
        writeln!(edge, "i {round}: silent {n}").unwrap();
    }
    writeln!(edge, "e {round}: loud").unwrap();
    let loud = site.event(&format!("{round}: loud"));
    assert_eq!(loud["level"], "ERROR");
    // Deliveries come in the order of the log: behind this one there is nothing more of the agent's.
    let end = "thinglog/logs/lamp-7/end";
    mosquitto::publish(site.mqtt, end, b"end", &[]);
    wait::until("the watch to have caught up", || {
        watch.lines().iter().any(|topic| topic == end).then_some(())
    });
    let sent = watch
        .lines()
        .into_iter()
        .filter(|topic| topic.ends_with("/app"))
        .count();
    assert_eq!(sent, 1, "publishes of the agent");

    let plain = |level: &str| {
        let message = format!("{round}: plain {level}");
        let payload = format!(r#"{{"level":"{level}","message":"{message}"}}"#);
        mosquitto::publish(
            site.mqtt,
            "thinglog/logs/lamp-7/plain",
            payload.as_bytes(),
            &[],
        );
        message
    };
    let info = plain("info");
    site.event(&plain("error"));
    // One topic, one order: what came before the error is decided.
    assert!(!site.has_event(&info));
    let silent = site.events().into_iter().filter(|event| {
        event["message"]
            .as_str()
            .is_some_and(|message| message.contains("silent"))
    });
    assert_eq!(silent.count(), 0);
}

fn start_edge(site: &Site) -> Process {
    site.edge(
        "edge",
        "lamp-7",
        &["--source", "app", "run", "--", "sh", "-c", ECHO],
    )
}

#[test]
fn a_retained_level_stops_info_at_the_edge_and_the_router_and_survives_a_restart() {
    if !mosquitto::installed(
        "a_retained_level_stops_info_at_the_edge_and_the_router_and_survives_a_restart",
    ) {
        return;
    }
    let site = Site::new();
    let mut up = site.up();
    let mut edge = start_edge(&site);
    let mut input = edge.stdin();
    writeln!(input, "i before the level").unwrap();
    assert_eq!(site.event("before the level")["level"], "INFO");

    let document = br#"{"level":"ERROR"}"#;
    mosquitto::publish(
        site.mqtt,
        "thinglog/config/device/lamp-7",
        document,
        &["-r"],
    );
    level_in_force(site.mqtt, "ERROR");
    only_errors_pass(&site, &mut input, "set");

    drop(input);
    assert!(edge.wait().success());
    assert!(up.terminate().success());
    let _up = site.up();
    let mut edge = start_edge(&site);
    let mut input = edge.stdin();
    level_in_force(site.mqtt, "ERROR");
    only_errors_pass(&site, &mut input, "restarted");

    mosquitto::remove_retained(site.mqtt, "thinglog/config/device/lamp-7");
    level_in_force(site.mqtt, "INFO");
    writeln!(input, "i after the level").unwrap();
    site.event("after the level");
}

#[test]
fn a_bad_document_changes_nothing_and_is_explained() {
    if !mosquitto::installed("a_bad_document_changes_nothing_and_is_explained") {
        return;
    }
    let site = Site::new();
    let _up = site.up();
    let alerts = Watch::start(site.mqtt, "thinglog/alerts/#", &["-v"]);
    let topic = "thinglog/config/device/lamp-7";
    let line = wait::until("an alert that explains", || {
        mosquitto::publish(site.mqtt, topic, br#"{"levle":"ERROR"}"#, &["-r"]);
        alerts
            .lines()
            .into_iter()
            .find(|line| line.contains("levle"))
    });
    assert!(line.starts_with("thinglog/alerts/config "), "{line}");
    mosquitto::publish(site.mqtt, "thinglog/logs/lamp-7/app", b"still passes", &[]);
    site.event("still passes");
}

/// The messages of `lamp-7` from `sh` in the order of the file.
fn messages(site: &Site) -> Vec<String> {
    let own = site
        .events()
        .into_iter()
        .filter(|event| event["source"] == "app");
    own.map(|event| event["message"].as_str().unwrap().to_owned())
        .collect()
}

fn numbered(word: &str, count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("{word} {n}")).collect()
}

#[test]
fn with_the_broker_away_a_command_runs_on_and_its_output_arrives_later() {
    let site = Site::new();
    let script =
        "i=1; while [ $i -le 500 ]; do echo line $i; i=$((i+1)); done; read -r rest; exit 7";
    let arguments = ["--source", "app", "run", "--", "sh", "-c", script];
    let mut edge = site.edge("edge", "lamp-7", &arguments);
    let input = edge.stdin();
    wait::until("the command to have written all of it", || {
        edge.output().contains("line 500\n").then_some(())
    });
    let _up = site.up();
    wait::until("all of it in the file", || {
        (messages(&site).len() >= 500).then_some(())
    });
    assert_eq!(messages(&site), numbered("line", 500));
    drop(input);
    assert_eq!(edge.wait().code(), Some(7));
}

#[test]
fn a_command_is_never_blocked_however_much_it_writes() {
    let site = Site::new();
    let broker = site.mqtt.to_string();
    let options = ["--memory-bytes", "1MiB", "--flush-timeout", "100ms"];
    // Apart from the agent's own log, whose lines would fall in between.
    let output = Command::new(binary("thinglog-edge"))
        .current_dir(site.path())
        .args(["--broker", &broker, "--device", "lamp-7"])
        .args(options)
        .args(["run", "--", "seq", "200000"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers = text.lines().map(|line| line.parse::<u32>().unwrap());
    assert!(numbers.eq(1..=200_000));
}

#[test]
fn with_a_spool_events_outlive_the_agent() {
    let site = Site::new();
    let options = [
        "--source",
        "app",
        "--spool",
        "spool",
        "--flush-timeout",
        "10s",
        "pipe",
    ];
    let mut edge = site.edge("edge", "lamp-7", &options);
    let mut input = edge.stdin();
    for line in numbered("kept", 300) {
        writeln!(input, "{line}").unwrap();
    }
    drop(input);
    assert_eq!(edge.wait().code(), Some(0), "{}", edge.output());
    let _up = site.up();
    assert_eq!(messages(&site), [""; 0]);
    let mut edge = site.edge("edge", "lamp-7", &options);
    let input = edge.stdin();
    wait::until("all of it in the file", || {
        (messages(&site).len() >= 300).then_some(())
    });
    assert_eq!(messages(&site), numbered("kept", 300));
    drop(input);
    assert_eq!(edge.wait().code(), Some(0));
}

#[test]
fn a_broker_that_goes_and_comes_back_loses_and_repeats_nothing() {
    let site = Site::new();
    let mut up = site.up();
    let mut edge = site.edge("edge", "lamp-7", &["--source", "app", "pipe"]);
    let mut input = edge.stdin();
    let all = numbered("line", 400);
    for (n, line) in all.iter().enumerate() {
        writeln!(input, "{line}").unwrap();
        if n == 100 {
            site.event("line 50");
            up.kill();
        }
        if n == 300 {
            up = site.up();
        }
    }
    wait::until("all of it in the file", || {
        (messages(&site).len() >= 400).then_some(())
    });
    assert_eq!(messages(&site), all);
    drop(input);
    assert_eq!(edge.wait().code(), Some(0));
    let end = up.terminate_twice();
    assert!(end.success(), "{}", up.output());
    assert_eq!(messages(&site), all);
}

#[test]
fn the_exit_code_of_a_command_is_passed_on() {
    let site = Site::new();
    for code in [0, 3, 42] {
        let script = format!("exit {code}");
        let options = ["--flush-timeout", "100ms", "run", "--", "sh", "-c", &script];
        assert_eq!(
            site.edge("edge", "lamp-7", &options).wait().code(),
            Some(code)
        );
    }
}

#[test]
fn metrics_and_health_are_served() {
    let site = Site::new();
    let _up = site.up();
    assert!(site.get("/metrics").contains("thinglog_"));
    site.get("/healthz");
}

#[test]
fn the_demo_carries_this_machines_own_logs() {
    let site = Site::new();
    let mut demo = site.thinglog("demo", &["up", "--demo"]);
    wait::until("events of three devices in the file", || {
        demo.assert_running();
        let events = site.events();
        let devices: BTreeSet<&str> = events
            .iter()
            .filter_map(|event| event["device"].as_str())
            .collect();
        (devices.len() >= 3).then_some(())
    });
    wait::until("an event on the screen", || {
        let shown = demo.output();
        let events = site.events();
        let mut messages = events.iter().filter_map(|event| event["message"].as_str());
        messages
            .any(|message| shown.contains(message))
            .then_some(())
    });
    assert!(demo.terminate().success());
}

#[test]
fn tail_shows_what_passes_and_nothing_below_its_level() {
    if !mosquitto::installed("tail_shows_what_passes_and_nothing_below_its_level") {
        return;
    }
    let site = Site::new();
    let _up = site.up();
    let tail = site.thinglog("tail", &["tail", "--level", "warn", "--device", "lamp-7"]);
    let log = |device: &str, level: &str| {
        let payload = format!(r#"{{"level":"{level}","message":"{device} says {level}"}}"#);
        let topic = format!("thinglog/logs/{device}/app");
        mosquitto::publish(site.mqtt, &topic, payload.as_bytes(), &[]);
    };
    wait::until("an event in the tail", || {
        log("lamp-8", "error");
        log("lamp-7", "info");
        log("lamp-7", "error");
        tail.output().contains("lamp-7 says error").then_some(())
    });
    let shown = tail.output();
    assert!(
        !shown.contains("lamp-7 says info") && !shown.contains("lamp-8"),
        "{shown}"
    );
}

#[test]
fn check_names_file_key_and_reason() {
    let site = Site::new();
    assert!(site.thinglog("check", &["check"]).wait().success());
    std::fs::write(
        site.path().join("bad.toml"),
        "[broker]\nlisten = \"0.0.0.0:1883\"\n",
    )
    .unwrap();
    let mut check = site.thinglog("check-bad", &["check", "bad.toml"]);
    assert_eq!(check.wait().code(), Some(1));
    let output = check.output();
    assert!(
        output.contains("bad.toml") && output.contains("broker.listen"),
        "{output}"
    );
    // What would end the start is found as well, and told alike by both.
    let hook = "[router.destinations.hook]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:1/\"\n";
    let mends = ["memory_bytes = 1", "http = { token = { file = \"none\" } }"];
    for (mend, reason) in mends.iter().zip(["is too little", "http.token: none"]) {
        std::fs::write(site.path().join("bad.toml"), format!("{hook}{mend}\n")).unwrap();
        for args in [&["check", "bad.toml"][..], &["up", "--config", "bad.toml"]] {
            let mut command = site.thinglog("bad-hook", args);
            assert_eq!(command.wait().code(), Some(1), "{args:?}");
            let output = command.output();
            let place = "bad.toml:1: router.destinations.hook: ";
            assert!(
                output.contains(place) && output.contains(reason),
                "{output}"
            );
        }
    }
}

#[test]
fn a_taken_port_is_said_and_ends_the_start() {
    let site = Site::new();
    let _taken = std::net::TcpListener::bind(site.mqtt).unwrap();
    let mut up = site.thinglog("up", &["up"]);
    assert_eq!(up.wait().code(), Some(1));
    assert!(
        up.output().contains(&site.mqtt.to_string()),
        "{}",
        up.output()
    );
}

#[test]
fn what_cannot_be_written_is_said_and_a_reader_that_is_gone_is_no_failure() {
    let into = |mut command: std::process::Command| {
        let ended = command.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        (ended.status.code(), said)
    };
    for args in [&["check"][..], &["completions", "bash"]] {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "exec \"$0\" \"$@\" > /dev/full"]);
        shell.arg(binary("thinglog")).args(args);
        let (code, said) = into(shell);
        assert_eq!(code, Some(1), "{args:?}");
        assert!(said.contains("standard output: No space left"), "{said}");
    }
    let mut pipe = std::process::Command::new("bash");
    pipe.args([
        "-c",
        "\"$0\" completions bash | true; exit ${PIPESTATUS[0]}",
    ]);
    pipe.arg(binary("thinglog"));
    assert_eq!(into(pipe), (Some(0), String::new()));
}
