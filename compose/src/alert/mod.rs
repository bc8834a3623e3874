//! `thinglog alert`: rules and their open alerts, over the router's HTTP interface; and examples of events
//! through the configured rules, with nothing running.

pub(crate) mod cli;

use std::{path::Path, process::ExitCode};

use cli::{Alert, List};
use serde_json::Value;
use thinglog_router::alerts::examples::{Outcome, run};

use crate::{
    examples::{self, Tried},
    fleet::{
        Session,
        table::{Cell, Style, Table, when},
    },
    line,
};

/// Runs the command.
pub(crate) fn alert(config: Option<&Path>, command: &Alert) -> anyhow::Result<ExitCode> {
    match command {
        Alert::List(args) => list(config, args),
        Alert::Test(args) => examples::test(config, &args.file, args.json, run),
    }
}

fn list(config: Option<&Path>, args: &List) -> anyhow::Result<ExitCode> {
    let session = Session::new(config, &args.api)?;
    session.tell_all(&["alerts"], &[], "no rules", |session, rules| {
        let mut out = rules_of(rules).render(session.colour);
        let open = open_of(rules, session.now);
        if rules.iter().any(|rule| rule["open"].as_u64() > Some(0)) {
            out.push('\n');
            out.push_str(&open.render(session.colour));
        }
        out
    })?;
    Ok(ExitCode::SUCCESS)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn rules_of(rules: &[Value]) -> Table {
    let mut table = Table::new(&["RULE", "WHEN", "OPENS", "BY", "TO", "OPEN"]);
    for rule in rules {
        let to = rule["to"].as_array().into_iter().flatten();
        let to: Vec<String> = to.map(text).collect();
        let open = match rule["open"].as_u64() {
            Some(0) | None => Cell::from("0"),
            Some(open) => Cell::styled(&open.to_string(), Style::Bad),
        };
        table.row(vec![
            text(&rule["rule"]).into(),
            text(&rule["when"]).into(),
            text(&rule["opens"]).into(),
            text(&rule["by"]).into(),
            to.join(", ").into(),
            open,
        ]);
    }
    table
}

fn open_of(rules: &[Value], now: u64) -> Table {
    let mut table = Table::new(&["OPEN ALERT", "OF", "SINCE", "LAST", "EVENTS"]);
    for rule in rules {
        for alert in rule["alerts"].as_array().into_iter().flatten() {
            let of = ["device", "group"]
                .iter()
                .find_map(|key| alert[*key].as_str());
            table.row(vec![
                text(&rule["rule"]).into(),
                of.unwrap_or("the fleet").to_owned().into(),
                when(&text(&alert["starts"]), now).into(),
                when(&text(&alert["last"]), now).into(),
                alert["count"].to_string().into(),
            ]);
        }
    }
    table
}

impl Tried for Outcome {
    fn wrong(&self) -> &[String] {
        &self.wrong
    }

    fn told(&self) -> String {
        told(self)
    }
}

/// An example in words, with its notifications and what is wrong below it.
fn told(outcome: &Outcome) -> String {
    let word = match outcome.wrong.is_empty() {
        true => "ok   ",
        false => "WRONG",
    };
    let mut out = format!("{word}  ");
    line::escape(&outcome.example, &mut out);
    out.push('\n');
    let told = outcome.told.iter().map(|told| told.brief());
    let wrong = outcome.wrong.iter().map(|wrong| format!("wrong: {wrong}"));
    for text in told.chain(wrong) {
        out.push_str("         ");
        line::escape(&text, &mut out);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_devices_said_cannot_move_the_cursor() {
        let rules = [
            json!({"rule": "full", "open": 1, "to": ["mqtt", "pager"], "alerts": [
            {"device": "\u{1b}[2J", "starts": "x", "last": "y", "count": 7}]}),
        ];
        let text = open_of(&rules, 0).render(false) + &rules_of(&rules).render(false);
        assert!(
            !text.contains('\u{1b}') && text.contains("mqtt, pager"),
            "{text}"
        );
    }

    #[test]
    fn what_is_wrong_stands_below_its_example() {
        let outcome = Outcome {
            example: "few".into(),
            told: Vec::new(),
            wrong: vec!["notification 1 of many is not made".into()],
        };
        let expected = "WRONG  few\n         wrong: notification 1 of many is not made\n";
        assert_eq!(told(&outcome), expected);
    }
}
