//! `thinglog route test`: examples through the configured routes, nothing else.

use std::{fmt::Write, path::Path, process::ExitCode};

use anyhow::{Context, anyhow};
use serde_json::json;
use thinglog_router::routes::examples::{self, Examples, Outcome};

use super::cli::{Route, RouteTest};
use crate::{line, load, say};

/// Runs the command.
pub(crate) fn route(config: Option<&Path>, command: &Route) -> anyhow::Result<ExitCode> {
    let Route::Test(args) = command;
    test(config, args)
}

fn test(config: Option<&Path>, args: &RouteTest) -> anyhow::Result<ExitCode> {
    let file = args.file.display();
    let text =
        std::fs::read_to_string(&args.file).with_context(|| format!("cannot read {file}"))?;
    let examples: Examples =
        toml::from_str(&text).map_err(|error| anyhow!("{file}: {}", error.to_string().trim()))?;
    let router = load(config, true)?.config.router;
    let outcomes = examples::run(&router, &examples).map_err(|error| anyhow!("{file}: {error}"))?;
    let wrong = outcomes.iter().filter(|outcome| !outcome.wrong.is_empty());
    let wrong = wrong.count();
    for outcome in &outcomes {
        match args.json {
            true => say(&format!("{}\n", escaped(&json!(outcome).to_string()))),
            false => say(&told(outcome)),
        }
    }
    if !args.json {
        say(&format!("{} examples, {wrong} wrong\n", outcomes.len()));
    }
    Ok(match wrong {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn escaped(json: &str) -> String {
    let mut out = String::new();
    line::escape_json(json, &mut out);
    out
}

/// An example in words: `ok    a full disk: file, pager (by route bad)`.
fn told(outcome: &Outcome) -> String {
    let to: Vec<String> = outcome
        .to
        .iter()
        .map(|reached| match &reached.route {
            Some(route) => format!("{} (by route {route})", reached.destination),
            None => reached.destination.clone(),
        })
        .collect();
    let to = match to.is_empty() {
        true => "nowhere".to_owned(),
        false => to.join(", "),
    };
    let word = match outcome.wrong.is_empty() {
        true => "ok   ",
        false => "WRONG",
    };
    let mut out = format!("{word}  ");
    line::escape(&outcome.example, &mut out);
    let _ = writeln!(out, ": {to}");
    for wrong in &outcome.wrong {
        out.push_str("         ");
        line::escape(wrong, &mut out);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use thinglog_router::routes::examples::Reached;

    use super::*;

    #[test]
    fn what_is_wrong_stands_below_its_example() {
        let outcome = Outcome {
            example: "a full\x1b disk".into(),
            to: vec![
                Reached {
                    destination: "file".into(),
                    route: None,
                    message: String::new(),
                    attributes: Default::default(),
                },
                Reached {
                    destination: "pager".into(),
                    route: Some("bad".into()),
                    message: String::new(),
                    attributes: Default::default(),
                },
            ],
            wrong: vec!["reaches pager by route bad".into()],
        };
        assert_eq!(
            told(&outcome),
            "WRONG  a full\\u{1b} disk: file, pager (by route bad)\n         reaches pager by route bad\n"
        );
        let nowhere = Outcome {
            to: Vec::new(),
            wrong: Vec::new(),
            ..outcome
        };
        assert_eq!(told(&nowhere), "ok     a full\\u{1b} disk: nowhere\n");
    }
}
