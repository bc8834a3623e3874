//! `thinglog tap`: what a destination is being sent.

use std::{path::Path, process::ExitCode};

use serde_json::Value;

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
                say(&line::of_json(text, session.json, session.colour, None));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_is_no_event() {
        assert_eq!(missed("{\"missed\":12}"), Some(12));
        assert_eq!(missed("{\"id\":\"a\",\"missed\":12}"), None);
        assert_eq!(line::of_json("no event", false, false, None), "no event\n");
    }
}
