//! The configuration as one table: the file, the environment under it, the command line over it.

use std::{collections::BTreeMap, path::Path};

use toml::{Table, Value};

use super::{
    error::{Origin, Problem, Wrong, nearest},
    place, read,
};

/// Tables with keys of their own. A variable belongs to the longest of these that its name begins
/// with; sources, which have names, apart.
pub(super) const TABLES: [&str; 6] = ["login", "memory", "spool", "upload", "reconnect", "control"];

/// Keys outside of tables that one value can be given to.
pub(super) const TOP: [&str; 11] = [
    "device",
    "broker",
    "root",
    "level",
    "rate",
    "state",
    "flush_timeout",
    "clock_synced_by",
    "attributes_files",
    "attributes_env",
    "event_attributes",
];

/// Shorter names of variables for what is set most often.
const SHORT: [(&str, &str); 8] = [
    ("USERNAME", "login.username"),
    ("PASSWORD", "login.password"),
    ("PASSWORD_FILE", "login.password_file"),
    ("TOKEN_FILE", "login.token_file"),
    ("SPOOL", "spool.path"),
    ("FLUSH", "upload.flush"),
    ("RECONNECT", "reconnect.first"),
    ("RECONNECT_MAX", "reconnect.longest"),
];

/// Variables that are read elsewhere, and those of the programs on the other side.
const OTHERS: [&str; 3] = ["CONFIG", "LOG", "SOURCE"];
const OTHERS_BEGIN: [&str; 4] = ["BROKER_", "ROUTER_", "MONITOR_", "DATA"];

/// Where settings come from; tests have their own.
pub(crate) struct Inputs<'a> {
    /// The file and its text.
    pub(crate) file: Option<(&'a Path, &'a str)>,
    /// Environment variables.
    pub(crate) variables: BTreeMap<String, String>,
    /// What the command line says: key, option, value.
    pub(crate) arguments: Vec<(&'static str, &'static str, String)>,
}

/// The table, and who set what in it.
#[derive(Default)]
pub(crate) struct Laid {
    pub(super) table: Table,
    /// Keys that were not set by the file.
    origins: BTreeMap<String, Origin>,
    file: Option<(std::path::PathBuf, String)>,
    /// What was ignored, and why.
    pub(super) warnings: Vec<String>,
}

/// The table may hold a password.
impl std::fmt::Debug for Laid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Laid").finish_non_exhaustive()
    }
}

impl Laid {
    /// Who set a key, and the line where a file did.
    pub(crate) fn origin(&self, key: &str) -> Origin {
        let set = self.origins.iter().find(|(set, _)| {
            key.strip_prefix(set.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        });
        match (set, &self.file) {
            (Some((_, origin)), _) => origin.clone(),
            (None, Some((path, text))) => Origin::File(path.clone(), place::line(text, key)),
            (None, None) => Origin::Default,
        }
    }

    pub(crate) fn problem(&self, (key, reason): Wrong) -> Problem {
        Problem {
            origin: self.origin(&key),
            key,
            reason,
        }
    }
}

/// Lays the three on each other. A file that cannot be read as such ends it; of variables and
/// options everything that is wrong is reported.
pub(super) fn lay(inputs: &Inputs<'_>) -> Result<Laid, Vec<Problem>> {
    let mut laid = Laid::default();
    if let Some((path, text)) = inputs.file {
        laid.table = parse(path, text).map_err(|problem| vec![problem])?;
        laid.file = Some((path.to_owned(), text.to_owned()));
        read::read(&laid.table).map_err(|wrong| {
            let problems = wrong.into_iter().map(|wrong| laid.problem(wrong));
            problems.collect::<Vec<_>>()
        })?;
    }
    let mut problems = Vec::new();
    for (variable, value) in &inputs.variables {
        let Some(name) = variable.strip_prefix("THINGLOG_") else {
            continue;
        };
        let Some(key) = key_of(name, &laid.table) else {
            laid.warnings.extend(unknown(variable, name));
            continue;
        };
        // A variable is the device's default: what the file says stands above it.
        if look_up(&laid.table, &key).is_none() {
            let origin = Origin::Variable(variable.clone());
            problems.extend(put(&mut laid, &key, value, origin).err());
        }
    }
    for (key, option, value) in &inputs.arguments {
        problems.extend(put(&mut laid, key, value, Origin::Argument(option)).err());
    }
    match problems.is_empty() {
        true => Ok(laid),
        false => Err(problems),
    }
}

fn parse(path: &Path, text: &str) -> Result<Table, Problem> {
    text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map(|span| {
            let start = span.start.min(text.len());
            text[..start].matches('\n').count() + 1
        });
        Problem {
            origin: Origin::File(path.to_owned(), line),
            key: String::new(),
            reason: error.message().to_owned(),
        }
    })
}

/// Sets a key to a text, which may stand for a number, a truth value, a list or itself: whichever the
/// key takes.
fn put(laid: &mut Laid, key: &str, text: &str, origin: Origin) -> Result<(), Problem> {
    let mut first = None;
    for value in readings(text) {
        let mut with = laid.table.clone();
        set(&mut with, key, value);
        match read::read(&with) {
            Ok(_) => {
                laid.table = with;
                laid.origins.insert(key.to_owned(), origin);
                return Ok(());
            }
            Err(wrong) => first = first.or(wrong.into_iter().next()),
        }
    }
    let (key, reason) = first.unwrap_or_default();
    Err(Problem {
        origin,
        key,
        reason,
    })
}

/// What a text may mean; itself last, because most keys that take text take every text.
fn readings(text: &str) -> impl Iterator<Item = Value> {
    let parsed = format!("value = {text}").parse::<Table>().ok();
    // One value and nothing behind it: a line break could smuggle in further keys.
    let parsed = parsed.filter(|table| table.len() == 1);
    let parsed = parsed.and_then(|mut table| table.remove("value"));
    let parsed = parsed.filter(|value| !value.is_str());
    parsed.into_iter().chain([Value::from(text)])
}

/// The dotted key of a variable without its `THINGLOG_`.
fn key_of(name: &str, table: &Table) -> Option<String> {
    let short = SHORT.iter().find(|(short, _)| *short == name);
    let short = short.map(|(_, key)| (*key).to_owned());
    let top = TOP.iter().find(|key| shout(key) == name);
    if let Some(key) = short.or(top.map(|key| (*key).to_owned())) {
        return Some(key);
    }
    let sources = table.get("source").and_then(Value::as_table);
    let sources = sources.into_iter().flat_map(Table::keys);
    let sources = sources.map(|name| format!("source.{name}"));
    let tables = TABLES
        .iter()
        .map(|table| (*table).to_owned())
        .chain(sources);
    let within = |table: String| {
        let key = name.strip_prefix(&shout(&table))?.strip_prefix('_')?;
        (!key.is_empty()).then(|| (table.len(), format!("{table}.{}", key.to_ascii_lowercase())))
    };
    tables.filter_map(within).max().map(|(_, key)| key)
}

/// A dotted key as it stands in a variable.
fn shout(key: &str) -> String {
    let shout = |c: char| match c.is_ascii_alphanumeric() {
        true => c.to_ascii_uppercase(),
        false => '_',
    };
    key.chars().map(shout).collect()
}

/// Whether an unknown variable looks like a mistake.
fn unknown(variable: &str, name: &str) -> Option<String> {
    let other = OTHERS.contains(&name) || OTHERS_BEGIN.iter().any(|begin| name.starts_with(begin));
    if other {
        return None;
    }
    let shorts = SHORT.iter().map(|(short, _)| (*short).to_owned());
    let known: Vec<String> = TOP.iter().map(|key| shout(key)).chain(shorts).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let hint = nearest(name, &known);
    let hint = hint.map_or(String::new(), |near| {
        format!("; did you mean THINGLOG_{near}?")
    });
    Some(format!("{variable} is ignored: there is no such key{hint}"))
}

/// The value at a dotted key.
pub(super) fn look_up<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let (tables, last) = split(key, table);
    let mut table = table;
    for part in tables {
        table = table.get(part)?.as_table()?;
    }
    table.get(last)
}

/// Sets the value at a dotted key, makes the tables on the way. A value in the place of a table stays:
/// its type is an error that is reported with its key.
pub(super) fn set(table: &mut Table, key: &str, value: Value) {
    let (tables, last) = split(key, table);
    let (tables, last): (Vec<String>, _) = (
        tables.into_iter().map(str::to_owned).collect(),
        last.to_owned(),
    );
    let mut table = table;
    for part in tables {
        let below = table
            .entry(part)
            .or_insert_with(|| Value::Table(Table::new()));
        match below {
            Value::Table(below) => table = below,
            _ => return,
        }
    }
    table.insert(last, value);
}

/// The tables of a key and its last part; the name of a source may have dots of its own.
fn split<'a>(key: &'a str, table: &Table) -> (Vec<&'a str>, &'a str) {
    if let Some(rest) = key.strip_prefix("source.")
        && let Some(sources) = table.get("source").and_then(Value::as_table)
    {
        let names = sources.keys().filter_map(|name| {
            let last = rest.strip_prefix(name.as_str())?.strip_prefix('.')?;
            Some((&rest[..name.len()], last))
        });
        if let Some((name, last)) = names.max_by_key(|(name, _)| name.len()) {
            return (vec!["source", name], last);
        }
    }
    match key.rsplit_once('.') {
        Some((tables, last)) => (tables.split('.').collect(), last),
        None => (Vec::new(), key),
    }
}
