//! `thinglog check`: the configuration as it would be used, or everything that is wrong with it.

use std::fmt::Write as _;

use thinglog_broker::access;
use thinglog_schemas::Topics;

use crate::config::{ConfigError, Loaded};

/// What is printed for a valid configuration.
pub(crate) fn summary(loaded: &Loaded) -> String {
    let config = &loaded.config;
    let mut out = String::new();
    let place = match &loaded.file {
        Some(file) => file.display().to_string(),
        None => "defaults and environment (no thinglog.toml here)".into(),
    };
    let mut say = |what: &str, is: &dyn std::fmt::Display| {
        let _ = writeln!(out, "  {what:<12} {is}");
    };
    say("MQTT", &config.broker.listen);
    say("logins", &logins(&config.broker.auth));
    if let Some(http) = &config.router.http {
        say("HTTP", &format_args!("http://{}", http.address));
    }
    say("router from", &loaded.broker_address());
    say(
        "data",
        &format_args!(
            "{}, {}",
            config.broker.data.display(),
            config.router.data.join("router").display()
        ),
    );
    for (name, destination) in &config.router.destinations {
        say(
            "destination",
            &format_args!("{name} ({})", kind(destination)),
        );
    }
    for warning in &loaded.warnings {
        say("warning", warning);
    }
    format!("{place}: valid\n{out}")
}

fn kind(destination: &thinglog_router::config::DestinationConfig) -> &'static str {
    match destination {
        thinglog_router::config::DestinationConfig::File(_) => "file",
        thinglog_router::config::DestinationConfig::Stdout(_) => "stdout",
    }
}

/// Reads the files of users, tokens, keys and rules; what is wrong otherwise, as a line.
pub(crate) fn files(loaded: &Loaded) -> Result<(), String> {
    let broker = &loaded.config.broker;
    let topics = Topics::new(&broker.root).map_err(|error| error.to_string())?;
    access::check(&broker.auth, &topics).map_err(|error| format!("broker.auth: {error}\n"))
}

/// Who may connect, in a few words.
fn logins(auth: &access::Auth) -> String {
    if !auth.is_on() {
        return "anybody, with all rights (broker.auth is empty)".into();
    }
    let proofs = [
        ("passwords", auth.passwords.is_some()),
        ("device tokens", auth.tokens.is_some()),
        ("JWT", auth.jwt.is_some()),
        ("anybody, by the ACL file", auth.anonymous),
    ];
    let proofs: Vec<&str> = proofs
        .into_iter()
        .filter_map(|(proof, is_taken)| is_taken.then_some(proof))
        .collect();
    proofs.join(", ")
}

/// What is printed otherwise, a line for each thing that is wrong.
pub(crate) fn complaint(errors: &[ConfigError]) -> String {
    errors.iter().fold(String::new(), |mut out, error| {
        let _ = writeln!(out, "{error}");
        out
    })
}
