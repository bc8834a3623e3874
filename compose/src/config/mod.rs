//! The configuration of everything: one TOML file, every key of it also as an environment variable.
//!
//! `broker.listen` is `THINGLOG_BROKER_LISTEN`, `router.destinations.file.rotate_bytes` is
//! `THINGLOG_ROUTER_DESTINATIONS_FILE_ROTATE_BYTES`; the environment comes before the file, the file
//! before the defaults. A secret (a key named `password`) can stand in a file of its own, named by
//! the variable with `_FILE` at its end. `data` and `root` at the top hold for broker and router
//! alike unless they say otherwise. Nothing is read here but these files, and nothing is guessed: an
//! unknown key or a bad value stops the start, with the place, the key and the reason.

mod environment;
mod error;
mod origins;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use error::Origin;
pub(crate) use error::{ConfigError, nearest};
use origins::Origins;
use serde::Deserialize;
use thinglog_router::config::Endpoint;
use toml::{Table, Value};

use crate::access::keys::Keys;

/// Looked for in the working directory when no file is named.
pub(crate) const DEFAULT_FILE: &str = "thinglog.toml";
/// What of the router's keys a running process takes up on SIGHUP.
const TAKEN_UP: [&str; 4] = ["destinations", "routes", "alerts", "receivers"];
/// The destinations of those who configure none, each named as its type.
const DEFAULT_DESTINATIONS: [&str; 2] = ["file", "store"];

/// Everything an operator may set.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Where broker and router keep their data.
    pub(crate) data: Option<PathBuf>,
    /// First levels of every topic, for broker and router.
    pub(crate) root: Option<String>,
    /// The broker.
    pub(crate) broker: thinglog_broker::Config,
    /// The router.
    pub(crate) router: thinglog_router::Config,
    /// HTTP of a broker that runs alone.
    pub(crate) monitor: crate::monitor::Config,
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// The file it comes from, if any.
    pub(crate) file: Option<PathBuf>,
    /// The router's broker was named by the operator; otherwise it is the one in this process.
    pub(crate) router_broker_given: bool,
    /// So was the address of the router's HTTP.
    pub(crate) http_given: bool,
    /// What was ignored, and why.
    pub(crate) warnings: Vec<String>,
    /// Who set each key.
    origins: Origins,
}

impl Loaded {
    /// What of another configuration a running process cannot take up: by key.
    pub(crate) fn needs_restart(&self, other: &Loaded) -> Vec<String> {
        let mut keys = Vec::new();
        let tables = (
            Table::try_from(&self.config.router),
            Table::try_from(&other.config.router),
        );
        if let (Ok(mine), Ok(theirs)) = tables {
            let all: BTreeSet<&String> = mine.keys().chain(theirs.keys()).collect();
            let differs = |key: &&String| mine.get(*key) != theirs.get(*key);
            let taken_up = |key: &&String| TAKEN_UP.contains(&key.as_str());
            let all = all.into_iter().filter(|key| differs(key) && !taken_up(key));
            keys.extend(all.map(|key| format!("router.{key}")));
        }
        // Its types are read only.
        if format!("{:?}", self.config.broker) != format!("{:?}", other.config.broker) {
            keys.push("broker".into());
        }
        keys
    }

    /// Reads the files that the configuration names; says what is wrong with them.
    pub(crate) fn check_files(&self) -> Result<(), ConfigError> {
        self.config.broker.check_files().map_err(|error| {
            let key = format!("broker.{}", error.key);
            ConfigError::new(self.origins.of(&key), key, error.reason)
        })
    }

    /// The same for the file of access keys.
    pub(crate) fn check_keys(&self) -> Result<(), ConfigError> {
        let http = self.config.router.http.as_ref();
        let Some(file) = http.and_then(|http| http.access_keys.as_ref()) else {
            return Ok(());
        };
        Keys::read(file).map(drop).map_err(|error| {
            let key = "router.http.access_keys";
            ConfigError::new(self.origins.of(key), key, error.to_string())
        })
    }

    /// What would keep destinations from being made, with the files that they name.
    pub(crate) fn check_destinations(&self) -> Vec<ConfigError> {
        let wrong = self.config.router.check_destinations().into_iter();
        wrong
            .map(|error| {
                let key = format!("router.{}", error.key);
                ConfigError::new(self.origins.of(&key), key, error.reason)
            })
            .collect()
    }

    /// Whether broker and router would listen at one place. An address of HTTP that nobody chose is
    /// warned of only: the parts may run apart.
    pub(crate) fn check_listeners(&mut self) -> Result<(), ConfigError> {
        let broker = &self.config.broker;
        let http = self.config.router.http.as_ref();
        let http = http.map(|http| ("router.http.address", http.address));
        let monitor = self.config.monitor.address();
        let monitor = monitor.map(|address| ("monitor.address", address));
        for (key, address) in http.into_iter().chain(monitor) {
            let Some(other) = broker.listener_on(address) else {
                continue;
            };
            let reason = format!("{address} is that of broker.{other} already");
            if key == "router.http.address" && !self.http_given {
                self.warnings.push(format!("{key}: {reason}"));
                continue;
            }
            return Err(ConfigError::new(self.origins.of(key), key, reason));
        }
        Ok(())
    }

    /// Where commands reach the broker: the one the router was told, else the bundled one.
    pub(crate) fn broker(&self) -> Endpoint {
        let mut broker = self.config.router.broker.clone();
        if !self.router_broker_given {
            broker.address = reachable(self.config.broker.listen).to_string();
        }
        broker
    }
}

/// Where this machine reaches what listens there.
pub(crate) fn reachable(listens: SocketAddr) -> SocketAddr {
    let ip = match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listens.port())
}

/// Where the parts come from; tests have their own.
pub(crate) struct Sources<'a> {
    /// The file and its text.
    pub(crate) file: Option<(&'a Path, &'a str)>,
    /// Environment variables.
    pub(crate) variables: BTreeMap<String, String>,
    /// Reads the file of a `…_FILE` variable.
    pub(crate) read: &'a dyn Fn(&Path) -> io::Result<String>,
    /// `--insecure`.
    pub(crate) insecure: bool,
}

/// Reads file and environment of this process. All that is wrong is reported, as far as it can be
/// told apart.
pub(crate) fn load(file: Option<&Path>, insecure: bool) -> Result<Loaded, Vec<ConfigError>> {
    let default = Path::new(DEFAULT_FILE);
    let read = |path: &Path| fs::read_to_string(path);
    let path = file.or_else(|| default.exists().then_some(default));
    let text = path.map(|path| {
        read(path).map_err(|error| {
            vec![ConfigError::new(
                Origin::File(path.into(), None),
                "",
                error.to_string(),
            )]
        })
    });
    let text = text.transpose()?;
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    assemble(&Sources {
        file: path.zip(text.as_deref()),
        variables: variables.collect(),
        read: &read,
        insecure,
    })
}

/// Puts the configuration together.
pub(crate) fn assemble(sources: &Sources<'_>) -> Result<Loaded, Vec<ConfigError>> {
    let mut table = match sources.file {
        Some((path, text)) => parse(path, text).map_err(|error| vec![error])?,
        None => Table::new(),
    };
    let router_broker = |table: &Table| look_up(table, "router.broker.address").is_some();
    add_defaults(&mut table);
    let overlay = environment::overlay(&mut table, sources)?;
    let router_broker_given = router_broker(&table);
    let http_given = look_up(&table, "router.http.address").is_some();
    inherit(&mut table);
    sign_in(&mut table);
    if sources.insecure {
        set(&mut table, "broker.insecure", Value::Boolean(true));
        set(&mut table, "router.http.insecure", Value::Boolean(true));
        set(&mut table, "monitor.insecure", Value::Boolean(true));
    }
    let origins = Origins::new(sources.file, overlay.variables);
    let config: Config = typed(table).map_err(|(key, reason)| {
        let error = ConfigError::new(Origin::Default, key, reason);
        vec![error.found(|key| origins.of(key))]
    })?;
    let errors = validate(&config, |key| origins.of(key));
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(Loaded {
        config,
        file: sources.file.map(|(path, _)| path.to_owned()),
        router_broker_given,
        http_given,
        warnings: overlay.warnings,
        origins,
    })
}

/// The file as a table, its types checked while line numbers are known.
fn parse(path: &Path, text: &str) -> Result<Table, ConfigError> {
    let at = |span: Option<std::ops::Range<usize>>| {
        let line = span.map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        Origin::File(path.to_owned(), line)
    };
    let wrong = |error: toml::de::Error| ConfigError::new(at(error.span()), "", error.message());
    let table: Table = text.parse().map_err(wrong)?;
    let deserializer = toml::Deserializer::parse(text).map_err(wrong)?;
    serde_path_to_error::deserialize::<_, Config>(deserializer).map_err(|error| {
        let key = error.path().to_string();
        let error = error.into_inner();
        let lines = Origins::new(Some((path, text)), BTreeMap::new());
        ConfigError::new(at(error.span()), key, error.message()).found(|key| lines.of(key))
    })?;
    Ok(table)
}

/// The table as what it means; else the key and the reason.
fn typed(table: Table) -> Result<Config, (String, String)> {
    serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
        let key = error.path().to_string();
        (key, error.into_inner().message().to_owned())
    })
}

/// HTTP, a file and a store, for whoever does not configure theirs.
fn add_defaults(table: &mut Table) {
    if look_up(table, "router.http").is_none() {
        set(table, "router.http", Value::Table(Table::new()));
    }
    if look_up(table, "router.destinations").is_none() {
        for kind in DEFAULT_DESTINATIONS {
            let destination = Table::from_iter([("type".to_owned(), Value::from(kind))]);
            let key = format!("router.destinations.{kind}");
            set(table, &key, Value::Table(destination));
        }
    }
}

/// `data` and `root` at the top, for the parts that do not say otherwise.
fn inherit(table: &mut Table) {
    let data = look_up(table, "data")
        .and_then(Value::as_str)
        .map(PathBuf::from);
    let root = look_up(table, "root").cloned();
    let data_of = |part: &str| {
        let path = data.as_ref()?.join(part);
        Some(Value::from(path.to_string_lossy().into_owned()))
    };
    let inherited = [
        ("broker.data", data_of("broker")),
        ("router.data", data_of("")),
        ("broker.root", root.clone()),
        ("router.root", root),
    ];
    for (key, value) in inherited {
        if let (None, Some(value)) = (look_up(table, key), value) {
            set(table, key, value);
        }
    }
}

/// HTTP asks who calls as soon as there is something to show, unless it is told otherwise.
fn sign_in(table: &mut Table) {
    let proofs = [
        "broker.auth.passwords",
        "broker.auth.tokens",
        "broker.auth.jwt",
        "router.http.access_keys",
    ];
    let is_known = proofs.iter().any(|key| look_up(table, key).is_some());
    if look_up(table, "router.http.sign_in").is_none() && is_known {
        set(table, "router.http.sign_in", Value::Boolean(true));
    }
}

/// What types cannot check.
fn validate(config: &Config, origin: impl Fn(&str) -> Origin) -> Vec<ConfigError> {
    let broker = config
        .broker
        .validate()
        .err()
        .map(|error| (format!("broker.{}", error.key), error.reason));
    let router = config
        .router
        .validate()
        .err()
        .map(|error| (format!("router.{}", error.key), error.reason));
    let monitor = config
        .monitor
        .validate()
        .err()
        .map(|(key, reason)| (format!("monitor.{key}"), reason));
    let http = config.router.http.as_ref();
    let unsigned = http.is_some_and(|http| {
        http.sign_in && http.access_keys.is_none() && !config.broker.auth.asks()
    });
    let reason = "there is nothing to sign in with: name a file in router.http.access_keys (thinglog key add \
                  NAME --role admin), or passwords in [broker.auth]";
    let unsigned = unsigned.then(|| ("router.http.sign_in".to_owned(), reason.to_owned()));
    let wrong = broker
        .into_iter()
        .chain(router)
        .chain(monitor)
        .chain(unsigned);
    wrong
        .map(|(key, reason)| ConfigError::new(origin(&key), key, reason))
        .collect()
}

/// The value at a dotted key.
fn look_up<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let (tables, last) = key.rsplit_once('.').unwrap_or(("", key));
    let mut table = table;
    for part in tables.split('.').filter(|part| !part.is_empty()) {
        table = table.get(part)?.as_table()?;
    }
    table.get(last)
}

/// Sets the value at a dotted key, makes the tables on the way. A value in the place of a table
/// stays: its type is an error that is reported with its key later.
fn set(table: &mut Table, key: &str, value: Value) {
    let (tables, last) = key.rsplit_once('.').unwrap_or(("", key));
    let mut table = table;
    for part in tables.split('.').filter(|part| !part.is_empty()) {
        let below = table
            .entry(part)
            .or_insert_with(|| Value::Table(Table::new()));
        match below {
            Value::Table(below) => table = below,
            _ => return,
        }
    }
    table.insert(last.to_owned(), value);
}

#[cfg(test)]
mod tests;
