//! `thinglog check`: the configuration as it would be used, or everything that is wrong with it.

use std::fmt::Write as _;

use crate::{
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

/// What is printed otherwise, a line for each thing that is wrong.
pub(crate) fn complaint(errors: &[ConfigError]) -> String {
    errors.iter().fold(String::new(), |mut out, error| {
        let _ = writeln!(out, "{error}");
        out
    })
}
