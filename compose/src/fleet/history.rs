//! `thinglog history` and `thinglog problems`: who changed what, and which documents cannot stand.

use std::{path::Path, process::ExitCode};

use serde_json::Value;

use super::{
    Session,
    cli::{History, Problems},
    table::{Cell, Style, Table},
    text, time,
};

pub(crate) fn history(config: Option<&Path>, args: &History) -> anyhow::Result<ExitCode> {
    let session = Session::new(config, &args.api)?;
    let subject = args.subject.as_ref().map(ToString::to_string);
    let subject = subject.as_deref().map(|subject| ("subject", subject));
    let query: Vec<_> = subject.into_iter().collect();
    let mut items = Vec::new();
    session.api.each(&["history"], &query, |item| {
        items.push(item);
        Ok(items.len() < args.limit as usize)
    })?;
    if session.json {
        items.iter().for_each(super::say_json);
    } else if items.is_empty() {
        eprintln!("no changes");
    } else {
        crate::say(&changes(&items, session.now).render(session.colour));
    }
    Ok(ExitCode::SUCCESS)
}

fn changes(items: &[Value], now: u64) -> Table {
    let mut table = Table::new(&["AT", "BY", "SUBJECT", "CHANGE"]);
    for item in items {
        table.row(vec![
            time(item, "at", now).into(),
            text(item, "by").into(),
            text(item, "subject").into(),
            text(item, "change").into(),
        ]);
    }
    table
}

/// Says below a list that there are documents which cannot stand. Who may not see them is not told.
pub(super) fn hint(session: &Session) {
    let problems = session.api.list(&["problems"], &[]).unwrap_or_default();
    if !session.json && !problems.is_empty() {
        let count = problems.len();
        eprintln!("documents that cannot stand: {count}; see thinglog problems");
    }
}

/// Exits with 1 when there are some, as checks do.
pub(crate) fn problems(config: Option<&Path>, args: &Problems) -> anyhow::Result<ExitCode> {
    let session = Session::new(config, &args.api)?;
    let problems = session.api.list(&["problems"], &[])?;
    if session.json {
        problems.iter().for_each(super::say_json);
    } else if problems.is_empty() {
        eprintln!("no problems: every document stands");
    } else {
        let mut table = Table::new(&["DOCUMENT", "COUNTS AS", "WHY"]);
        for problem in &problems {
            table.row(vec![
                Cell::styled(text(problem, "topic"), Style::Bad),
                match problem["last_good"].as_bool() {
                    Some(true) => "it was before".into(),
                    _ => "absent".into(),
                },
                text(problem, "reason").into(),
            ]);
        }
        crate::say(&table.render(session.colour));
    }
    Ok(match problems.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
