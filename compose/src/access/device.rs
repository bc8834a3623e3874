//! `thinglog device add|tokens|remove`: tokens that devices log in with.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::anyhow;
use serde_json::json;
use thinglog_broker::access::{
    file,
    token::{self, TokenError},
};

use super::{TAKE_UP, cli::Common, configured, named_or};
use crate::{config::reachable, say};

fn path(config: Option<&Path>, file: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    named_or(file, "tokens", || {
        Ok(configured(config)?.config.broker.auth.tokens)
    })
}

/// Makes a token.
pub(crate) fn add(
    config: Option<&Path>,
    name: &str,
    replace: bool,
    common: &Common,
) -> anyhow::Result<ExitCode> {
    let loaded = configured(config)?;
    let path = path(config, common.file.as_ref())?;
    let mut made = String::new();
    file::edit::<TokenError>(&path, |text| {
        let (text, token) = token::add(text, name, replace)?;
        made = token;
        Ok(text)
    })?;
    if common.json {
        let told = json!({
            "device": name,
            "username": name,
            "token": made,
            "file": path.display().to_string(),
        });
        say(&format!("{told}\n"));
    } else {
        let broker = &loaded.config.broker;
        say(&snippet(
            name,
            &made,
            reachable(broker.listen),
            &broker.root,
        ));
        say(&format!("\n{TAKE_UP}\n"));
    }
    Ok(ExitCode::SUCCESS)
}

/// How a device connects, to be copied.
fn snippet(name: &str, token: &str, broker: SocketAddr, root: &str) -> String {
    let (host, port) = (broker.ip(), broker.port());
    let root_of_edge = match root {
        "thinglog" => String::new(),
        root => format!(" --root {root}"),
    };
    format!(
        "The token of {name}, shown this once and kept nowhere:\n\n  {token}\n\n\
         With the agent (the token may stand in a file: THINGLOG_PASSWORD_FILE):\n\n  \
         export THINGLOG_PASSWORD={token}\n  \
         echo hello | thinglog-edge --broker {broker} --device {name}{root_of_edge} pipe\n\n\
         With any MQTT client:\n\n  \
         mosquitto_pub -h {host} -p {port} -i {name} -u {name} -P {token} \\\n    \
         -t {root}/logs/{name}/app -q 1 -m hello\n"
    )
}

/// Prints who has a token.
pub(crate) fn list(
    config: Option<&Path>,
    file: Option<&PathBuf>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let devices = token::list(&path(config, file)?)?;
    if json {
        say(&format!("{}\n", json!(devices)));
    } else {
        devices
            .iter()
            .for_each(|device| say(&format!("{device}\n")));
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends a token.
pub(crate) fn remove(
    config: Option<&Path>,
    name: &str,
    common: &Common,
) -> anyhow::Result<ExitCode> {
    let path = path(config, common.file.as_ref())?;
    file::edit(&path, |text| {
        token::remove(text, name).ok_or_else(|| anyhow!("{}: no device {name:?}", path.display()))
    })?;
    if common.json {
        let told = json!({"device": name, "done": "removed", "file": path.display().to_string()});
        say(&format!("{told}\n"));
    } else {
        say(&format!(
            "{name} removed from {}. {TAKE_UP}\n",
            path.display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snippet_reads_as_agreed() {
        let text = snippet(
            "lamp-7",
            "thinglog_0123",
            "127.0.0.1:1884".parse().unwrap(),
            "logs/eu",
        );
        assert_eq!(text, include_str!("../../snapshots/device.txt"));
    }
}
