//! `thinglog check`: the configuration as it would be used, or everything that is wrong with it.

use std::fmt::Write as _;

use thinglog_broker::access::describe_keys;

use thinglog_router::config::HttpConfig;

use crate::{
    access::keys::Keys,
    banner::url,
    config::{ConfigError, Loaded},
};

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
    for (transport, address) in config.broker.listeners().skip(1) {
        say("", &url(transport, address));
    }
    say("logins", &logins(&config.broker));
    if let Some(http) = &config.router.http {
        say("HTTP", &format_args!("http://{}", http.address));
        if http.sign_in {
            say("", &callers(http, &config.broker));
        }
    }
    say("router from", &loaded.broker().address);
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
            &format_args!("{name} ({})", destination.kind.name()),
        );
    }
    for warning in &loaded.warnings {
        say("warning", warning);
    }
    format!("{place}: valid\n{out}")
}

/// Who may call HTTP, in a few words.
fn callers(http: &HttpConfig, broker: &thinglog_broker::Config) -> String {
    let keys = http.access_keys.as_deref();
    let keys = keys.map(|file| match Keys::read(file) {
        Ok(keys) => format!("{} access keys", keys.count()),
        Err(_) => "access keys".to_owned(),
    });
    let logins = broker.auth.asks().then(|| "logins as above".to_owned());
    let all: Vec<String> = logins.into_iter().chain(keys).collect();
    format!("for {}", all.join(" and "))
}

/// Who may connect, in a few words.
fn logins(broker: &thinglog_broker::Config) -> String {
    let auth = &broker.auth;
    let tls = broker.tls.as_ref();
    let jwt = auth.jwt.as_ref().map(|jwt| match describe_keys(jwt) {
        Ok(keys) => format!("JWT ({keys})"),
        Err(_) => "JWT".to_owned(),
    });
    let proofs = [
        ("anybody, with all rights", !auth.is_on()),
        (
            "certificates",
            tls.is_some_and(|tls| tls.client_ca.is_some()),
        ),
        ("passwords", auth.passwords.is_some()),
        ("device tokens", auth.tokens.is_some()),
        (jwt.as_deref().unwrap_or_default(), jwt.is_some()),
        ("anybody, by the ACL file", auth.is_on() && auth.anonymous),
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
