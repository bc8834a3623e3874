//! `thinglog route test`: examples through the configured routes, nothing else.

use std::{fmt::Write, path::Path, process::ExitCode};

use thinglog_router::routes::examples::{Outcome, run};

use super::cli::Route;
use crate::{
    examples::{self, Tried},
    line,
};

/// Runs the command.
pub(crate) fn route(config: Option<&Path>, command: &Route) -> anyhow::Result<ExitCode> {
    let Route::Test(args) = command;
    examples::test(config, &args.file, args.json, run)
}

impl Tried for Outcome {
    fn wrong(&self) -> &[String] {
        &self.wrong
    }

    fn told(&self) -> String {
        told(self)
    }
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
