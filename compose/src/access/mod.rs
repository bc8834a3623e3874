//! `thinglog passwd`, `thinglog device`, `thinglog key` and `thinglog acl`: the files of who may connect
//! and who may do what. The broker owns their formats, but for that of access keys ([`keys`]); here they
//! are named, edited and explained.

mod acl;
pub(crate) mod cli;
mod device;
mod key;
pub(crate) mod keys;
mod passwd;

use std::path::{Path, PathBuf};

pub(crate) use acl::test;
use anyhow::bail;
pub(crate) use device::device;
pub(crate) use key::key;
pub(crate) use passwd::passwd;

use crate::{config::Loaded, load};

/// The configuration as far as these commands need it: what an open listener lacks may be just what
/// they are about to make.
fn configured(file: Option<&Path>) -> anyhow::Result<Loaded> {
    load(file, true)
}

/// The file to edit: the one named, else the configured one.
fn named_or(
    named: Option<&PathBuf>,
    key: &str,
    configured: impl FnOnce() -> anyhow::Result<Option<PathBuf>>,
) -> anyhow::Result<PathBuf> {
    if let Some(file) = named {
        return Ok(file.clone());
    }
    match configured()? {
        Some(file) => Ok(file),
        None => bail!(
            "which file? Name it with --file {key}, or in thinglog.toml for the broker as well:\n\n  \
             [broker.auth]\n  {key} = \"{key}\""
        ),
    }
}

/// How a running broker takes a change up.
const TAKE_UP: &str = "A running broker takes this up on SIGHUP (pkill -HUP -x thinglog).";
