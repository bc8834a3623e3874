use thinglog_edge::agent::{OverRate, source::Kind};

use super::*;

fn inputs<'a>(text: Option<&'a str>, variables: &[(&str, &str)]) -> Inputs<'a> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Inputs {
        file: text.map(|text| (Path::new("edge.toml"), text)),
        variables: variables.iter().map(owned).collect(),
        arguments: Vec::new(),
    }
}

fn assembled(text: &str, variables: &[(&str, &str)]) -> Loaded {
    assemble(&inputs(Some(text), variables)).unwrap()
}

/// Everything that is wrong, a line each.
fn complaints(text: &str, variables: &[(&str, &str)]) -> String {
    let problems = assemble(&inputs(Some(text), variables)).unwrap_err();
    let lines = problems.iter().map(Problem::to_string);
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn nothing_at_all_is_a_configuration() {
    let loaded = assemble(&inputs(None, &[])).unwrap();
    assert_eq!(loaded.settings, Settings::default());
    assert_eq!(loaded.settings.broker.to_string(), "mqtt://127.0.0.1:1883");
    assert!(loaded.sources.is_empty() && loaded.warnings.is_empty());
}

#[test]
fn the_file_stands_above_the_environment_and_the_command_line_above_both() {
    let file = "device = \"file\"\nroot = \"file\"\n[spool]\npath = \"/file\"\n";
    let variables = [
        ("THINGLOG_DEVICE", "variable"),
        ("THINGLOG_ROOT", "variable"),
        ("THINGLOG_LEVEL", "debug"),
        ("THINGLOG_SPOOL", "/variable"),
        ("THINGLOG_SPOOL_BYTES", "8MiB"),
        ("THINGLOG_MEMORY_BYTES", "1048576"),
    ];
    let mut inputs = inputs(Some(file), &variables);
    inputs.arguments = vec![("root", "--root", "option".to_owned())];
    let loaded = assemble(&inputs).unwrap();
    let settings = &loaded.settings;
    assert_eq!(settings.device.as_deref(), Some("file"));
    assert_eq!(settings.root, "option");
    assert_eq!(settings.level, Level::Debug);
    assert_eq!(settings.spool.path.as_deref(), Some(Path::new("/file")));
    assert_eq!(
        (settings.spool.bytes, settings.memory.bytes),
        (Size(8 << 20), Size(1 << 20))
    );
}

#[test]
fn every_table_and_key_has_its_variable() {
    let file = "[source.nginx]\nkind = \"file\"\npaths = [\"/a\"]\n";
    for (variable, key) in [
        ("THINGLOG_MEMORY_BYTES", "memory.bytes"),
        ("THINGLOG_FLUSH", "upload.flush"),
        ("THINGLOG_RECONNECT_FIRST", "reconnect.first"),
        ("THINGLOG_SOURCE_NGINX_RATE", "source.nginx.rate"),
    ] {
        let complaint = complaints(file, &[(variable, "what?")]);
        let named = complaint.starts_with(&format!("{variable}: {key}: expected"));
        assert!(named, "{complaint}");
    }
    let login = assembled("", &[("THINGLOG_LOGIN_USERNAME", "eve")]);
    assert_eq!(login.settings.login.username.as_deref(), Some("eve"));
    for table in lay::TABLES {
        // HTTP is not served without saying where and to whom.
        let keys = match table {
            "http" => "listen = \"127.0.0.1:48484\"\napi_key_file = \"/run/key\"\n",
            _ => "",
        };
        let text = format!("[{table}]\n{keys}");
        assert!(assemble(&inputs(Some(&text), &[])).is_ok(), "{table}");
    }
    for key in lay::TOP {
        let wrong = complaints(&format!("{key} = {{ }}\n"), &[]);
        assert!(!wrong.contains("unknown"), "{wrong}");
    }
}

#[test]
fn what_is_wrong_is_named_with_line_key_and_what_was_meant() {
    let cases = [
        (
            "device = \"a\"\nbrokr = \"x:1\"\n",
            "edge.toml:2: brokr: unknown key; did you mean `broker`?",
        ),
        ("level = \"LOUD\"\n", "edge.toml:1: level: "),
        (
            "[memory]\nbytes = \"lots\"\n",
            "edge.toml:2: memory.bytes: expected a size",
        ),
        (
            "flush_timeout = 5\n",
            "edge.toml:1: flush_timeout: expected a time",
        ),
        (
            "broker = \"http://x\"\n",
            "edge.toml:1: broker: \"http://x\" is no address",
        ),
        ("device = \n", "edge.toml:1: "),
        (
            "[source.app]\nkind = \"fil\"\n",
            "edge.toml:2: source.app.kind: there is no kind \"fil\"; did you mean `file`?",
        ),
        ("[source.app]\n", "edge.toml:1: source.app.kind: is missing"),
        (
            "[source.app]\nkind = \"file\"\n",
            "edge.toml:1: source.app.paths: name at least one file",
        ),
        (
            "[source.app]\nkind = \"file\"\npaths = []\n",
            "edge.toml:3: source.app.paths: name at least one file",
        ),
        (
            "[source.app]\nkind = \"file\"\npaths = [\"/a\"]\npath = 1\n",
            "edge.toml:4: source.app.path: unknown key; did you mean `paths`?",
        ),
        (
            "[source.journal]\nratee = \"1/s\"\n",
            "edge.toml:2: source.journal.ratee: unknown key; did you mean `rate`?",
        ),
        (
            "[source.journal]\nrate = \"1/day\"\n",
            "edge.toml:2: source.journal.rate: expected a rate",
        ),
        (
            "[source.journal]\nlines = -1\n",
            "edge.toml:2: source.journal.lines: ",
        ),
        (
            "[source.journal]\nredact = [\n  { pattern = \"a\" },\n  { pattern = \"(\" },\n]\n",
            "edge.toml:4: source.journal.redact[1]: ",
        ),
        (
            "redact = [{ pattern = \"(\" }]\n",
            "edge.toml:1: redact[0]: ",
        ),
        (
            "attributes_files = [\"/nowhere/at/all\"]\n",
            "edge.toml:1: attributes_files[0]: /nowhere/at/all: ",
        ),
        ("source = 1\n", "edge.toml:1: source: expected tables"),
    ];
    for (text, expected) in cases {
        let complaint = complaints(text, &[]);
        assert!(
            complaint.starts_with(expected),
            "{complaint}\n  not: {expected}"
        );
    }
}

#[test]
fn all_that_is_wrong_is_reported_at_once() {
    let text = "level = \"LOUD\"\n[source.a]\nkind = \"x\"\n[source.b]\nkind = \"journal\"\nlines = \"y\"\n";
    assert_eq!(complaints(text, &[]).lines().count(), 3);
    let variables = [
        ("THINGLOG_LEVEL", "LOUD"),
        ("THINGLOG_BROKER", "ftp://nowhere"),
    ];
    let complaints = complaints("", &variables);
    assert!(
        complaints.contains("THINGLOG_LEVEL: level: "),
        "{complaints}"
    );
    assert!(
        complaints.contains("THINGLOG_BROKER: broker: "),
        "{complaints}"
    );
}

#[test]
fn a_variable_that_nobody_reads_is_warned_of() {
    let variables = [
        ("THINGLOG_DEVIC", "x"),
        ("THINGLOG_BROKER_LISTEN", "0.0.0.0:1883"),
        ("THINGLOG_LOG", "debug"),
        ("THINGLOG_SOURCE", "app"),
    ];
    let loaded = assembled("", &variables);
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].contains("did you mean THINGLOG_DEVICE?"));
}

#[test]
fn sources_have_their_rules_and_those_of_all() {
    let text = r#"
        event_attributes = ["site"]
        redact = [{ pattern = "token=\\w+" }]
        [attributes]
        site = "eu-1"
        model = "x1"
        [source.journal]
        [source.nginx]
        kind = "file"
        paths = ["/var/log/nginx/access.log"]
        level = "warn"
        rate = "100/s"
        burst = 7
        over_rate = "drop"
        attributes = { role = "web", port = 443 }
        redact = [{ attribute = "cookie" }]
    "#;
    let loaded = assembled(text, &[]);
    assert!(matches!(loaded.sources["journal"].kind, Kind::Journal(_)));
    let nginx = &loaded.sources["nginx"];
    assert!(matches!(&nginx.kind, Kind::File(files) if files.paths.len() == 1));
    let rules = &nginx.rules;
    assert_eq!((rules.level, rules.burst), (Some(Level::Warn), Some(7)));
    assert_eq!(
        (rules.rate, rules.over_rate),
        ("100/s".parse().ok(), OverRate::Drop)
    );
    let attributes = serde_json::json!({"role": "web", "port": 443, "site": "eu-1"});
    assert_eq!(
        serde_json::Value::from(rules.attributes.clone()),
        attributes
    );
    let redacted: Vec<_> = rules
        .redact
        .iter()
        .map(|r| (r.attribute.is_some(), r.pattern.is_some()))
        .collect();
    assert_eq!(redacted, [(true, false), (false, true)]);
    assert_eq!(loaded.sources["journal"].rules.redact.len(), 1);
    assert_eq!(loaded.attributes.len(), 2);
}

#[test]
fn a_secret_is_not_shown() {
    let loaded = assembled("", &[("THINGLOG_PASSWORD", "hunter2")]);
    let shown = format!("{loaded:?}");
    assert!(loaded.settings.login.password.is_some());
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn everything_in_the_example_can_be_set() {
    let path = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/thinglog-edge.example.toml"
    ));
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(assembled(&text, &[]).sources.len(), 1);
    // What is commented out has no space behind its "#".
    let set = text.lines().map(|line| match line.strip_prefix('#') {
        Some(line) if !line.starts_with(' ') => line,
        _ => line,
    });
    let set = set.collect::<Vec<_>>().join("\n");
    let set = set.replace("broker = \"mqtt://", "broker = \"mqtts://");
    let set = set.replace("attributes_files = [\"/etc/os-release\"]\n", "");
    let loaded = assembled(&set, &[]);
    let kinds: Vec<&str> = loaded
        .sources
        .values()
        .map(|source| source.kind.name())
        .collect();
    let expected = [
        "file", "docker", "journal", "kmsg", "file", "command", "syslog",
    ];
    assert_eq!(kinds, expected);
    assert!(loaded.settings.http.is_some() && loaded.settings.tls.ca.is_some());
}
