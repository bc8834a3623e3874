//! `thinglog passwd`: users with passwords that people choose.

use std::{
    io::{IsTerminal, Read, stdin},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, anyhow, bail};
use serde_json::json;
use thinglog_broker::access::{
    Grant, file,
    password::{self, PasswordError, Secret},
};

use super::{TAKE_UP, cli::Passwd, configured, named_or};
use crate::say;

/// Longest first line taken from standard input, bytes.
const MAX_LINE: u64 = 4096;

pub(crate) fn passwd(config: Option<&Path>, args: &Passwd) -> anyhow::Result<ExitCode> {
    let path = named_or(args.file.as_ref(), "passwords", || {
        Ok(configured(config)?.config.broker.auth.passwords)
    })?;
    let user = &args.user;
    if args.delete {
        file::edit(&path, |text| {
            password::remove(text, user)
                .ok_or_else(|| anyhow!("{}: no user {user:?}", path.display()))
        })?;
        tell(args, &path, "deleted", None);
        return Ok(ExitCode::SUCCESS);
    }
    let grant = args.grant().map_err(|reason| anyhow!("{reason}"))?;
    let secret = if args.no_password {
        Secret::None
    } else if args.keep_password {
        Secret::Keep
    } else {
        Secret::Hash(password::hash(&ask(user)?)?)
    };
    file::edit::<PasswordError>(&path, |text| {
        password::set(text, user, secret, grant.as_ref())
    })?;
    tell(args, &path, "set", grant.as_ref());
    Ok(ExitCode::SUCCESS)
}

/// The password: typed twice without echo at a terminal, else the first line of standard input.
fn ask(user: &str) -> anyhow::Result<Vec<u8>> {
    if stdin().is_terminal() {
        let prompt =
            |text: String| rpassword::prompt_password(text).context("cannot ask for the password");
        let first = prompt(format!("Password for {user}: "))?;
        if first != prompt("Once more: ".into())? {
            bail!("the passwords differ; nothing was changed");
        }
        return Ok(first.into_bytes());
    }
    let mut input = Vec::new();
    stdin()
        .take(MAX_LINE)
        .read_to_end(&mut input)
        .context("cannot read the password from standard input")?;
    let line = input
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}

fn tell(args: &Passwd, path: &Path, done: &str, grant: Option<&Grant>) {
    let user = &args.user;
    if args.json {
        let told = json!({
            "user": user,
            "done": done,
            "file": path.display().to_string(),
            "role": grant.and_then(|grant| grant.role).map(|role| role.word()),
            "groups": grant.map_or(&[][..], |grant| &grant.groups),
        });
        return say(&format!("{told}\n"));
    }
    let role = match grant {
        Some(grant) => format!(" ({grant})"),
        None => String::new(),
    };
    say(&format!(
        "{user} {done} in {}{role}. {TAKE_UP}\n",
        path.display()
    ));
}
