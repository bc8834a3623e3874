//! `thinglog tap`: what a destination is being sent.

use std::{path::Path, process::ExitCode};

use serde_json::Value;
use thinglog_schemas::json;

use super::cli::Tap;
use crate::{fleet::Session, line, say};

/// Runs the command.
pub(crate) fn tap(config: Option<&Path>, args: &Tap) -> anyhow::Result<ExitCode> {
    let session = Session::new(config, &args.api)?;
    let mut left = args.limit.unwrap_or(u64::MAX);
    let path = ["destinations", &args.destination, "tap"];
    session.api.lines(&path, &[], None, |text| {
        if left == 0 {
            return false;
        }
        match missed(text) {
            Some(missed) => eprintln!("… {missed} more that are not shown"),
            None => {
                say(&shown(text, session.json, session.colour));
                left -= 1;
            }
        }
        left > 0
    })?;
    Ok(ExitCode::SUCCESS)
}

/// How many events a line says were left out.
fn missed(text: &str) -> Option<u64> {
    if !text.starts_with("{\"missed\":") {
        return None;
    }
    let value: Value = serde_json::from_str(text).ok()?;
    value["missed"].as_u64()
}

fn shown(text: &str, as_json: bool, colour: bool) -> String {
    let mut out = String::new();
    match json::read(text.as_bytes()) {
        Ok(event) if !as_json => line::write(&event, colour, &mut out),
        _ => {
            line::escape_json(text, &mut out);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_is_no_event() {
        assert_eq!(missed("{\"missed\":12}"), Some(12));
        assert_eq!(missed("{\"id\":\"a\",\"missed\":12}"), None);
        assert_eq!(shown("no event", false, false), "no event\n");
    }
}
