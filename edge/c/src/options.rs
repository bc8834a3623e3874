//! Options by name, so that a new one needs no new function.

use std::{fmt::Display, str::FromStr, sync::Once, time::Duration};

use thinglog_edge::{Builder, Publisher};
use thinglog_schemas::Level;
use tracing_subscriber::filter::LevelFilter;

const MQTT_PORT: u16 = 1883;
const SPOOL_BYTES: u64 = 64 << 20;

/// The names, as the header explains them.
const KEYS: &str = "broker, user, password, root, instance, level, memory_bytes, spool, spool_bytes, \
     flush_age_ms, batch_events, batch_bytes, reconnect_ms, reconnect_max_ms, linger_ms, \
     attribute.NAME, diagnostics";

/// `thinglog_options` of the header.
pub struct Options {
    builder: Builder,
    user: Option<String>,
    password: Option<String>,
    spool: Option<String>,
    spool_bytes: u64,
    batch: (usize, usize),
    reconnect: (Duration, Duration),
    diagnostics: bool,
}

impl Options {
    pub(crate) fn new(device: &str) -> Options {
        Options {
            builder: Publisher::builder(device),
            user: None,
            password: None,
            spool: None,
            spool_bytes: SPOOL_BYTES,
            batch: (1000, 256 << 10),
            reconnect: (Duration::from_secs(1), Duration::from_secs(300)),
            diagnostics: false,
        }
    }

    /// Sets one; the reason when it cannot be.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        if let Some(name) = key.strip_prefix("attribute.") {
            return self.build(|builder| builder.attribute(name, value));
        }
        match key {
            "broker" => {
                let (host, port) = host_and_port(value)?;
                self.build(|builder| builder.broker(host, port))
            }
            "user" => keep(&mut self.user, value),
            "password" => keep(&mut self.password, value),
            "root" => self.build(|builder| builder.root(value)),
            "instance" => self.build(|builder| builder.instance(value)),
            "level" => {
                let level: Level = read(value)?;
                self.build(|builder| builder.level(level))
            }
            "memory_bytes" => {
                let bytes = number(value)?;
                self.build(|builder| builder.memory_bytes(bytes))
            }
            "spool" if value.is_empty() => Err("the name of a directory is empty".into()),
            "spool" => keep(&mut self.spool, value),
            "spool_bytes" => number(value).map(|bytes| self.spool_bytes = bytes),
            "flush_age_ms" => {
                let age = duration(value)?;
                self.build(|builder| builder.flush_age(age))
            }
            "linger_ms" => {
                let linger = duration(value)?;
                self.build(|builder| builder.linger(linger))
            }
            "batch_events" => number(value).map(|events| self.batch.0 = events),
            "batch_bytes" => number(value).map(|bytes| self.batch.1 = bytes),
            "reconnect_ms" => duration(value).map(|base| self.reconnect.0 = base),
            "reconnect_max_ms" => duration(value).map(|cap| self.reconnect.1 = cap),
            "diagnostics" => {
                self.diagnostics = match value {
                    "none" => false,
                    "stderr" => true,
                    _ => return Err(format!("{value:?} is neither none nor stderr")),
                };
                Ok(())
            }
            _ => Err(format!("there is no such option; there are {KEYS}")),
        }
    }

    fn build(&mut self, change: impl FnOnce(Builder) -> Builder) -> Result<(), String> {
        self.builder = change(self.builder.clone());
        Ok(())
    }

    /// A publisher with these options, or why there is none.
    pub(crate) fn start(&self) -> Result<Publisher, String> {
        let mut builder = self.builder.clone().batch(self.batch.0, self.batch.1);
        builder = builder.backoff(self.reconnect.0, self.reconnect.1);
        builder = match (&self.user, &self.password) {
            (Some(user), password) => {
                builder.credentials(user, password.as_deref().unwrap_or_default())
            }
            (None, Some(_)) => return Err("password: there is no user it belongs to".into()),
            (None, None) => builder,
        };
        if let Some(path) = &self.spool {
            builder = builder.spool(path, self.spool_bytes);
        }
        if self.diagnostics {
            write_diagnostics();
        }
        builder.start().map_err(|error| error.to_string())
    }
}

fn keep(place: &mut Option<String>, value: &str) -> Result<(), String> {
    *place = Some(value.to_owned());
    Ok(())
}

fn read<T: FromStr<Err: Display>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|error: T::Err| error.to_string())
}

fn number<T: FromStr>(value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("{value:?} is not a whole number, or too large a one"))
}

fn duration(value: &str) -> Result<Duration, String> {
    number(value).map(Duration::from_millis)
}

/// `HOST`, `HOST:PORT`, `[ADDRESS]` or `[ADDRESS]:PORT`; an IPv6 address with neither brackets nor port.
fn host_and_port(value: &str) -> Result<(&str, u16), String> {
    let (host, port) = match value
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').unwrap_or(""))),
        None => match value.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (value, None),
        },
    };
    let port = port.map_or(Ok(MQTT_PORT), str::parse);
    match port {
        Ok(port) if !host.is_empty() && port > 0 => Ok((host, port)),
        _ => Err(format!(
            "{value:?} is no host and port, such as 192.0.2.1:1883"
        )),
    }
}

/// Warnings of the library to stderr, for the whole process and once. Whoever has a subscriber of
/// their own keeps it.
fn write_diagnostics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::WARN)
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .finish();
        // Fails when there is one already.
        let _ = tracing::subscriber::set_global_default(subscriber);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_of_the_header_is_known_and_the_other_way_round() {
        let header = include_str!("../include/thinglog.h");
        for key in KEYS.split(',').map(str::trim) {
            assert!(
                header.contains(&format!("*   {key}")),
                "{key} is not in the header"
            );
        }
        let values = [
            ("broker", "192.0.2.1:1883"),
            ("user", "lamp"),
            ("password", "secret"),
            ("root", "logs/of/mine"),
            ("instance", "one"),
            ("level", "debug"),
            ("memory_bytes", "1000000"),
            ("spool", "/tmp"),
            ("spool_bytes", "8000000"),
            ("flush_age_ms", "100"),
            ("batch_events", "500"),
            ("batch_bytes", "100000"),
            ("reconnect_ms", "10"),
            ("reconnect_max_ms", "100"),
            ("linger_ms", "0"),
            ("attribute.model", "x1"),
            ("diagnostics", "none"),
        ];
        assert_eq!(values.len(), KEYS.split(',').count());
        let mut options = Options::new("lamp-7");
        for (key, value) in values {
            assert_eq!(options.set(key, value), Ok(()), "{key}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason_and_changes_nothing() {
        let mut options = Options::new("lamp-7");
        for (key, value, reason) in [
            ("brocker", "x", "there is no such option; there are broker"),
            ("broker", "x:y", "no host and port"),
            ("broker", ":1883", "no host and port"),
            ("level", "LOUD", "ERROR, WARN, INFO or DEBUG"),
            ("memory_bytes", "8 MiB", "not a whole number"),
            ("spool_bytes", "-1", "not a whole number"),
            ("spool", "", "empty"),
            ("diagnostics", "file", "neither none nor stderr"),
        ] {
            let error = options.set(key, value).unwrap_err();
            assert!(error.contains(reason), "{key}: {error}");
        }
        assert_eq!(options.spool_bytes, SPOOL_BYTES);
    }

    #[test]
    fn options_that_cannot_stand_together_start_nothing() {
        let mut options = Options::new("lamp-7");
        options.set("password", "secret").unwrap();
        assert!(options.start().is_err_and(|error| error.contains("user")));
        let mut options = Options::new("lamp-7");
        options.set("root", "a/#").unwrap();
        assert!(options.start().is_err_and(|error| error.contains("root")));
    }

    #[test]
    fn hosts_come_with_and_without_a_port() {
        for (value, expected) in [
            ("broker.example", ("broker.example", 1883)),
            ("broker.example:8883", ("broker.example", 8883)),
            ("[fe80::1]:8883", ("fe80::1", 8883)),
            ("[fe80::1]", ("fe80::1", 1883)),
            ("fe80::1", ("fe80::1", 1883)),
        ] {
            assert_eq!(host_and_port(value), Ok(expected));
        }
        for value in ["", "x:", "x:0", "x:70000", "[::1]8883", "[]:1"] {
            assert!(host_and_port(value).is_err(), "{value}");
        }
    }
}
