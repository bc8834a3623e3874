//! From a configuration to the parts that do the work.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use thinglog_edge::{
    Builder, Publisher,
    agent::{
        StateDir,
        source::{self, Kind, SourceOptions},
    },
};
use thinglog_schemas::name;

use crate::config::{self, Loaded};

/// Where systems without a journal have their log.
const SYSTEM_LOGS: [&str; 2] = ["/var/log/syslog", "/var/log/messages"];
/// Where the journal has its files, on disk or until the next boot.
const JOURNALS: [&str; 2] = ["/var/log/journal", "/run/log/journal"];

/// The device's name.
pub(crate) fn device(loaded: &Loaded) -> String {
    loaded.settings.device.clone().unwrap_or_else(host_name)
}

/// A publisher that is not started yet.
pub(crate) fn publisher(loaded: &Loaded) -> anyhow::Result<Builder> {
    let settings = &loaded.settings;
    let device = device(loaded);
    let memory = usize::try_from(settings.memory.bytes.0).unwrap_or(usize::MAX);
    let mut builder = Publisher::builder(&device)
        .broker(&settings.broker.host, settings.broker.port)
        .root(&settings.root)
        .level(settings.level)
        .memory_bytes(memory)
        .flush_age(settings.upload.flush.0)
        .backoff(settings.reconnect.first.0, settings.reconnect.longest.0);
    for (key, value) in &loaded.attributes {
        builder = builder.attribute(key, value);
    }
    let agent = concat!("thinglog-edge ", env!("CARGO_PKG_VERSION"));
    builder = builder.attribute("agent", agent);
    if let Some((user, password)) = credentials(loaded, &device)? {
        builder = builder.credentials(user, password);
    }
    if let Some(spool) = loaded.spool() {
        builder = builder.spool(spool, settings.spool.bytes.0);
    }
    Ok(builder)
}

/// User name and password for the broker, if there are any. A password on the command line would be
/// seen by every user of the machine, so that there is no option for it.
fn credentials(loaded: &Loaded, device: &str) -> anyhow::Result<Option<(String, String)>> {
    let login = &loaded.settings.login;
    let password = match &login.password_file {
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the password file {}", file.display()))?;
            Some(text.trim_end_matches(['\r', '\n']).to_owned())
        }
        None => login.password.as_ref().map(|password| password.0.clone()),
    };
    Ok(match (&login.username, password) {
        (None, None) => None,
        (user, password) => {
            let user = user.clone();
            let user = user.unwrap_or_else(|| name::encode(device).into_owned());
            Some((user, password.unwrap_or_default()))
        }
    })
}

fn host_name() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    match name.is_empty() {
        true => "device".to_owned(),
        false => name.into_owned(),
    }
}

/// Where places in sources are remembered: as configured, in the spool, or where systemd gave the
/// service a directory.
pub(crate) fn state_path(loaded: &Loaded) -> Option<PathBuf> {
    let in_spool = || loaded.spool().map(|spool| spool.join("positions"));
    let given = || std::env::var_os("STATE_DIRECTORY").map(|dir| Path::new(&dir).join("positions"));
    loaded
        .settings
        .state
        .clone()
        .or_else(in_spool)
        .or_else(given)
}

/// That directory, made where needed.
pub(crate) fn state(loaded: &Loaded) -> anyhow::Result<Option<StateDir>> {
    let Some(path) = state_path(loaded) else {
        return Ok(None);
    };
    let state = StateDir::open(&path);
    let state = state.with_context(|| format!("no place for positions at {}", path.display()))?;
    Ok(Some(state))
}

/// The sources that are configured; when none is, what this machine has: the journal, else the
/// system's log file.
pub(crate) fn sources(loaded: &Loaded) -> anyhow::Result<BTreeMap<String, SourceOptions>> {
    if !loaded.sources.is_empty() {
        return Ok(loaded.sources.clone());
    }
    let exists = |path: &str| Path::new(path).exists();
    let (name, kind) = if JOURNALS.iter().any(|path| exists(path)) && has_journalctl() {
        ("journal", Kind::Journal(source::Journal::default()))
    } else if let Some(log) = SYSTEM_LOGS.iter().find(|path| exists(path)) {
        let files = source::Files {
            paths: vec![PathBuf::from(log)],
            source: None,
            from: source::From::End,
        };
        ("syslog", Kind::File(files))
    } else {
        anyhow::bail!(
            "there is nothing to carry: this machine has neither a systemd journal nor {}, and no \
             source is configured; add one to thinglog-edge.toml:\n  [source.app]\n  kind = \
             \"file\"\n  paths = [\"/path/to/app.log\"]",
            SYSTEM_LOGS.join(" nor ")
        );
    };
    let rules = config::common_rules(loaded);
    Ok(BTreeMap::from([(
        name.to_owned(),
        SourceOptions { kind, rules },
    )]))
}

/// Whether there is a program to ask for the journal.
fn has_journalctl() -> bool {
    let asked = Command::new("journalctl").arg("--version").output();
    asked.is_ok_and(|output| output.status.success())
}
