//! Environment variables laid over the file's table.

use std::{collections::BTreeMap, path::Path};

use toml::{Table, Value};

use super::{
    ConfigError, Sources,
    error::{Origin, nearest},
    look_up, set, typed,
};

/// Every table that has keys of its own, [`NAMED`] ones apart. A variable belongs to the longest of
/// these that its name begins with.
const TABLES: [&str; 13] = [
    "broker",
    "broker.auth",
    "broker.auth.jwt",
    "broker.tls",
    "broker.websocket",
    "broker.retention",
    "broker.limits",
    "router",
    "router.broker",
    "router.http",
    "router.audit",
    "router.live",
    "monitor",
];

/// Tables of tables whose names are the operator's, and tables that each of these may have.
const NAMED: [(&str, &[&str]); 3] = [
    (
        "router.destinations",
        &["batch", "retry", "dead_letters", "http"],
    ),
    ("router.receivers", &["http"]),
    ("router.alerts", &["labels", "annotations"]),
];

/// Keys outside of tables.
const TOP: [&str; 2] = ["data", "root"];

/// Keys that can be read from a file of their own.
const SECRETS: [&str; 3] = ["password", "token", "secret"];

/// Variables of `thinglog-edge`, of the command line and of the log, which are no configuration of
/// broker and router.
const OTHERS: [&str; 20] = [
    "CONFIG",
    "LOG",
    "LEVEL",
    "DEVICE",
    "BROKER",
    "USERNAME",
    "PASSWORD",
    "PASSWORD_FILE",
    "TOKEN",
    "TOKEN_FILE",
    "URL",
    "SOURCE",
    "STATE",
    "SPOOL",
    "SPOOL_BYTES",
    "MEMORY_BYTES",
    "FLUSH",
    "FLUSH_TIMEOUT",
    "RECONNECT",
    "RECONNECT_MAX",
];

/// What the environment did.
pub(super) struct Overlay {
    /// The variable that each key was set by.
    pub(super) variables: BTreeMap<String, String>,
    pub(super) warnings: Vec<String>,
}

/// Sets in `table` what the environment says.
pub(super) fn overlay(
    table: &mut Table,
    sources: &Sources<'_>,
) -> Result<Overlay, Vec<ConfigError>> {
    let mut overlay = Overlay {
        variables: BTreeMap::new(),
        warnings: Vec::new(),
    };
    let mut errors = Vec::new();
    for (variable, value) in &sources.variables {
        let Some(name) = variable.strip_prefix("THINGLOG_") else {
            continue;
        };
        let Some(key) = key_of(name, table) else {
            overlay.warnings.extend(unknown(variable, name));
            continue;
        };
        let set = secret(&key, value, sources.read)
            .and_then(|(key, value)| set_typed(table, &key, &value).map(|()| key));
        match set {
            Ok(key) => drop(overlay.variables.insert(key, variable.clone())),
            Err((key, reason)) => {
                errors.push(ConfigError::new(
                    Origin::Variable(variable.clone()),
                    key,
                    reason,
                ));
            }
        }
    }
    if errors.is_empty() {
        Ok(overlay)
    } else {
        Err(errors)
    }
}

/// The dotted key of a variable without its `THINGLOG_`.
fn key_of(name: &str, table: &Table) -> Option<String> {
    let top = TOP.iter().find(|key| shout(key) == name);
    if let Some(key) = top {
        return Some((*key).to_owned());
    }
    let named = NAMED.iter().flat_map(|(all, parts)| {
        let names = look_up(table, all).and_then(Value::as_table);
        let names = names.into_iter().flat_map(Table::keys);
        names.flat_map(move |name| {
            let table = format!("{all}.{name}");
            let below: Vec<String> = parts.iter().map(|part| format!("{table}.{part}")).collect();
            below.into_iter().chain([table])
        })
    });
    let tables = TABLES.iter().map(|table| (*table).to_owned()).chain(named);
    let within = |table: String| {
        let key = name.strip_prefix(&shout(&table))?.strip_prefix('_')?;
        (!key.is_empty()).then(|| (table.len(), format!("{table}.{}", key.to_ascii_lowercase())))
    };
    tables.filter_map(within).max().map(|(_, key)| key)
}

/// A dotted key as it stands in a variable.
fn shout(key: &str) -> String {
    let shout = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    key.chars().map(shout).collect()
}

/// Follows a secret's `…_file` to the secret.
fn secret(
    key: &str,
    value: &str,
    read: &dyn Fn(&Path) -> std::io::Result<String>,
) -> Result<(String, String), (String, String)> {
    let secret = key.strip_suffix("_file").filter(|key| {
        key.rsplit('.')
            .next()
            .is_some_and(|last| SECRETS.contains(&last))
    });
    match secret {
        None => Ok((key.to_owned(), value.to_owned())),
        Some(secret) => match read(Path::new(value)) {
            Ok(text) => Ok((
                secret.to_owned(),
                text.trim_end_matches(['\r', '\n']).to_owned(),
            )),
            Err(error) => Err((secret.to_owned(), format!("cannot read {value}: {error}"))),
        },
    }
}

/// Sets a key to a text that may stand for a number, a truth value, a list or itself: whichever
/// the key takes.
fn set_typed(table: &mut Table, key: &str, text: &str) -> Result<(), (String, String)> {
    let mut first_error = None;
    for value in readings(text) {
        let mut with = table.clone();
        set(&mut with, key, value);
        match typed(with.clone()) {
            Ok(_) => {
                *table = with;
                return Ok(());
            }
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| (key.to_owned(), "no value".into())))
}

/// What a text may mean, likeliest first.
fn readings(text: &str) -> impl Iterator<Item = Value> {
    let parsed = format!("value = {text}").parse::<Table>().ok();
    // One value and nothing behind it: a line break could smuggle in further keys.
    let parsed = parsed
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"));
    let parsed = parsed.filter(|value| !value.is_str());
    parsed.into_iter().chain([Value::from(text)])
}

/// Whether an unknown variable looks like a mistake.
fn unknown(variable: &str, name: &str) -> Option<String> {
    if OTHERS.contains(&name) {
        return None;
    }
    let parts: Vec<String> = ["broker", "router", "data", "root"]
        .iter()
        .map(|part| shout(part))
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let hint = name
        .split('_')
        .next()
        .and_then(|first| nearest(first, &parts));
    let hint = hint.map_or(String::new(), |part| {
        format!("; did you mean THINGLOG_{part}…?")
    });
    Some(format!("{variable} is ignored: there is no such key{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_of_the_configuration_is_known_here() {
        let router = Value::try_from(thinglog_router::Config::default()).unwrap();
        for (key, value) in router.as_table().unwrap() {
            let known = TABLES.contains(&format!("router.{key}").as_str());
            let table = value.is_table() && key != "destinations";
            assert_eq!(known, table, "router.{key}");
        }
        for table in TABLES {
            let mut config = Table::new();
            set(&mut config, table, Value::Table(Table::new()));
            assert!(typed(config).is_ok(), "{table}");
        }
    }

    #[test]
    fn a_variable_belongs_to_the_longest_table() {
        let mut table = Table::new();
        set(
            &mut table,
            "router.destinations.cold-store.type",
            Value::from("file"),
        );
        let cases = [
            ("DATA", Some("data")),
            ("BROKER_LISTEN", Some("broker.listen")),
            ("BROKER_TLS_LISTEN", Some("broker.tls.listen")),
            (
                "BROKER_WEBSOCKET_TLS_LISTEN",
                Some("broker.websocket.tls_listen"),
            ),
            ("BROKER_RETENTION_ON_FULL", Some("broker.retention.on_full")),
            ("ROUTER_BROKER_ADDRESS", Some("router.broker.address")),
            ("ROUTER_WINDOW_BYTES", Some("router.window_bytes")),
            (
                "ROUTER_DESTINATIONS_COLD_STORE_KEEP_BYTES",
                Some("router.destinations.cold-store.keep_bytes"),
            ),
            (
                "ROUTER_DESTINATIONS_COLD_STORE_BATCH_MAX_EVENTS",
                Some("router.destinations.cold-store.batch.max_events"),
            ),
            ("BROKER", None),
            ("BROKER_", None),
            ("LEVEL", None),
        ];
        for (name, key) in cases {
            assert_eq!(key_of(name, &table).as_deref(), key, "{name}");
        }
    }
}
