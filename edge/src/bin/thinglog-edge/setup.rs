//! From a configuration to the parts that do the work.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use thinglog_edge::{
    Builder, Publisher, Tls,
    agent::{
        FilesOptions, JournalOptions, StartAt, StateDir,
        source::{Kind, SourceOptions},
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
pub(crate) fn publisher(loaded: &Loaded) -> Builder {
    let settings = &loaded.settings;
    let device = device(loaded);
    let memory = usize::try_from(settings.memory.bytes.0).unwrap_or(usize::MAX);
    let mut builder = Publisher::builder(&device)
        .broker_url(&settings.broker.0)
        .root(&settings.root)
        .level(settings.level)
        .memory_bytes(memory)
        .upload(settings.upload.document())
        .backoff(settings.reconnect.first.0, settings.reconnect.longest.0);
    if let Some(rate) = settings.rate {
        builder = builder.rate(rate);
    }
    for (key, value) in &loaded.attributes {
        builder = builder.attribute(key, value);
    }
    let agent = concat!("thinglog-edge ", env!("CARGO_PKG_VERSION"));
    builder = builder.attribute("agent", agent);
    if let Some(file) = &settings.clock_synced_by {
        builder = builder.clock_synced_by(file);
    }
    let bytes = settings.spool.bytes.0;
    builder = match &settings.spool.path {
        Some(path) if settings.spool.enabled => builder.spool(path, bytes),
        Some(path) => builder.spool_allowed(path, bytes),
        None => builder,
    };
    if settings.tls != config::Tls::default() {
        builder = builder.tls(tls(&settings.tls));
    }
    log_in(builder, &settings.login, &device)
}

fn tls(settings: &config::Tls) -> Tls {
    let mut tls = Tls::new();
    if let Some(ca) = &settings.ca {
        tls = tls.ca(ca);
    }
    if let (Some(cert), Some(key)) = (&settings.cert, &settings.key) {
        tls = tls.identity(cert, key);
    }
    if let Some(name) = &settings.server_name {
        tls = tls.server_name(name);
    }
    tls
}

/// A password on the command line would be seen by every user of the machine, so that there is no
/// option for it.
fn log_in(builder: Builder, login: &config::Login, device: &str) -> Builder {
    let user = login.username.clone();
    let user = user.unwrap_or_else(|| name::encode(device).into_owned());
    if let Some(file) = &login.password_file {
        builder.password_file(user, file)
    } else if let Some(file) = &login.token_file {
        builder.token_file(user, file)
    } else if login.password.is_some() || login.username.is_some() {
        let password = login.password.as_ref().map(|password| password.0.clone());
        builder.credentials(user, password.unwrap_or_default())
    } else {
        builder
    }
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
        ("journal", Kind::Journal(JournalOptions::default()))
    } else if let Some(log) = SYSTEM_LOGS.iter().find(|path| exists(path)) {
        let files = FilesOptions {
            start: StartAt::End,
            ..FilesOptions::new([*log])
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
