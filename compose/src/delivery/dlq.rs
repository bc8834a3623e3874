//! `thinglog dlq`: dead letters.

use std::{path::Path, process::ExitCode};

use serde_json::{Value, json};
use ureq::http::Method;

use super::cli::{Dlq, List, Show, Which};
use crate::fleet::{
    Session,
    table::{Cell, Fields, Style, Table, when},
};

/// Runs the command.
pub(crate) fn dlq(config: Option<&Path>, command: &Dlq) -> anyhow::Result<ExitCode> {
    match command {
        Dlq::List(args) => list(config, args)?,
        Dlq::Show(args) => show(config, args)?,
        Dlq::Replay(args) => return order(config, args, "replay"),
        Dlq::Drop(args) => return order(config, args, "drop"),
    }
    Ok(ExitCode::SUCCESS)
}

fn list(config: Option<&Path>, args: &List) -> anyhow::Result<()> {
    let session = Session::new(config, &args.api)?;
    match &args.destination {
        None => {
            let all = session.api.get(&["destinations"], &[])?;
            let items = all["items"].as_array().cloned().unwrap_or_default();
            let counted = items
                .iter()
                .filter(|item| item.get("dead_letters").is_some());
            let counted: Vec<Value> = counted
                .map(|item| {
                    json!({"destination": item["name"], "dead_letters": item["dead_letters"],
                           "lost": item["dead_letters_lost"]})
                })
                .collect();
            session.tell(&json!({"items": counted}), |session| {
                counts(&counted).render(session.colour)
            });
            Ok(())
        }
        Some(name) => session.tell_all(
            &["destinations", name, "dead-letters"],
            &[],
            "no dead letters",
            |session, items| letters(items, session.now).render(session.colour),
        ),
    }
}

fn counts(items: &[Value]) -> Table {
    let mut table = Table::new(&["DESTINATION", "DEAD LETTERS", "LOST"]);
    for item in items {
        let number = |field: &str| item[field].to_string();
        let lost = match item["lost"].as_u64() {
            Some(0) | None => Cell::default(),
            Some(lost) => Cell::styled(&lost.to_string(), Style::Bad),
        };
        table.row(vec![
            item["destination"].as_str().unwrap_or_default().into(),
            number("dead_letters").into(),
            lost,
        ]);
    }
    table
}

/// The first so many characters of a text.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn letters(items: &[Value], now: u64) -> Table {
    let mut table = Table::new(&["NUMBER", "REFUSED", "DEVICE", "SOURCE", "REASON", "MESSAGE"]);
    for item in items {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let event = &item["event"];
        table.row(vec![
            item["n"].to_string().into(),
            when(&text(&item["refused"]), now).into(),
            text(&event["device"]).into(),
            text(&event["source"]).into(),
            cut(&text(&item["reason"]), 60).into(),
            cut(&text(&event["message"]), 60).into(),
        ]);
    }
    table
}

fn show(config: Option<&Path>, args: &Show) -> anyhow::Result<()> {
    let session = Session::new(config, &args.api)?;
    let number = args.number.to_string();
    let path = ["destinations", &args.destination, "dead-letters", &number];
    let letter = session.api.get(&path, &[])?;
    session.tell(&letter, |session| {
        let title = format!("{} {number}", args.destination);
        let mut fields = Fields::of(&title);
        let text = |field: &str| letter[field].as_str().unwrap_or_default().to_owned();
        fields.add("refused", when(&text("refused"), session.now));
        fields.add("reason", text("reason"));
        for (name, field) in [
            ("id", "id"),
            ("device", "device"),
            ("source", "source"),
            ("level", "level"),
            ("time", "time"),
            ("message", "message"),
            ("attributes", "attributes"),
        ] {
            fields.add(
                name,
                match &letter["event"][field] {
                    Value::Null => String::new(),
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                },
            );
        }
        fields.render(session.colour)
    });
    Ok(())
}

fn order(config: Option<&Path>, args: &Which, what: &str) -> anyhow::Result<ExitCode> {
    let session = Session::new(config, &args.api)?;
    let body = match args.all {
        true => json!({"all": true}),
        false => json!({"letters": args.numbers}),
    };
    let path = ["destinations", &args.destination, "dead-letters", what];
    let done = session.api.change(Method::POST, &path, Some(&body))?;
    session.tell(&done, |_| told(&done));
    let failed = done.get("error").is_some() || done["refused"].as_u64().is_some_and(|n| n > 0);
    Ok(match failed {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

fn told(done: &Value) -> String {
    let number = |field: &str| done[field].as_u64().unwrap_or(0);
    if done["done"] != Value::Bool(true) {
        return format!(
            "{} letters are on their way and go on by themselves; thinglog dlq list shows what is left\n",
            number("asked")
        );
    }
    let mut out = String::new();
    for (field, word) in [
        ("dropped", "deleted"),
        ("accepted", "accepted"),
        ("refused", "refused again"),
    ] {
        if number(field) > 0 {
            out.push_str(&format!("{} {word}\n", number(field)));
        }
    }
    if let Some(error) = done["error"].as_str() {
        crate::line::escape(error, &mut out);
        out.push('\n');
    }
    match out.is_empty() {
        true => "there are no such letters\n".into(),
        false => out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_became_of_letters() {
        let done = json!({"asked": 3, "done": true, "dropped": 0, "accepted": 2, "refused": 1});
        assert_eq!(told(&done), "2 accepted\n1 refused again\n");
        let nothing = json!({"asked": 0, "done": true, "dropped": 0, "accepted": 0, "refused": 0});
        assert_eq!(told(&nothing), "there are no such letters\n");
        let waits = json!({"asked": 5, "done": false});
        assert!(told(&waits).starts_with("5 letters are on their way"));
    }

    #[test]
    fn what_devices_said_cannot_move_the_cursor() {
        let item = json!({"n": 7, "refused": "x", "reason": "400: \u{1b}[2J",
            "event": {"device": "a", "source": "b", "message": "x".repeat(100)}});
        let text = letters(&[item], 0).render(false);
        assert!(!text.contains('\u{1b}') && text.contains(&format!("{}…", "x".repeat(60))));
    }
}
