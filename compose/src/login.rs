//! The login of the environment: `THINGLOG_USERNAME` with `THINGLOG_PASSWORD` or, in a file,
//! `THINGLOG_PASSWORD_FILE`; for commands that talk to a broker and are told no other.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// User name and password, if a user name is there.
pub(crate) fn of_environment() -> anyhow::Result<Option<(String, String)>> {
    let user = std::env::var("THINGLOG_USERNAME").ok();
    let Some(user) = user.filter(|user| !user.is_empty()) else {
        return Ok(None);
    };
    Ok(Some((user, password(None)?)))
}

/// The password in `file`, else that of the environment; empty when there is none.
pub(crate) fn password(file: Option<&Path>) -> anyhow::Result<String> {
    let named = file.map(Path::to_owned);
    let file = named.or_else(|| std::env::var_os("THINGLOG_PASSWORD_FILE").map(PathBuf::from));
    let Some(file) = file else {
        return Ok(std::env::var("THINGLOG_PASSWORD").unwrap_or_default());
    };
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read the password file {}", file.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
