//! Logins from the command line on: users, devices, the agent, the router and `thinglog tail`, over the
//! real binaries.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use serde_json::Value;
use thinglog_tests::{process::binary, site::Site, wait};

const LOGINS: &str = "[broker.auth]\npasswords = \"passwords\"\ntokens = \"tokens\"\nacl = \"acl\"";

/// A site whose clients log in, with operator `alice` (password `wonder`).
fn site() -> Site {
    let site = Site::new();
    site.configure(LOGINS);
    fs::write(
        site.path().join("acl"),
        "user alice\ntopic deny thinglog/config/#\n",
    )
    .unwrap();
    site.done(&["passwd", "alice", "--role", "operator"], "wonder\n");
    fs::write(site.path().join("alice.password"), "wonder\n").unwrap();
    fs::write(site.path().join("tokens"), "").unwrap();
    site
}

/// Adds a device; its token stands in `<name>.token`.
fn add_device(site: &Site, name: &str) {
    let added = site.done(&["device", "add", name, "--json"], "");
    let added: Value = serde_json::from_str(&added).unwrap();
    let token = added["token"].as_str().unwrap();
    fs::write(site.path().join(format!("{name}.token")), token).unwrap();
}

#[test]
fn events_of_a_device_with_a_token_reach_the_file_and_an_operator_until_the_token_ends() {
    let site = site();
    add_device(&site, "lamp-7");
    add_device(&site, "lamp-8");
    let up = site.up();
    let login = ["--username", "alice", "--password-file", "alice.password"];
    let tail = site.thinglog("tail", &[&["tail", "--json"][..], &login].concat());
    let mut lamps = ["lamp-7", "lamp-8"].map(|lamp| {
        let token = format!("{lamp}.token");
        site.edge(lamp, lamp, &["--password-file", &token, "pipe"])
    });
    let mut pipes = lamps.each_mut().map(|lamp| lamp.stdin());
    writeln!(pipes[0], "first").unwrap();
    let event = site.event("first");
    assert_eq!(event["device"], "lamp-7");
    wait::until("an event on the operator's screen", || {
        writeln!(pipes[1], "seen").unwrap();
        tail.output().contains("\"seen\"").then_some(())
    });
    site.done(&["device", "remove", "lamp-7"], "");
    assert_eq!(site.done(&["device", "tokens"], ""), "lamp-8\n");
    // As it was called before there was a fleet to list.
    let (code, output, told) = site.run(&["device", "list", "--file", "tokens"], "");
    assert_eq!((code, output.as_str()), (Some(0), "lamp-8\n"));
    assert!(told.contains("`device tokens`"), "{told}");
    up.hang_up();
    let refused = "thinglog_broker_refused_total{reason=\"the device's token was removed\"} 1";
    wait::until("the device to be sent away", || {
        site.get("/metrics").contains(refused).then_some(())
    });
    wait::until("the device to be refused", || {
        site.get("/metrics")
            .contains("wrong device name or token")
            .then_some(())
    });
    writeln!(pipes[0], "too late").unwrap();
    writeln!(pipes[1], "last").unwrap();
    site.event("last");
    assert!(!site.has_event("too late"));
}

#[test]
fn a_router_and_a_broker_apart_log_in_by_configuration() {
    let site = site();
    site.done(&["passwd", "router", "--role", "router"], "hemlock");
    let config = site.path().join("thinglog.toml");
    let login = "[router.broker]\nusername = \"router\"\npassword = \"hemlock\"\n";
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("[router.broker]\n", login)).unwrap();
    add_device(&site, "lamp-7");
    let _broker = site.broker();
    let mut router = site.router();
    site.wait_for_router(&mut router);
    let mut lamp = site.edge(
        "lamp",
        "lamp-7",
        &["--password-file", "lamp-7.token", "pipe"],
    );
    writeln!(lamp.stdin(), "by a login of its own").unwrap();
    site.event("by a login of its own");
}

#[test]
fn a_start_for_everybody_is_refused_with_commands_that_make_it_start() {
    let site = Site::new();
    let config = site.path().join("thinglog.toml");
    let open = site.mqtt.to_string().replace("127.0.0.1", "0.0.0.0");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replacen(&site.mqtt.to_string(), &open, 1);
    fs::write(&config, text).unwrap();
    let (code, _, error) = site.run(&["up"], "");
    assert_eq!(code, Some(1), "{error}");
    assert!(
        error.contains("broker.listen") && error.contains("--insecure"),
        "{error}"
    );
    let commands: Vec<&str> = error
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("thinglog ") || line.starts_with("export "))
        .collect();
    assert_eq!(commands.len(), 3, "{error}");
    let path = binary("thinglog");
    let folder = path.parent().unwrap().display();
    let script = format!(
        "PATH={folder}:$PATH; set -e\n{}\nthinglog check",
        commands.join("\n")
    );
    let mut shell = Command::new("sh")
        .current_dir(site.path())
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    shell.stdin.take().unwrap().write_all(b"secret\n").unwrap();
    let output = shell.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.contains("passwords, device tokens"),
        "{text}"
    );
}

#[test]
fn an_explanation_names_the_line_that_decides_and_the_exit_code_says_which() {
    let site = site();
    let test = |arguments: &[&str]| site.run(&[&["acl", "test"], arguments].concat(), "");
    let config = ["--user", "alice", "--topic", "thinglog/config/default"];
    let (code, output, _) = test(&[&config[..], &["--action", "write"]].concat());
    assert_eq!(code, Some(3));
    assert!(output.contains("acl:2: deny thinglog/config/#"), "{output}");
    let (code, output, _) = test(&["--user", "alice", "--topic", "thinglog/live/#", "--json"]);
    assert_eq!(code, Some(0));
    let answer: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(answer["allowed"], true);
    assert_eq!(answer["action"], "subscribe");
    assert_eq!(answer["rule"], "read thinglog/#");
    let (code, output, _) = test(&["--topic", "thinglog/live/x"]);
    assert_eq!(code, Some(3));
    assert!(output.contains("no rule speaks of it"), "{output}");
    let (_, output, _) = test(&["--user", "alcie", "--topic", "thinglog/live/x"]);
    assert!(
        output.contains("\"alcie\" is not among the users and devices"),
        "{output}"
    );
    let own = ["--user", "root", "--role", "admin", "--action", "write"];
    let (code, output, _) = test(&[&own[..], &["--topic", "thinglog/connected/lamp-7"]].concat());
    assert_eq!(code, Some(3));
    assert!(
        output.contains("connected/ is the broker's own"),
        "{output}"
    );
    let (code, ..) = test(&["--user", "alice"]);
    assert_eq!(code, Some(2), "a topic is needed");
    fs::write(site.path().join("acl"), "topic read a\nallow b\n").unwrap();
    let (code, _, error) = test(&["--topic", "a"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("acl:2: \"allow\" begins no rule"), "{error}");
    let (code, _, error) = site.run(&["check"], "");
    assert_eq!(code, Some(1));
    assert!(error.contains("acl:2:"), "{error}");
}

#[test]
fn who_is_turned_away_is_told_why_and_the_broker_logs_who_it_was() {
    let site = site();
    let broker = site.broker();
    let mqtt = site.mqtt.to_string();
    let tail = |arguments: &[&str]| {
        let (code, _, error) = site.run(&[&["tail", "--broker", &mqtt], arguments].concat(), "");
        assert_eq!(code, Some(1), "{error}");
        error
    };
    let error = tail(&[]);
    assert!(error.contains("the broker asks who you are"), "{error}");
    fs::write(site.path().join("wrong"), "guess").unwrap();
    let error = tail(&["--username", "alice", "--password-file", "wrong"]);
    assert!(
        error.contains("the password of the user \"alice\" is wrong"),
        "{error}"
    );
    let error = tail(&["--username", "alice", "--password-file", "nowhere"]);
    assert!(error.contains("password file nowhere"), "{error}");
    // Refusals are logged once a second.
    let logged = wait::until("a refusal of alice in the log", || {
        tail(&["--username", "alice", "--password-file", "wrong"]);
        let log = broker.output();
        let mut lines = log.lines();
        let line = lines.find(|line| line.contains("refused") && line.contains("alice"))?;
        Some(line.to_owned())
    });
    for part in ["thinglog-tail-", "127.0.0.1", "wrong user name or password"] {
        assert!(logged.contains(part), "{logged}");
    }
}

#[test]
fn users_are_set_changed_and_deleted() {
    let site = site();
    let file = || fs::read_to_string(site.path().join("passwords")).unwrap();
    let hash = |text: &str| text.split(':').nth(1).unwrap().to_owned();
    let before = file();
    assert!(before.starts_with("alice:$argon2id$") && before.ends_with(":role=operator\n"));
    let keep = [
        "passwd",
        "alice",
        "--keep-password",
        "--role",
        "operator",
        "--group",
        "eu",
    ];
    site.done(&keep, "");
    assert!(file().ends_with(":role=operator,group=eu\n"));
    assert_eq!(hash(&file()), hash(&before));
    site.done(&["passwd", "alice"], "other");
    assert_ne!(hash(&file()), hash(&before));
    assert!(
        file().ends_with(":role=operator,group=eu\n"),
        "the role stays"
    );
    let told = site.done(&["passwd", "alice", "--delete", "--json"], "");
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["done"], "deleted");
    assert_eq!(file(), "");
    let (code, _, error) = site.run(&["passwd", "alice", "--delete"], "");
    assert_eq!(code, Some(1));
    assert!(error.contains("no user \"alice\""), "{error}");
    for (arguments, input) in [
        (&["passwd", "bob"][..], ""),
        (&["passwd", "$bob"], "secret"),
        (
            &["passwd", "bob", "--role", "device", "--group", "eu"],
            "secret",
        ),
        (&["device", "add", "a/b"], ""),
    ] {
        assert_eq!(site.run(arguments, input).0, Some(1), "{arguments:?}");
    }
    assert_eq!(file(), "");
}
