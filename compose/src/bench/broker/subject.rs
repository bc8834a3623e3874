//! Who is measured: `thinglog broker` of this very program, or Debian's mosquitto, each as a process of
//! its own on a fresh directory.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context;
use thinglog_broker::access::token;

use super::super::{
    peer::mosquitto_program,
    process::{Process, free_address},
};

/// A broker and the topics it is measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// Ours; every publish is on disk before it is acknowledged.
    Durable,
    /// Ours, on topics that are not durable.
    Memory,
    /// Debian's, persistence off.
    Mosquitto,
    /// Ours; every client is a device that logs in with its token.
    Tokens,
}

impl Subject {
    pub(super) fn name(self) -> &'static str {
        match self {
            Subject::Durable => "thinglog, durable",
            Subject::Memory => "thinglog, not durable",
            Subject::Mosquitto => "mosquitto",
            Subject::Tokens => "thinglog, tokens",
        }
    }

    /// The topics; all of one length, so that nobody has less to copy.
    pub(super) fn topic(self, number: usize) -> String {
        format!("{}/bench-{number:05}/app", self.prefix())
    }

    /// The filter of all of them.
    pub(super) fn filter(self) -> String {
        format!("{}/#", self.prefix())
    }

    fn prefix(self) -> &'static str {
        match self {
            Subject::Durable => "thinglog/logs",
            Subject::Memory | Subject::Mosquitto | Subject::Tokens => "thinglog/test",
        }
    }

    /// Starts it with its files in `dir`.
    pub(super) fn start(self, dir: &Path) -> anyhow::Result<Running> {
        let address = free_address()?;
        let mut command = match self {
            Subject::Durable | Subject::Memory => ours(dir, address, "")?,
            Subject::Tokens => {
                let tokens = tokens_file(dir);
                ours(
                    dir,
                    address,
                    &format!("\n[broker.auth]\ntokens = {tokens:?}\n"),
                )?
            }
            Subject::Mosquitto => mosquitto(dir, address)?,
        };
        let mut process = Process::start(self.name(), &mut command, &dir.join("broker.log"))?;
        process.wait_for(address)?;
        Ok(Running { process, address })
    }
}

/// A broker under measurement. Dropping it ends it.
pub(super) struct Running {
    pub(super) process: Process,
    pub(super) address: SocketAddr,
}

/// Writes the file of tokens that [`Subject::Tokens`] reads in `dir`; gives the tokens.
pub(super) fn write_tokens(dir: &Path, devices: &[String]) -> anyhow::Result<Vec<String>> {
    let (mut text, mut tokens) = (String::new(), Vec::with_capacity(devices.len()));
    for device in devices {
        let (line, token) = token::add("", device, false)?;
        text.push_str(&line);
        tokens.push(token);
    }
    std::fs::write(tokens_file(dir), text)?;
    Ok(tokens)
}

fn tokens_file(dir: &Path) -> PathBuf {
    dir.join("tokens")
}

fn ours(dir: &Path, address: SocketAddr, more: &str) -> anyhow::Result<Command> {
    let config = dir.join("thinglog.toml");
    let data = dir.join("data").display().to_string();
    let text = format!("data = {data:?}\n\n[broker]\nlisten = \"{address}\"\n{more}");
    std::fs::write(&config, text)?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.arg("broker").arg("--config").arg(config);
    command.stdout(Stdio::null());
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("THINGLOG_") {
            command.env_remove(key);
        }
    }
    Ok(command)
}

/// Nothing on disk, no queue limits, the window the clients ask for.
fn mosquitto(dir: &Path, address: SocketAddr) -> anyhow::Result<Command> {
    let config = dir.join("mosquitto.conf");
    let text = format!(
        "listener {} {}\nallow_anonymous true\npersistence false\nlog_dest none\n\
         max_inflight_messages 100\nmax_queued_messages 0\nset_tcp_nodelay true\n",
        address.port(),
        address.ip(),
    );
    std::fs::write(&config, text)?;
    let mut command = Command::new(mosquitto_program());
    command.arg("-c").arg(config).stdout(Stdio::null());
    Ok(command)
}

/// Whether mosquitto can be started.
pub(super) fn has_mosquitto() -> bool {
    Command::new(mosquitto_program()).arg("-h").output().is_ok()
}
