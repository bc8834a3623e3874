//! `thinglog key`: access keys for signed requests.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{anyhow, bail};
use serde_json::json;
use thinglog_broker::access::{Grant, Role, file};

use super::{
    TAKE_UP,
    cli::{Common, Key},
    configured,
    keys::{self, Keys},
};
use crate::{config::reachable, say};

pub(crate) fn key(config: Option<&Path>, command: &Key) -> anyhow::Result<ExitCode> {
    match command {
        Key::Add {
            user,
            role,
            group,
            common,
        } => add(config, (user, *role, group), common)?,
        Key::List { common } => list(&path(config, common)?, common.json)?,
        Key::Remove { id, common } => remove(&path(config, common)?, id, common.json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn path(config: Option<&Path>, common: &Common) -> anyhow::Result<PathBuf> {
    if let Some(file) = &common.file {
        return Ok(file.clone());
    }
    let http = configured(config)?.config.router.http;
    http.and_then(|http| http.access_keys).ok_or_else(|| {
        anyhow!(
            "which file? Name it with --file keys, or in thinglog.toml for HTTP as well:\n\n  \
             [router.http]\n  access_keys = \"keys\""
        )
    })
}

fn add(
    config: Option<&Path>,
    (user, role, groups): (&str, Role, &[String]),
    common: &Common,
) -> anyhow::Result<()> {
    if !matches!(role, Role::Admin | Role::Operator) {
        bail!("a key is for the role admin or operator; {role} has no rights over HTTP");
    }
    let path = path(config, common)?;
    let grant = Grant::new(Some(role), groups.to_vec()).map_err(|reason| anyhow!("{reason}"))?;
    let mut made = None;
    file::edit::<anyhow::Error>(&path, |text| {
        let (text, id, secret) = keys::add(text, user, &grant)?;
        made = Some((id, secret));
        Ok(text)
    })?;
    let (id, secret) = made.unwrap_or_default();
    if common.json {
        let told = json!({
            "user": user,
            "id": id,
            "secret": secret,
            "role": role.word(),
            "groups": groups,
            "file": path.display().to_string(),
        });
        say(&format!("{told}\n"));
        return Ok(());
    }
    let http = configured(config)?.config.router.http.unwrap_or_default();
    let text = snippet((user, &id, &secret), reachable(http.address));
    say(&format!("{text}\n{TAKE_UP}\n"));
    Ok(())
}

/// How AWS's command line signs with it, to be copied.
fn snippet((user, id, secret): (&str, &str, &str), http: SocketAddr) -> String {
    format!(
        "An access key of {user}; its secret is shown this once:\n\n  \
         export AWS_ACCESS_KEY_ID={id}\n  \
         export AWS_SECRET_ACCESS_KEY={secret}\n  \
         export AWS_DEFAULT_REGION=us-east-1\n  \
         aws iot list-things --endpoint-url http://{http}\n"
    )
}

fn list(path: &Path, json: bool) -> anyhow::Result<()> {
    let keys = Keys::read(path)?;
    let listed = keys.list();
    if json {
        let told: Vec<_> = listed
            .iter()
            .map(|(id, key)| {
                json!({
                    "id": id,
                    "user": key.user,
                    "role": key.grant.role.map(Role::word),
                    "groups": key.grant.groups,
                })
            })
            .collect();
        say(&format!("{}\n", json!(told)));
        return Ok(());
    }
    listed
        .iter()
        .for_each(|(id, key)| say(&format!("{id}  {}  {}\n", key.user, key.grant)));
    Ok(())
}

fn remove(path: &Path, id: &str, json: bool) -> anyhow::Result<()> {
    file::edit::<anyhow::Error>(path, |text| {
        keys::remove(text, id).ok_or_else(|| anyhow!("{}: no key {id:?}", path.display()))
    })?;
    if json {
        let told = json!({"id": id, "done": "removed", "file": path.display().to_string()});
        say(&format!("{told}\n"));
    } else {
        say(&format!(
            "{id} removed from {}. {TAKE_UP}\n",
            path.display()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snippet_reads_as_agreed() {
        let key = ("alice", "TLOG2345", "hush");
        let text = snippet(key, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(text, include_str!("../../snapshots/key.txt"));
    }
}
