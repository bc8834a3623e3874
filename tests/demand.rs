//! Logs on demand, end to end: an operator's command asks a device over the real broker, the real agent
//! answers from its files.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use thinglog_tests::process::{Process, binary};
use thinglog_tests::site::Site;
use thinglog_tests::wait;

/// A device with two log files, one of which it must not show all of.
fn device(site: &Site) -> Process {
    device_with(site, "")
}

/// The same with more configuration.
fn device_with(site: &Site, more: &str) -> Process {
    let folder = site.path();
    let log: Vec<String> = (0..50)
        .map(|i| {
            let level = if i % 10 == 0 { "error" } else { "debug" };
            format!(r#"{{"level":"{level}","msg":"line {i}"}}"#)
        })
        .collect();
    fs::write(folder.join("app.log"), log.join("\n") + "\n").unwrap();
    fs::write(folder.join("web.log"), "login of alice, password=hunter2\n").unwrap();
    fs::write(folder.join("secret.log"), "not configured\n").unwrap();
    let config = format!(
        "device = \"lamp-7\"\nbroker = \"{}\"\n\
         [reconnect]\nfirst = \"50ms\"\nlongest = \"200ms\"\n\
         [control]\nsocket = {:?}\n\
         [source.app]\nkind = \"file\"\npaths = [{:?}]\n\
         [source.web]\nkind = \"file\"\npaths = [{:?}]\nredact = [{{ pattern = \"password=\\\\S+\" }}]\n{more}",
        site.mqtt,
        folder.join("control.sock"),
        folder.join("app.log"),
        folder.join("web.log"),
    );
    let file = folder.join("thinglog-edge.toml");
    fs::write(&file, config).unwrap();
    let mut command = Command::new(binary("thinglog-edge"));
    command.current_dir(folder).arg("start");
    Process::start("edge", folder, &mut command)
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("thinglog"));
    command
        .current_dir(folder)
        .args(["logs", "request"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn request(site: &Site, arguments: &[&str]) -> Output {
    command(site.path(), arguments).output().unwrap()
}

/// The first request may come before the device is there.
fn ready(site: &Site) {
    wait::until("the device to answer", || {
        let output = request(site, &["lamp-7", "--type", "status"]);
        output.status.success().then_some(())
    });
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn messages(output: &Output) -> Vec<String> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    let event = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let message = |line: &str| event(line)["message"].as_str().unwrap().to_owned();
    text.lines().map(message).collect()
}

#[test]
fn an_operator_gets_what_a_device_has_in_its_files() {
    let site = Site::new();
    let _broker = site.broker();
    let _edge = device(&site);
    ready(&site);

    let output = request(&site, &["lamp-7", "--source", "app", "--lines", "3"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(messages(&output), ["line 47", "line 48", "line 49"]);
    let told = stderr(&output);
    assert!(
        told.contains("took the request") && told.contains("3 sent"),
        "{told}"
    );
    assert!(told.contains("--lines"), "{told}");

    let output = request(
        &site,
        &["lamp-7", "-s", "app", "--level", "error", "--text", "line"],
    );
    let expected = ["line 0", "line 10", "line 20", "line 30", "line 40"];
    assert_eq!(messages(&output), expected);

    let output = request(
        &site,
        &["lamp-7", "-s", "app", "-n", "1", "--format", "text"],
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("DEBUG lamp-7 app: line 49"), "{text}");
}

#[test]
fn a_device_shows_neither_what_is_redacted_nor_what_is_not_configured() {
    let site = Site::new();
    let _broker = site.broker();
    let _edge = device(&site);
    ready(&site);
    let output = request(&site, &["lamp-7", "--source", "web"]);
    assert_eq!(messages(&output), ["login of alice, [redacted]"]);
    // Searching for it tells nothing either.
    let output = request(&site, &["lamp-7", "--source", "web", "--text", "hunter2"]);
    assert!(messages(&output).is_empty() && output.status.success());

    let output = request(&site, &["lamp-7", "--source", "secret"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("app, web"), "{}", stderr(&output));
    let output = request(&site, &["lamp-7", "--from", "yesterday"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("-15m"), "{}", stderr(&output));
}

#[test]
fn a_device_that_is_away_is_asked_when_it_comes() {
    let site = Site::new();
    let _broker = site.broker();
    let output = request(&site, &["lamp-7"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("lamp-7"), "{}", stderr(&output));

    let waiting = command(
        site.path(),
        &["lamp-7", "-s", "app", "-n", "1", "--wait", "5m"],
    );
    let waiting = { waiting }.spawn().unwrap();
    let _edge = device(&site);
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(messages(&output), ["line 49"]);
}

#[test]
fn status_says_how_the_device_is_and_what_can_be_asked_for() {
    let site = Site::new();
    let _broker = site.broker();
    let _edge = device(&site);
    ready(&site);
    let output = request(&site, &["lamp-7", "--type", "status"]);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["readable"], serde_json::json!(["app", "web"]));
    assert_eq!(status["device"], "lamp-7");
}

/// What `thinglog <arguments>` says when it succeeds.

#[test]
fn where_clients_log_in_only_an_operator_gets_logs_and_only_the_device_answers() {
    let site = Site::new();
    site.configure("[broker.auth]\npasswords = \"passwords\"\ntokens = \"tokens\"");
    let at = |name: &str| site.path().join(name);
    fs::write(at("tokens"), "").unwrap();
    site.done(&["passwd", "alice", "--role", "operator"], "wonder\n");
    fs::write(at("alice.password"), "wonder\n").unwrap();
    for device in ["lamp-7", "lamp-8"] {
        let added = site.done(&["device", "add", device, "--json"], "");
        let added: Value = serde_json::from_str(&added).unwrap();
        fs::write(
            at(&format!("{device}.token")),
            added["token"].as_str().unwrap(),
        )
        .unwrap();
    }
    let _broker = site.broker();
    let login = format!("[login]\npassword_file = {:?}\n", at("lamp-7.token"));
    let _edge = device_with(&site, &login);
    let alice = ["--username", "alice", "--password-file", "alice.password"];
    let ask = |login: &[&str], rest: &[&str]| request(&site, &[login, &["lamp-7"], rest].concat());
    wait::until("the device to answer", || {
        let output = ask(&alice, &["--type", "status"]);
        output.status.success().then_some(())
    });
    let output = ask(&alice, &["--source", "app", "--lines", "2"]);
    assert_eq!(
        messages(&output),
        ["line 48", "line 49"],
        "{}",
        stderr(&output)
    );

    // Without a login, with a wrong one, and as another device.
    fs::write(at("wrong"), "guessed\n").unwrap();
    let other = ["--username", "lamp-8", "--password-file", "lamp-8.token"];
    let wrong = ["--username", "alice", "--password-file", "wrong"];
    for (login, reason) in [
        (&[][..], "who you are"),
        (&wrong, "password"),
        (&other, "lamp-8"),
    ] {
        let output = ask(login, &["--source", "app"]);
        assert_eq!(output.status.code(), Some(1), "{login:?}");
        assert!(output.stdout.is_empty());
        assert!(
            stderr(&output).contains(reason),
            "{login:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn sources_that_keep_nothing_say_so() {
    let site = Site::new();
    let _broker = site.broker();
    let more = "[source.beat]\nkind = \"command\"\ncommand = [\"sleep\", \"600\"]\n\
                [source.syslog]\nudp = \"127.0.0.1:0\"\n";
    let _edge = device_with(&site, more);
    ready(&site);
    for (source, kind) in [
        ("beat", "command"),
        ("syslog", "syslog"),
        ("sshd", "syslog"),
    ] {
        let output = request(&site, &["lamp-7", "--source", source]);
        assert_eq!(output.status.code(), Some(1), "{source}");
        let told = stderr(&output);
        assert!(
            told.contains(kind) && told.contains("keeps nothing"),
            "{told}"
        );
    }
    // Asked for all, the others are sent all the same.
    let output = request(&site, &["lamp-7", "--lines", "1"]);
    let told = stderr(&output);
    assert_eq!(
        messages(&output),
        ["line 49", "login of alice, [redacted]"],
        "{told}"
    );
    assert!(
        told.contains("beat") && told.contains("keeps nothing"),
        "{told}"
    );
}
