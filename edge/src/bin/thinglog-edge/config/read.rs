//! A table as what it means. Sources are read piece by piece: what all have in common, and what is
//! their kind's, so that every complaint can name its key.

use std::{collections::BTreeMap, str::FromStr};

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use thinglog_edge::{
    BrokerUrl, BrokerUrlError,
    agent::{
        OverRate, RedactOptions, RuleOptions,
        source::{Kind, SourceOptions},
        units::Rate,
    },
};
use thinglog_schemas::{Attributes, Level};
use toml::{Table, Value};

use super::{
    Settings, Tls,
    error::{Wrong, explain, suggest},
};

/// What every source may have beside the keys of its kind.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Common {
    kind: Option<String>,
    level: Option<Level>,
    rate: Option<Rate>,
    burst: Option<u32>,
    over_rate: OverRate,
    attributes: Attributes,
    redact: Vec<RedactOptions>,
}

const COMMON: [&str; 7] = [
    "kind",
    "level",
    "rate",
    "burst",
    "over_rate",
    "attributes",
    "redact",
];
/// The longest name of a source, bytes.
const MAX_NAME: usize = 128;

/// Where the broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broker(pub(crate) BrokerUrl);

impl Default for Broker {
    fn default() -> Broker {
        Broker(BrokerUrl {
            host: "127.0.0.1".into(),
            port: 1883,
            tls: false,
        })
    }
}

impl FromStr for Broker {
    type Err = String;

    fn from_str(text: &str) -> Result<Broker, String> {
        text.parse()
            .map(Broker)
            .map_err(|error: BrokerUrlError| error.to_string())
    }
}

impl std::fmt::Display for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Broker {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Broker, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

type Sources = BTreeMap<String, SourceOptions>;

/// Settings and sources; else everything that is wrong.
pub(super) fn read(table: &Table) -> Result<(Settings, Sources), Vec<Wrong>> {
    let mut settings = table.clone();
    let sources = settings.remove("source");
    let mut wrong = Vec::new();
    let settings: Option<Settings> = typed(settings, "", &["source"])
        .and_then(|settings: Settings| valid(&settings).map(|()| settings))
        .map_err(|why| wrong.push(why))
        .ok();
    let mut read = Sources::new();
    match sources {
        None => {}
        Some(Value::Table(sources)) => {
            for (name, source) in sources {
                match read_source(&name, source) {
                    Ok(source) => drop(read.insert(name, source)),
                    Err(why) => wrong.push(why),
                }
            }
        }
        Some(_) => wrong.push((
            "source".into(),
            "expected tables, as in [source.nginx]".into(),
        )),
    }
    match settings {
        Some(settings) if wrong.is_empty() => Ok((settings, read)),
        _ => Err(wrong),
    }
}

/// A table as a type; `prefix` is where it stands, `also` what else may stand there.
fn typed<T: DeserializeOwned>(table: Table, prefix: &str, also: &[&str]) -> Result<T, Wrong> {
    serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
        let key = error.path().to_string();
        let error: toml::de::Error = error.into_inner();
        let (key, reason) = explain(key, error.message(), also);
        (under(prefix, &key), reason)
    })
}

fn under(prefix: &str, key: &str) -> String {
    match (prefix, key) {
        ("", key) => key.to_owned(),
        (prefix, "" | ".") => prefix.to_owned(),
        (prefix, key) => format!("{prefix}.{key}"),
    }
}

/// What types cannot say of settings.
fn valid(settings: &Settings) -> Result<(), Wrong> {
    let wrong = |key: &str, reason: &str| Err((key.to_owned(), reason.to_owned()));
    if settings.device.as_deref() == Some("") {
        return wrong("device", "is empty");
    }
    if let Err(error) = thinglog_schemas::Topics::new(&settings.root) {
        return wrong("root", &error.to_string());
    }
    let login = &settings.login;
    let secrets = [
        ("login.password", login.password.is_some()),
        ("login.password_file", login.password_file.is_some()),
        ("login.token_file", login.token_file.is_some()),
    ];
    let mut given = secrets.into_iter().filter(|(_, given)| *given);
    if let (Some((first, _)), Some((second, _))) = (given.next(), given.next()) {
        return wrong(
            second,
            &format!("there is a `{first}` as well; one of them is enough"),
        );
    }
    let tls = &settings.tls;
    match (&tls.cert, &tls.key) {
        (Some(_), None) => return wrong("tls.key", "is missing: `tls.cert` needs its key"),
        (None, Some(_)) => return wrong("tls.cert", "is missing: `tls.key` is of no use alone"),
        _ => {}
    }
    if *tls != Tls::default() && !settings.broker.0.tls {
        return wrong(
            "broker",
            "is not encrypted although there is a table [tls]; write mqtts://",
        );
    }
    if let Err(reason) = settings.upload.document().check() {
        return wrong("upload", &reason);
    }
    let rules = RuleOptions {
        redact: settings.redact.clone(),
        ..RuleOptions::default()
    };
    rules.check().map_err(|error| (error.key, error.reason))
}

fn read_source(name: &str, source: Value) -> Result<SourceOptions, Wrong> {
    let prefix = format!("source.{name}");
    let Value::Table(mut own) = source else {
        let reason = format!("expected a table, as in [source.{name}]");
        return Err((prefix, reason));
    };
    if name.is_empty() || name.len() > MAX_NAME {
        return Err((prefix, format!("a name has 1 to {MAX_NAME} bytes")));
    }
    let common = COMMON.iter().filter_map(|key| own.remove_entry(*key));
    let common: Common = typed(common.collect(), &prefix, &[])?;
    // A source that is called by its kind needs no more said.
    let word = common.kind.as_deref().unwrap_or(name);
    if word == "file" && !own.contains_key("source") {
        own.insert("source".to_owned(), Value::from(name));
    }
    let kind = kind(word, own).ok_or_else(|| {
        let (complaint, word) = match &common.kind {
            Some(kind) => (format!("there is no kind {kind:?}"), kind.as_str()),
            None => ("is missing".to_owned(), name),
        };
        let key = under(&prefix, "kind");
        (key, suggest(&complaint, word, &Kind::NAMES))
    })?;
    let kind = kind.map_err(|(key, reason)| {
        let (key, reason) = explain(key, &reason, &COMMON);
        (under(&prefix, &key), reason)
    })?;
    kind.validate()
        .map_err(|(key, reason)| (under(&prefix, &key), reason))?;
    let rules = RuleOptions {
        level: common.level,
        rate: common.rate,
        burst: common.burst,
        over_rate: common.over_rate,
        attributes: common.attributes,
        redact: common.redact,
    };
    rules
        .check()
        .map_err(|error| (under(&prefix, &error.key), error.reason))?;
    Ok(SourceOptions { kind, rules })
}

/// The options of a kind; `None`: there is no such kind.
fn kind(word: &str, own: Table) -> Option<Result<Kind, Wrong>> {
    let mut track = serde_path_to_error::Track::new();
    let from = serde_path_to_error::Deserializer::new(Value::Table(own), &mut track);
    let read = Kind::read(word, from)?;
    Some(read.map_err(|error| (track.path().to_string(), error.message().to_owned())))
}
