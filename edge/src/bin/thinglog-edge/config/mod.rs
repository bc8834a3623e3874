//! The configuration of the agent: one TOML file, every scalar key also as an environment variable.
//!
//! `upload.flush` is `THINGLOG_UPLOAD_FLUSH`, `source.nginx.rate` is `THINGLOG_SOURCE_NGINX_RATE`; what
//! is set most often has a shorter name as well (`THINGLOG_USERNAME`). The environment holds the
//! defaults of a device, the file stands above it, the command line above both; what operators
//! configure remotely stands above all of it. Nothing is guessed: an unknown key or a bad value stops
//! the start, or leaves the old configuration in force, with the place, the key and the reason.

mod attributes;
mod error;
mod lay;
mod place;
mod read;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use thinglog_edge::agent::{
    HttpOptions, RedactOptions, RequestOptions,
    source::SourceOptions,
    units::{Rate, Size, Time},
};
use thinglog_schemas::{
    Attributes, Level,
    config::{TimeOfDay, UploadMode},
};

use error::Wrong;
pub(crate) use error::{Origin, Problem};
pub(crate) use lay::Inputs;
use lay::Laid;
pub(crate) use read::Broker;

/// Looked for in this order when no file is named.
pub(crate) const DEFAULT_FILES: [&str; 2] =
    ["thinglog-edge.toml", "/etc/thinglog/thinglog-edge.toml"];

/// Everything but the sources.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Name of this device; by default the host's.
    pub(crate) device: Option<String>,
    pub(crate) broker: Broker,
    /// First levels of every topic.
    pub(crate) root: String,
    /// While operators say nothing else.
    pub(crate) level: Level,
    /// Most events of each source, while operators say nothing else.
    pub(crate) rate: Option<Rate>,
    /// Where places in sources are remembered; by default in the spool, if there is one.
    pub(crate) state: Option<PathBuf>,
    /// How long to go on delivering at the end.
    pub(crate) flush_timeout: Time,
    /// The system clock is right once this file exists; by default, once it is past 2023.
    pub(crate) clock_synced_by: Option<PathBuf>,
    pub(crate) login: Login,
    pub(crate) tls: Tls,
    pub(crate) memory: Memory,
    pub(crate) spool: Spool,
    pub(crate) upload: Upload,
    pub(crate) reconnect: Reconnect,
    pub(crate) control: Control,
    /// Local HTTP, closed unless configured.
    pub(crate) http: Option<HttpOptions>,
    /// How operators' requests are answered.
    pub(crate) requests: RequestOptions,
    /// What the device says of itself.
    pub(crate) attributes: BTreeMap<String, String>,
    /// Files with more of them, a `KEY=value` a line.
    pub(crate) attributes_files: Vec<PathBuf>,
    /// Environment variables that are attributes; `*` at the end stands for anything.
    pub(crate) attributes_env: Vec<String>,
    /// Attributes of the device that every event gets; `*` for all.
    pub(crate) event_attributes: Vec<String>,
    /// What must not leave the device, for all sources.
    pub(crate) redact: Vec<RedactOptions>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Login {
    /// By default the device's name, where there is a password.
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    /// Read again with every connection, as is the next.
    pub(crate) password_file: Option<PathBuf>,
    /// With a JSON Web Token.
    pub(crate) token_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tls {
    /// Authorities to trust, PEM; by default those of the system.
    pub(crate) ca: Option<PathBuf>,
    /// The device's certificate, PEM.
    pub(crate) cert: Option<PathBuf>,
    /// Its key.
    pub(crate) key: Option<PathBuf>,
    /// What the broker's certificate must be valid for, when that is not the host.
    pub(crate) server_name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Memory {
    /// The most that events may take in memory.
    pub(crate) bytes: Size,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Spool {
    /// A directory for events until they are acknowledged.
    pub(crate) path: Option<PathBuf>,
    /// The most it may hold.
    pub(crate) bytes: Size,
    /// False: memory only, until the remote configuration says otherwise.
    pub(crate) enabled: bool,
}

/// When and in what pieces to send; what is absent is as the publisher has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Upload {
    pub(crate) mode: Option<UploadMode>,
    /// Mode `interval`.
    pub(crate) every: Option<Time>,
    /// Mode `schedule`: times of day, UTC.
    pub(crate) at: Option<Vec<TimeOfDay>>,
    /// Mode `schedule`: up to so much later, each device at its own moment.
    pub(crate) spread: Option<Time>,
    /// Modes that wait: an ERROR and what waits before it goes at once.
    pub(crate) errors_at_once: Option<bool>,
    /// Mode `on-error`: memory for what is below the level.
    pub(crate) ring: Option<Size>,
    /// Mode `on-error`: how long everything is sent after an ERROR.
    pub(crate) after: Option<Time>,
    /// The longest an event waits for others to share its batch.
    pub(crate) flush: Option<Time>,
    pub(crate) batch_events: Option<u32>,
    pub(crate) batch_bytes: Option<Size>,
}

impl Upload {
    /// As operators would write it.
    pub(crate) fn document(&self) -> thinglog_schemas::config::Upload {
        fn u32_of(value: u64) -> u32 {
            u32::try_from(value).unwrap_or(u32::MAX)
        }
        let seconds = |time: Option<Time>| time.map(|time| u32_of(time.0.as_secs()));
        let size = |size: Option<Size>| size.map(|size| u32_of(size.0));
        let millis = |time: Time| u64::try_from(time.0.as_millis()).unwrap_or(u64::MAX);
        thinglog_schemas::config::Upload {
            mode: self.mode,
            interval_s: seconds(self.every),
            at: self.at.clone(),
            spread_s: seconds(self.spread),
            errors_at_once: self.errors_at_once,
            ring_bytes: size(self.ring),
            after_s: seconds(self.after),
            flush_ms: self.flush.map(millis),
            batch_events: self.batch_events,
            batch_bytes: size(self.batch_bytes),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Reconnect {
    /// The longest first pause.
    pub(crate) first: Time,
    /// The longest of all.
    pub(crate) longest: Time,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Control {
    /// Where `status` and `upload` reach the agent.
    pub(crate) socket: Option<PathBuf>,
}

/// Not to be shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(pub(crate) String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Settings {
    /// Keys that are set otherwise in `new` and act from the next start on only.
    pub(crate) fn differs_in_what_is_fixed(&self, new: &Settings) -> Vec<&'static str> {
        let same = [
            ("device", self.device == new.device),
            ("broker", self.broker == new.broker),
            ("root", self.root == new.root),
            ("level", self.level == new.level),
            ("rate", self.rate == new.rate),
            ("state", self.state == new.state),
            (
                "clock_synced_by",
                self.clock_synced_by == new.clock_synced_by,
            ),
            ("login", self.login == new.login),
            ("tls", self.tls == new.tls),
            ("memory", self.memory == new.memory),
            ("spool", self.spool == new.spool),
            ("upload", self.upload == new.upload),
            ("reconnect", self.reconnect == new.reconnect),
            ("control", self.control == new.control),
            ("requests", self.requests == new.requests),
            ("attributes", self.attributes == new.attributes),
        ];
        same.into_iter()
            .filter(|(_, same)| !same)
            .map(|(key, _)| key)
            .collect()
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            device: None,
            broker: Broker::default(),
            root: "thinglog".into(),
            level: Level::Info,
            rate: None,
            state: None,
            flush_timeout: seconds(5),
            clock_synced_by: None,
            login: Login::default(),
            tls: Tls::default(),
            memory: Memory::default(),
            spool: Spool::default(),
            upload: Upload::default(),
            reconnect: Reconnect::default(),
            control: Control::default(),
            http: None,
            requests: RequestOptions::default(),
            attributes: BTreeMap::new(),
            attributes_files: Vec::new(),
            attributes_env: Vec::new(),
            event_attributes: Vec::new(),
            redact: Vec::new(),
        }
    }
}

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            bytes: Size(8 << 20),
        }
    }
}

impl Default for Spool {
    fn default() -> Spool {
        Spool {
            path: None,
            bytes: Size(64 << 20),
            enabled: true,
        }
    }
}

impl Default for Reconnect {
    fn default() -> Reconnect {
        Reconnect {
            first: seconds(1),
            longest: seconds(300),
        }
    }
}

fn seconds(seconds: u64) -> Time {
    Time(std::time::Duration::from_secs(seconds))
}

/// A configuration that can be used.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) settings: Settings,
    /// By name; empty: none is configured.
    pub(crate) sources: BTreeMap<String, SourceOptions>,
    /// What the device says of itself, from all places.
    pub(crate) attributes: BTreeMap<String, String>,
    /// The file it comes from, if any.
    pub(crate) file: Option<PathBuf>,
    /// What was ignored, and why.
    pub(crate) warnings: Vec<String>,
    laid: Laid,
}

impl Loaded {
    /// Something that is wrong with `key`, found out by trying.
    pub(crate) fn problem(&self, key: &str, reason: impl Into<String>) -> Problem {
        self.laid.problem((key.to_owned(), reason.into()))
    }

    /// Where a key was set.
    pub(crate) fn origin(&self, key: &str) -> Origin {
        self.laid.origin(key)
    }

    /// The file that a key of `login` or `tls` names.
    pub(crate) fn path_of(&self, key: &str) -> Option<&Path> {
        let (login, tls) = (&self.settings.login, &self.settings.tls);
        let path = match key {
            "login.password_file" => &login.password_file,
            "login.token_file" => &login.token_file,
            "tls.ca" => &tls.ca,
            "tls.cert" => &tls.cert,
            "tls.key" => &tls.key,
            _ => return None,
        };
        path.as_deref()
    }

    /// Where events are kept on disk, if they are.
    pub(crate) fn spool(&self) -> Option<&Path> {
        let spool = &self.settings.spool;
        spool.path.as_deref().filter(|_| spool.enabled)
    }
}

/// The file that is read: the one that is named, by the command line or the environment; with
/// `usual`, else the first of [`DEFAULT_FILES`] that exists.
pub(crate) fn file(named: Option<&Path>, usual: bool) -> Option<PathBuf> {
    let named = named.map(Path::to_owned);
    let named = named.or_else(|| std::env::var_os("THINGLOG_CONFIG").map(PathBuf::from));
    let exist = DEFAULT_FILES
        .iter()
        .map(PathBuf::from)
        .filter(|path| usual && path.exists());
    named.or_else(|| exist.into_iter().next())
}

/// Reads `file`, the environment of this process, and what the command line says. All that is wrong
/// is reported, as far as it can be told apart.
pub(crate) fn load(
    file: Option<&Path>,
    arguments: Vec<(&'static str, &'static str, String)>,
) -> Result<Loaded, Vec<Problem>> {
    let text = file.map(|path| {
        fs::read_to_string(path).map_err(|error| {
            vec![Problem {
                origin: Origin::File(path.to_owned(), None),
                key: String::new(),
                reason: error.to_string(),
            }]
        })
    });
    let text = text.transpose()?;
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    assemble(&Inputs {
        file: file.zip(text.as_deref()),
        variables: variables.collect(),
        arguments,
    })
}

/// Puts the configuration together.
pub(crate) fn assemble(inputs: &Inputs<'_>) -> Result<Loaded, Vec<Problem>> {
    let laid = lay::lay(inputs)?;
    let all = |wrong: Vec<Wrong>| {
        let problems = wrong.into_iter().map(|wrong| laid.problem(wrong));
        problems.collect::<Vec<_>>()
    };
    let (settings, mut sources) = read::read(&laid.table).map_err(all)?;
    let attributes = attributes::gather(&settings, &inputs.variables).map_err(all)?;
    let on_events = attributes::on_events(&settings, &attributes);
    for source in sources.values_mut() {
        let rules = &mut source.rules;
        for (key, value) in &on_events {
            rules.attributes.entry(key).or_insert_with(|| value.clone());
        }
        rules.redact.extend(settings.redact.iter().cloned());
    }
    Ok(Loaded {
        settings,
        sources,
        attributes,
        file: inputs.file.map(|(path, _)| path.to_owned()),
        warnings: laid.warnings.clone(),
        laid,
    })
}

/// The rules of a source that has none of its own.
pub(crate) fn common_rules(loaded: &Loaded) -> thinglog_edge::agent::RuleOptions {
    let attributes: Attributes = attributes::on_events(&loaded.settings, &loaded.attributes);
    thinglog_edge::agent::RuleOptions {
        attributes,
        redact: loaded.settings.redact.clone(),
        ..Default::default()
    }
}
