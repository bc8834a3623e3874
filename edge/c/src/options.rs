//! Options by name, so that a new one needs no new function.

use std::{fmt::Display, str::FromStr, sync::Once, time::Duration};

use thinglog_edge::{BrokerUrl, Builder, Publisher, Tls};
use thinglog_schemas::Level;
use tracing_subscriber::filter::LevelFilter;

const SPOOL_BYTES: u64 = 64 << 20;

/// The names, as the header explains them.
const KEYS: &str = "broker, user, password, password_file, token_file, ca, certificate, key, \
     server_name, root, instance, level, memory_bytes, spool, spool_bytes, flush_age_ms, \
     batch_events, batch_bytes, reconnect_ms, reconnect_max_ms, linger_ms, attribute.NAME, diagnostics";

/// `thinglog_options` of the header.
pub struct Options {
    builder: Builder,
    login: Login,
    tls: TlsFiles,
    spool: Option<String>,
    spool_bytes: u64,
    batch: (usize, usize),
    reconnect: (Duration, Duration),
    diagnostics: bool,
}

#[derive(Default)]
struct Login {
    user: Option<String>,
    password: Option<String>,
    password_file: Option<String>,
    token_file: Option<String>,
}

#[derive(Default)]
struct TlsFiles {
    ca: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
    server_name: Option<String>,
}

impl Options {
    pub(crate) fn new(device: &str) -> Options {
        Options {
            builder: Publisher::builder(device),
            login: Login::default(),
            tls: TlsFiles::default(),
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
                let url: BrokerUrl = read(value)?;
                self.build(|builder| builder.broker_url(&url))
            }
            "user" => keep(&mut self.login.user, value),
            "password" => keep(&mut self.login.password, value),
            "password_file" => keep_path(&mut self.login.password_file, value),
            "token_file" => keep_path(&mut self.login.token_file, value),
            "ca" => keep_path(&mut self.tls.ca, value),
            "certificate" => keep_path(&mut self.tls.certificate, value),
            "key" => keep_path(&mut self.tls.key, value),
            "server_name" => keep(&mut self.tls.server_name, value),
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
            "spool" => keep_path(&mut self.spool, value),
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
        builder = self.tls.apply(self.login.apply(builder)?)?;
        builder.check_files()?;
        if let Some(path) = &self.spool {
            builder = builder.spool(path, self.spool_bytes);
        }
        if self.diagnostics {
            write_diagnostics();
        }
        builder.start().map_err(|error| error.to_string())
    }
}

impl Login {
    fn apply(&self, builder: Builder) -> Result<Builder, String> {
        let secrets = (&self.password, &self.password_file, &self.token_file);
        let Some(user) = &self.user else {
            return match secrets {
                (None, None, None) => Ok(builder),
                _ => Err("user: it is missing, and there is a password or token".into()),
            };
        };
        match secrets {
            (None, None, None) => Ok(builder.credentials(user, "")),
            (Some(password), None, None) => Ok(builder.credentials(user, password)),
            (None, Some(path), None) => Ok(builder.password_file(user, path)),
            (None, None, Some(path)) => Ok(builder.token_file(user, path)),
            _ => Err("password, password_file and token_file: only one of them can be".into()),
        }
    }
}

impl TlsFiles {
    fn apply(&self, builder: Builder) -> Result<Builder, String> {
        let mut tls = Tls::new();
        if let Some(path) = &self.ca {
            tls = tls.ca(path);
        }
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => tls = tls.identity(certificate, key),
            (None, None) => {}
            _ => return Err("certificate and key: one is there without the other".into()),
        }
        if let Some(name) = &self.server_name {
            tls = tls.server_name(name);
        }
        Ok(match tls == Tls::new() {
            true => builder,
            false => builder.tls(tls),
        })
    }
}

fn keep(place: &mut Option<String>, value: &str) -> Result<(), String> {
    *place = Some(value.to_owned());
    Ok(())
}

fn keep_path(place: &mut Option<String>, value: &str) -> Result<(), String> {
    match value {
        "" => Err("the name of a file or directory is empty".into()),
        _ => keep(place, value),
    }
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
            ("broker", "mqtts://192.0.2.1:8884"),
            ("user", "lamp"),
            ("password", "secret"),
            ("password_file", "/run/secret"),
            ("token_file", "/run/token"),
            ("ca", "/etc/ca.pem"),
            ("certificate", "/etc/lamp.pem"),
            ("key", "/etc/lamp.key"),
            ("server_name", "broker.example"),
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
            ("broker", "x:y", "no port"),
            ("broker", "ws://x", "mqtt://"),
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
        let cases: [(&[(&str, &str)], &str); 6] = [
            (&[("password", "secret")], "user"),
            (
                &[("user", "u"), ("password", "p"), ("token_file", "/t")],
                "only one of them",
            ),
            (&[("certificate", "/c")], "without the other"),
            (&[("ca", "/nowhere/ca.pem")], "/nowhere/ca.pem"),
            (&[("root", "a/#")], "root"),
            (&[("spool", "/dev/null/spool")], "/dev/null/spool"),
        ];
        for (settings, reason) in cases {
            let mut options = Options::new("lamp-7");
            for (key, value) in settings {
                options.set(key, value).unwrap();
            }
            let error = options.start().map(drop).unwrap_err();
            assert!(error.contains(reason), "{settings:?}: {error}");
        }
    }
}
