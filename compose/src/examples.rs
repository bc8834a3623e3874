//! Files of examples, for commands that try rules and routes on them: read, run, told.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, anyhow};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use thinglog_router::{Config, config::ConfigError};

use crate::{line, load, say};

/// What became of an example.
pub(crate) trait Tried: Serialize {
    /// What is not as it was to be.
    fn wrong(&self) -> &[String];

    /// In words.
    fn told(&self) -> String;
}

/// Runs the examples of a file with the configured router; fails when one is wrong.
pub(crate) fn test<E: DeserializeOwned, T: Tried>(
    config: Option<&Path>,
    file: &Path,
    as_json: bool,
    run: impl FnOnce(&Config, &E) -> Result<Vec<T>, ConfigError>,
) -> anyhow::Result<ExitCode> {
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let examples: E =
        toml::from_str(&text).map_err(|error| anyhow!("{name}: {}", error.to_string().trim()))?;
    let router = load(config, true)?.config.router;
    let outcomes = run(&router, &examples).map_err(|error| anyhow!("{name}: {error}"))?;
    for outcome in &outcomes {
        match as_json {
            true => {
                let mut out = String::new();
                line::escape_json(&json!(outcome).to_string(), &mut out);
                say(&format!("{out}\n"));
            }
            false => say(&outcome.told()),
        }
    }
    let wrong = outcomes
        .iter()
        .filter(|outcome| !outcome.wrong().is_empty());
    let wrong = wrong.count();
    if !as_json {
        say(&format!("{} examples, {wrong} wrong\n", outcomes.len()));
    }
    Ok(match wrong {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}
