//! `thinglog level explain`: the rule that decides, then every rule in the order in which they are
//! asked, and why it does not; the device's settings, and the documents about it that cannot stand.

use anyhow::Context;
use thinglog_schemas::{
    name,
    resolve::{Explanation, Outcome, Rule, RuleKind, Setting},
};

use super::{
    Session,
    cli::Explain,
    table::{Cell, Style, Table, when},
};

pub(super) fn explain(session: &Session, args: &Explain) -> anyhow::Result<()> {
    let device = name::encode(&args.device);
    let source = args.source.as_deref().map(name::encode);
    let mut query = vec![("device", &*device)];
    query.extend(source.as_deref().map(|source| ("source", source)));
    query.extend(args.principal.as_deref().map(|name| ("principal", name)));
    query.extend(args.address.as_deref().map(|address| ("address", address)));
    query.extend(args.at.as_deref().map(|time| ("time", time)));
    let answer = session.api.get(&["explain"], &query)?;
    let explained: Explanation = serde_json::from_value(answer.clone())
        .context("the router explains in words that this version does not know")?;
    session.tell(&answer, |session| {
        render(&explained, session.colour, session.now)
    });
    Ok(())
}

fn render(explained: &Explanation, colour: bool, now: u64) -> String {
    let source = match &explained.source {
        Some(source) => format!(" {source}"),
        None => String::new(),
    };
    let mut out = String::new();
    Cell::styled(&format!("{}{source}", explained.device), Style::Strong).write(colour, &mut out);
    out.push_str(": ");
    Cell::level(explained.level.name()).write(colour, &mut out);
    out.push_str("\n  ");
    Cell::from(explained.why.as_str()).write(colour, &mut out);
    out.push_str("\n\n");
    let mut table = Table::new(&["", "RULE", "LEVEL", "UNTIL", "WHY", "BY"]);
    for rule in &explained.rules {
        table.row(row(rule, now));
    }
    out.push_str(&table.render(colour));
    if !explained.settings.is_empty() {
        out.push('\n');
        out.push_str(&settings(&explained.settings).render(colour));
    }
    if !explained.problems.is_empty() {
        out.push_str("\ncannot stand, and change nothing:\n");
        let mut table = Table::new(&["  DOCUMENT", "WHY"]);
        for problem in &explained.problems {
            let topic = Cell::styled(&format!("  {}", problem.topic), Style::Bad);
            table.row(vec![topic, problem.reason.as_str().into()]);
        }
        out.push_str(&table.render(colour));
    }
    out
}

fn settings(settings: &[Setting]) -> Table {
    let mut table = Table::new(&["SETTING", "VALUE", "SAID BY"]);
    for setting in settings {
        let value = match &setting.value {
            serde_json::Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        table.row(vec![
            setting.name.as_str().into(),
            value.into(),
            setting.topic.as_str().into(),
        ]);
    }
    table
}

fn row(rule: &Rule, now: u64) -> Vec<Cell> {
    let won = rule.outcome == Outcome::Won;
    let style = match rule.outcome {
        Outcome::Won => Style::Strong,
        Outcome::Absent | Outcome::Unknown => Style::Faint,
        _ => Style::Plain,
    };
    let level = rule.level.map(|level| Cell::level(level.name()));
    let until = rule.until.as_deref().map(|until| when(until, now));
    vec![
        Cell::styled(if won { "=>" } else { "" }, Style::Good),
        Cell::styled(&what(rule), style),
        level.unwrap_or_default(),
        until.unwrap_or_default().into(),
        Cell::styled(&rule.why, style),
        Cell::styled(rule.by.as_deref().unwrap_or_default(), Style::Faint),
    ]
}

/// The rule as targets are typed: `group:eu`, `override group:eu`.
fn what(rule: &Rule) -> String {
    let topic = rule.topic.as_deref().unwrap_or_default();
    let name = topic.rsplit('/').next().unwrap_or_default();
    let named = |kind: &str| match name {
        "" => kind.to_owned(),
        name => format!("{kind}:{name}"),
    };
    match rule.kind {
        RuleKind::Disabled => "all logs off".into(),
        RuleKind::OverrideDevice => named("override device"),
        RuleKind::OverrideGroup => named("override group"),
        RuleKind::OverrideDefault => "override default".into(),
        RuleKind::Device => named("device"),
        RuleKind::Principal => named("principal"),
        RuleKind::SourceIp => named("ip"),
        RuleKind::Group => named("group"),
        RuleKind::Source => named("source"),
        RuleKind::Default => "default".into(),
        RuleKind::BuiltIn => "built in".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_stands_first_and_then_every_rule_with_its_reason() {
        let explained: Explanation = serde_json::from_value(serde_json::json!({
            "device": "lamp-7", "source": "nginx", "time": "2026-01-02T03:04:05Z",
            "level": "DEBUG", "why": "the override of group eu decides",
            "rules": [
                {"kind": "disabled", "topic": "config/default", "outcome": "absent", "why": "logs are on"},
                {"kind": "override-group", "topic": "config/override/group/eu", "level": "DEBUG",
                    "until": "2026-01-02T03:18:05Z", "by": "alice", "outcome": "won", "why": "it runs"},
                {"kind": "default", "topic": "config/default", "level": "WARN", "outcome": "outranked",
                    "why": "an override comes first"},
            ],
            "settings": [{"name": "upload.mode", "value": "manual", "topic": "config/group/eu"},
                {"name": "upload.flush_ms", "value": 50, "topic": "config/default"}],
            "problems": [{"topic": "config/member/us/lamp-7", "reason": "in eu already", "fault": "conflict",
                "last_good": false}],
        }))
        .unwrap();
        let now = 1_767_323_045_000_000_000;
        let expected = "\
lamp-7 nginx: DEBUG
  the override of group eu decides

    RULE               LEVEL  UNTIL                             WHY                      BY
    all logs off                                                logs are on
=>  override group:eu  DEBUG  2026-01-02 03:18:05Z (in 14 min)  it runs                  alice
    default            WARN                                     an override comes first

SETTING          VALUE   SAID BY
upload.mode      manual  config/group/eu
upload.flush_ms  50      config/default

cannot stand, and change nothing:
  DOCUMENT                 WHY
  config/member/us/lamp-7  in eu already
";
        assert_eq!(render(&explained, false, now), expected);
    }
}
