use std::net::SocketAddr;

use thinglog_router::config::DestinationKind;

use super::*;

/// What a file and variables make.
fn assembled(text: Option<&str>, variables: &[(&str, &str)]) -> Result<Loaded, String> {
    let read = |path: &Path| match path.to_str() {
        Some("/run/secret") => Ok("hunter2\n".to_owned()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let sources = Sources {
        file: text.map(|text| (Path::new("thinglog.toml"), text)),
        variables: variables.iter().map(owned).collect(),
        read: &read,
        insecure: false,
    };
    assemble(&sources).map_err(|errors| crate::check::complaint(&errors))
}

fn file(text: &str) -> Result<Loaded, String> {
    assembled(Some(text), &[])
}

fn environment(variables: &[(&str, &str)]) -> Result<Loaded, String> {
    assembled(None, variables)
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn nothing_at_all_serves_this_machine() {
    let loaded = environment(&[]).unwrap();
    assert_eq!(loaded.config.broker.listen, address("127.0.0.1:1883"));
    assert_eq!(
        loaded.config.router.http.unwrap().address,
        address("127.0.0.1:8080")
    );
    assert_eq!(loaded.config.broker.data, Path::new("thinglog-data/broker"));
    let destinations = loaded.config.router.destinations;
    assert!(
        destinations.iter().next().is_some_and(|(name, of)| name == "file" && matches!(of.kind, DestinationKind::File(_)))
    );
    assert_eq!((loaded.file, loaded.router_broker_given), (None, false));
}

#[test]
fn a_file_sets_what_it_says_and_leaves_the_rest() {
    let text = r#"
        data = "/var/lib/thinglog"
        root = "acme"

        [broker]
        listen = "127.0.0.1:1884"
        retention.hours = 24

        [router.destinations.screen]
        type = "stdout"
        format = "json"
    "#;
    let loaded = file(text).unwrap();
    let (broker, router) = (loaded.config.broker, loaded.config.router);
    assert_eq!(broker.listen, address("127.0.0.1:1884"));
    assert_eq!(
        (broker.retention.hours, broker.retention.bytes),
        (24, 8 << 30)
    );
    assert_eq!(broker.data, Path::new("/var/lib/thinglog/broker"));
    assert_eq!(router.data, Path::new("/var/lib/thinglog"));
    assert_eq!(
        (broker.root.as_str(), router.root.as_str()),
        ("acme", "acme")
    );
    assert_eq!(
        router.destinations.keys().collect::<Vec<_>>(),
        ["screen"],
        "who names any names all"
    );
    assert_eq!(loaded.file.as_deref(), Some(Path::new("thinglog.toml")));
}

#[test]
fn a_part_may_say_otherwise_than_the_top() {
    let loaded = file("root = 'a'\nbroker.root = 'b'\ndata = 'd'\nrouter.data = 'e'").unwrap();
    let (broker, router) = (loaded.config.broker, loaded.config.router);
    assert_eq!((broker.root.as_str(), router.root.as_str()), ("b", "a"));
    assert_eq!(
        (broker.data.as_path(), router.data.as_path()),
        (Path::new("d/broker"), Path::new("e"))
    );
}

#[test]
fn the_environment_comes_before_the_file() {
    let text = "broker.listen = '127.0.0.1:1884'\nbroker.retention.hours = 24";
    let variables = [
        ("THINGLOG_BROKER_LISTEN", "127.0.0.1:1885"),
        ("THINGLOG_BROKER_RETENTION_ON_FULL", "refuse"),
        ("THINGLOG_BROKER_LIMITS_CONNECTIONS", "7"),
        ("THINGLOG_BROKER_DURABLE", r#"["a/#", "b/#"]"#),
        ("THINGLOG_ROUTER_BROKER_STAMPS", "false"),
        ("THINGLOG_ROUTER_DESTINATIONS_FILE_ROTATE_BYTES", "1048576"),
        ("THINGLOG_DATA", "/data"),
        ("HOME", "/root"),
    ];
    let loaded = assembled(Some(text), &variables).unwrap();
    let (broker, router) = (loaded.config.broker, loaded.config.router);
    assert_eq!(broker.listen, address("127.0.0.1:1885"));
    assert_eq!(broker.retention.hours, 24);
    assert_eq!(broker.limits.connections, 7);
    assert_eq!(broker.durable, ["a/#", "b/#"]);
    assert_eq!(broker.data, Path::new("/data/broker"));
    assert!(!router.broker.stamps);
    let DestinationKind::File(destination) = &router.destinations["file"].kind else {
        panic!("{router:?}")
    };
    assert_eq!(destination.rotate_bytes, 1 << 20);
    assert_eq!(loaded.warnings, [""; 0]);
}

#[test]
fn a_text_stays_a_text_where_a_text_is_wanted() {
    let variables = [
        ("THINGLOG_ROOT", "true"),
        ("THINGLOG_ROUTER_BROKER_USERNAME", "7"),
        ("THINGLOG_ROUTER_BROKER_PASSWORD", "12345"),
    ];
    let loaded = environment(&variables).unwrap();
    assert_eq!(loaded.config.broker.root, "true");
    assert_eq!(loaded.config.router.broker.username.as_deref(), Some("7"));
    assert_eq!(
        loaded.config.router.broker.password.as_deref(),
        Some("12345")
    );
}

#[test]
fn a_secret_may_stand_in_a_file_of_its_own() {
    let user = ("THINGLOG_ROUTER_BROKER_USERNAME", "router");
    let loaded = environment(&[
        user,
        ("THINGLOG_ROUTER_BROKER_PASSWORD_FILE", "/run/secret"),
    ])
    .unwrap();
    assert_eq!(
        loaded.config.router.broker.password.as_deref(),
        Some("hunter2"),
        "without the line's end"
    );
    let error =
        environment(&[user, ("THINGLOG_ROUTER_BROKER_PASSWORD_FILE", "/nowhere")]).unwrap_err();
    assert!(
        error.starts_with(
            "THINGLOG_ROUTER_BROKER_PASSWORD_FILE: router.broker.password: cannot read /nowhere"
        ),
        "{error}"
    );
}

#[test]
fn a_line_break_in_a_variable_sets_no_other_key() {
    let error = environment(&[("THINGLOG_BROKER_RETENTION_HOURS", "1\nvalue2 = 2")]).unwrap_err();
    assert!(
        error.starts_with("THINGLOG_BROKER_RETENTION_HOURS: broker.retention.hours: invalid type"),
        "{error}"
    );
}

#[test]
fn what_is_wrong_is_named_by_place_key_and_reason() {
    let cases = [
        (
            "brocker.listen = 1",
            "thinglog.toml:1: brocker: unknown key; did you mean `broker`?\n",
        ),
        (
            "[broker]\nlisen = 1",
            "thinglog.toml:2: broker.lisen: unknown key; did you mean `listen`?\n",
        ),
        (
            "[broker.retention]\n\n\ndays = 1",
            "thinglog.toml:4: broker.retention.days: unknown key; known here: bytes, hours, on_full\n",
        ),
        (
            "[broker]\nlisten = 'here'",
            "thinglog.toml:2: broker.listen: no address to listen on: \"IP:PORT\" is asked for, as \"127.0.0.1:1883\"",
        ),
        (
            "[router.http]\naddress = 8080",
            "thinglog.toml:2: router.http.address: no address to listen on: \"IP:PORT\" is asked for, as ",
        ),
        (
            "broker.retention.hours = -1",
            "thinglog.toml:1: broker.retention.hours: invalid value: integer `-1`, expected u64\n",
        ),
        (
            "broker.retention.on_full = 'stop'",
            "thinglog.toml:1: broker.retention.on_full: unknown variant `stop`, expected `cut` or `refuse`\n",
        ),
        (
            "broker = 7",
            "thinglog.toml:1: broker: invalid type: integer `7`, expected struct Config\n",
        ),
        ("[broker", "thinglog.toml:1: "),
        ("a = 1\na = 2", "thinglog.toml:2: duplicate key\n"),
        (
            "[router.destinations.x]\ntype = 'file'\nformat = 'json'",
            "thinglog.toml:3: router.destinations.x.format: unknown key; known here: rotate_bytes, ",
        ),
        (
            "[router.destinations.x]\ntype = 'file'\nrotate_byte = 1",
            "thinglog.toml:3: router.destinations.x.rotate_byte: unknown key; did you mean `rotate_bytes`?\n",
        ),
        (
            "[router.destinations.x]\ntype = 'file'\n\nform = 'tail'",
            "thinglog.toml:4: router.destinations.x.form: unknown key; did you mean `from`?\n",
        ),
        (
            "[router.destinations.x]\nformat = 'xml'\ntype = 'stdout'",
            "thinglog.toml:2: router.destinations.x.format: unknown variant `xml`, expected `text` or `json`\n",
        ),
        (
            "[router.destinations.x]\ntype = 'webhook'\nurl = 'http://h/'\n[router.destinations.x.batch]\nmax_bytes = 1\nmax_events = 'all'",
            "thinglog.toml:6: router.destinations.x.batch.max_events: invalid type: string \"all\", expected usize\n",
        ),
        (
            "[router.destinations.x]\ntype = 'webhook'\nurl = 'http://h/'\nbatch = {\n  max_event = 7 }",
            "thinglog.toml:5: router.destinations.x.batch.max_event: unknown key; did you mean `max_events`?\n",
        ),
        (
            "[router.destinations.x]\ntype = 'webhook'\nurl = 'http://h/'\nhttp.timeout_ms = 1\nhttp.headers.a = 1",
            "thinglog.toml:5: router.destinations.x.http.headers.a: invalid type: integer `1`, expected a string\n",
        ),
        (
            "[router.destinations.x]\ntype = 'webhook'\nurl = 'http://h/'\nretry.from_ms = 0",
            "thinglog.toml:4: router.destinations.x.retry.from_ms: must be at least 1",
        ),
        (
            "\n[router.destinations.x]\nfrom = 'tail'",
            "thinglog.toml:2: router.destinations.x: missing field `type`\n",
        ),
        (
            "[router.destinations]\nx = 'file'",
            "thinglog.toml:2: router.destinations.x: invalid type: string \"file\", expected a map\n",
        ),
        (
            "[router.destinations.x]\ntype = 'fil'",
            "thinglog.toml:2: router.destinations.x.type: unknown variant `fil`, expected ",
        ),
        (
            "[router.destinations.audit]\ntype = 'file'",
            "thinglog.toml:1: router.destinations.audit: ",
        ),
        (
            "broker.listen = '0.0.0.0:1883'",
            "thinglog.toml:1: broker.listen: 0.0.0.0:1883 is reachable",
        ),
        ("root = '#'", "thinglog.toml: broker.root: "),
    ];
    for (text, expected) in cases {
        let error = file(text).map(drop).unwrap_err();
        assert!(
            error.starts_with(expected),
            "{text}\n  gives    {error}  expected {expected}"
        );
    }
}

#[test]
fn a_wrong_variable_is_named_with_its_key() {
    let cases = [
        (
            "THINGLOG_BROKER_LISTEN",
            "here",
            "THINGLOG_BROKER_LISTEN: broker.listen: no address to listen on: \"IP:PORT\" is asked for, as ",
        ),
        (
            "THINGLOG_BROKER_LISEN",
            "::1",
            "THINGLOG_BROKER_LISEN: broker.lisen: unknown key; did you mean `listen`?\n",
        ),
        (
            "THINGLOG_BROKER_RETENTION_BYTES",
            "7",
            "THINGLOG_BROKER_RETENTION_BYTES: broker.retention.bytes: must be",
        ),
        (
            "THINGLOG_BROKER_RETENTION_BYTES",
            "many",
            "THINGLOG_BROKER_RETENTION_BYTES: broker.retention.bytes: invalid type",
        ),
    ];
    for (variable, value, expected) in cases {
        let error = environment(&[(variable, value)]).map(drop).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn everything_that_is_wrong_is_reported_at_once() {
    let text = "broker.listen = '0.0.0.0:1883'\nrouter.http.address = '0.0.0.0:8080'";
    let error = file(text).map(drop).unwrap_err();
    // What goes on, on lines of its own, is indented.
    let wrong = error.lines().filter(|line| !line.starts_with(' '));
    assert_eq!(wrong.count(), 2, "{error}");
    let variables = [
        ("THINGLOG_BROKER_LISTEN", "a"),
        ("THINGLOG_ROUTER_HTTP_ADDRESS", "b"),
    ];
    assert_eq!(
        environment(&variables)
            .map(drop)
            .unwrap_err()
            .lines()
            .count(),
        2
    );
}

#[test]
fn a_listener_for_everybody_needs_logins_and_the_refusal_gives_the_commands() {
    let open = "broker.listen = '0.0.0.0:1883'\n";
    let error = file(open).map(drop).unwrap_err();
    for command in ["thinglog passwd ", "thinglog device add ", "--insecure"] {
        assert!(error.contains(command), "{error}");
    }
    // Rules without logins, or everybody's rights, are no logins.
    for no_login in ["acl = 'acl'", "anonymous = true"] {
        assert!(
            file(&format!("{open}broker.auth.{no_login}")).is_err(),
            "{no_login}"
        );
    }
    for login in ["passwords = 'p'", "tokens = 't'", "jwt.keys = 'k'"] {
        let loaded = file(&format!("{open}broker.auth.{login}"));
        assert!(loaded.is_ok(), "{login}");
    }
}

#[test]
fn insecure_opens_both_listeners() {
    let text = "broker.listen = '0.0.0.0:1883'\nrouter.http.address = '0.0.0.0:8080'";
    let sources = Sources {
        file: Some((Path::new("thinglog.toml"), text)),
        variables: BTreeMap::new(),
        read: &|_| Err(io::Error::from(io::ErrorKind::NotFound)),
        insecure: true,
    };
    assert!(assemble(&sources).is_ok());
}

#[test]
fn a_variable_that_means_nothing_is_ignored_with_a_warning() {
    let variables = [
        ("THINGLOG_BROKR_LISTEN", "x"),
        ("THINGLOG_LEVEL", "debug"),
        ("THINGLOG_LOG", "debug"),
        ("THINGLOG_BROKER", "localhost:1883"),
        ("THINGLOG_XYZ", "1"),
    ];
    let warnings = environment(&variables).unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].contains("did you mean THINGLOG_BROKER…"),
        "{warnings:?}"
    );
    assert!(
        warnings[1].starts_with("THINGLOG_XYZ is ignored"),
        "{warnings:?}"
    );
}

#[test]
fn a_router_told_its_broker_does_not_use_the_one_beside_it() {
    let loaded = file("router.broker.address = 'mqtt.example.com:1883'").unwrap();
    assert!(loaded.router_broker_given);
    assert_eq!(loaded.broker().address, "mqtt.example.com:1883");
    assert_eq!(
        file("broker.listen = '127.0.0.1:9'")
            .unwrap()
            .broker()
            .address,
        "127.0.0.1:9"
    );
}

#[test]
fn a_summary_says_what_would_run() {
    let text = "broker.listen = '127.0.0.1:1884'\n[router.destinations.screen]\ntype = 'stdout'";
    let loaded = assembled(Some(text), &[("THINGLOG_XYZ", "1")]).unwrap();
    let expected = "\
thinglog.toml: valid
  MQTT         127.0.0.1:1884
  logins       anybody, with all rights
  HTTP         http://127.0.0.1:8080
  router from  127.0.0.1:1884
  data         thinglog-data/broker, thinglog-data/router
  destination  screen (stdout)
  warning      THINGLOG_XYZ is ignored: there is no such key
";
    assert_eq!(crate::check::summary(&loaded), expected);
}

#[test]
fn a_summary_shows_every_listener() {
    let text = "broker.tls = { certificate = 'c.pem', key = 'k.pem' }\n[broker.websocket]\n";
    let variables = [("THINGLOG_BROKER_WEBSOCKET_LISTEN", "127.0.0.1:9001")];
    let loaded = assembled(Some(text), &variables).unwrap();
    let summary = crate::check::summary(&loaded);
    let expected = "
  MQTT         127.0.0.1:1883
               mqtts://127.0.0.1:8883
               ws://127.0.0.1:9001/mqtt
               wss://127.0.0.1:8084/mqtt
";
    assert!(summary.contains(expected), "{summary}");
}

#[test]
fn http_asks_who_calls_as_soon_as_there_is_something_to_show() {
    let http = |text: &str| file(text).map(|loaded| loaded.config.router.http.unwrap().sign_in);
    assert_eq!(http(""), Ok(false));
    for known in [
        "broker.auth.passwords = 'p'",
        "broker.auth.jwt.keys = 'k'",
        "router.http.access_keys = 'k'",
    ] {
        assert_eq!(http(known), Ok(true), "{known}");
        let open = format!("{known}\nrouter.http.address = '0.0.0.0:8080'");
        assert_eq!(http(&open), Ok(true), "{known}");
    }
    let told = "broker.auth.passwords = 'p'\nrouter.http.sign_in = false";
    assert_eq!(http(told), Ok(false));
    for (text, expected) in [
        (
            "router.http.sign_in = true",
            "thinglog.toml:1: router.http.sign_in: there is nothing to sign in with",
        ),
        (
            "router.http.access_keys = 'k'\nrouter.http.sign_in = false",
            "thinglog.toml:2: router.http.sign_in: access keys count for nothing",
        ),
        (
            "router.http.address = '0.0.0.0:8080'",
            "thinglog.toml:1: router.http.address: 0.0.0.0:8080 can be reached",
        ),
    ] {
        let error = http(text).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn a_file_of_keys_is_read_before_the_start_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let text = format!("router.http.access_keys = {keys:?}");
    let error = file(&text).unwrap().check_keys().unwrap_err().to_string();
    assert!(
        error.contains("no such file; make it with: thinglog key add"),
        "{error}"
    );
    fs::write(&keys, "TLOGX hush role=admin robot\n").unwrap();
    let loaded = file(&text).unwrap();
    assert_eq!(loaded.check_keys(), Ok(()));
    let summary = crate::check::summary(&loaded);
    assert!(
        summary.contains("\n               for 1 access keys\n"),
        "{summary}"
    );
}

#[test]
fn certificates_that_cannot_be_read_are_found_before_the_start() {
    let text = "[broker.tls]\ncertificate = '/nowhere/c.pem'\nkey = '/nowhere/k.pem'";
    let error = file(text).unwrap().check_files().unwrap_err();
    assert_eq!(
        error.to_string(),
        "thinglog.toml:2: broker.tls.certificate: /nowhere/c.pem: No such file or directory (os error 2)"
    );
    let named = environment(&[
        ("THINGLOG_BROKER_TLS_CERTIFICATE", "/nowhere/c.pem"),
        ("THINGLOG_BROKER_TLS_KEY", "/nowhere/k.pem"),
    ]);
    let error = named.unwrap().check_files().unwrap_err().to_string();
    assert!(
        error.starts_with("THINGLOG_BROKER_TLS_CERTIFICATE: broker.tls.certificate: "),
        "{error}"
    );
}

#[test]
fn two_listeners_at_one_place_are_found_before_the_start() {
    let of_broker =
        file("broker.listen = '0.0.0.0:8083'\nbroker.insecure = true\nbroker.websocket = {}");
    assert_eq!(
        of_broker.unwrap_err(),
        "thinglog.toml:3: broker.websocket.listen: 0.0.0.0:8083 is that of broker.listen already\n"
    );
    let mut apart = file("broker.listen = '127.0.0.1:8080'").unwrap();
    assert_eq!(apart.check_listeners(), Ok(()));
    let expected = ["router.http.address: 127.0.0.1:8080 is that of broker.listen already"];
    assert_eq!(apart.warnings, expected);
    for (text, expected) in [
        (
            "router.http.address = '[::1]:1883'\nbroker.listen = '[::]:1883'\nbroker.insecure = true",
            "thinglog.toml:1: router.http.address: [::1]:1883 is that of broker.listen already",
        ),
        (
            "monitor.address = '127.0.0.1:1883'",
            "thinglog.toml:1: monitor.address: 127.0.0.1:1883 is that of broker.listen already",
        ),
    ] {
        let error = file(text).unwrap().check_listeners().unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    for text in [
        "",
        "broker.listen = '127.0.0.1:0'\nrouter.http.address = '127.0.0.1:0'",
        "router.http.address = '[::1]:1883'",
        "broker.websocket = {}",
    ] {
        let mut loaded = file(text).unwrap();
        assert_eq!(loaded.check_listeners(), Ok(()), "{text}");
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }
}

#[test]
fn a_summary_says_that_the_file_of_keys_is_taken_for_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    fs::write(&keys, "a secret of more than thirty-two bytes\n").unwrap();
    let text = format!("[broker.auth.jwt]\nkeys = {keys:?}");
    let summary = crate::check::summary(&file(&text).unwrap());
    assert!(
        summary.contains("logins       JWT (shared secret)\n"),
        "{summary}"
    );
}
