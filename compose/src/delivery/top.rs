//! `thinglog top`: rates, lag and retries of every destination, again and again.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, stdout},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::cli::Top;
use crate::{
    fleet::{
        Session,
        table::{Cell, Style, Table},
    },
    line, say,
};

/// Runs the command.
pub(crate) fn top(config: Option<&Path>, args: &Top) -> anyhow::Result<ExitCode> {
    let session = Session::new(config, &args.api)?;
    let is_screen = stdout().is_terminal() && !session.json;
    let every = Duration::from_secs(args.every);
    let mut before: Option<Look> = None;
    let mut looks = 0;
    loop {
        let look = Look::of(&session.api.get(&["destinations"], &[])?);
        let rows = look.rows(before.as_ref());
        match session.json {
            true => {
                let mut text = String::new();
                line::escape_json(&json!({"destinations": rows}).to_string(), &mut text);
                say(&format!("{text}\n"));
            }
            false => {
                // Home, the table, and away with what is left of the one before (ECMA-48 8.3.39).
                let (home, rest) = if is_screen {
                    ("\x1b[H\x1b[J", "")
                } else {
                    ("", "\n")
                };
                say(&format!(
                    "{home}{}{rest}",
                    table(&rows).render(session.colour)
                ));
            }
        }
        before = Some(look);
        looks += 1;
        if args.count.is_some_and(|count| looks >= count) {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(every);
    }
}

/// All destinations at one moment.
struct Look {
    at: Instant,
    destinations: BTreeMap<String, Value>,
}

impl Look {
    fn of(answer: &Value) -> Look {
        let items = answer["items"].as_array().into_iter().flatten();
        let named = |item: &Value| Some((item["name"].as_str()?.to_owned(), item.clone()));
        Look {
            at: Instant::now(),
            destinations: items.filter_map(named).collect(),
        }
    }

    /// What there is to say of each, with rates since `before`.
    fn rows(&self, before: Option<&Look>) -> Vec<Value> {
        let seconds = before.map(|before| (self.at - before.at).as_secs_f64());
        let mut rows = Vec::new();
        for (name, now) in &self.destinations {
            let was = before.and_then(|before| before.destinations.get(name));
            let rate = |pointer: &str| {
                let number = |of: &Value| of.pointer(pointer).and_then(Value::as_u64);
                let grown = number(now)?.checked_sub(number(was?)?)?;
                Some((grown as f64 / seconds?.max(0.001) * 10.0).round() / 10.0)
            };
            rows.push(json!({
                "name": name,
                "type": now["type"],
                "ready": now["ready"],
                "reason": now["reason"],
                "received_per_s": rate("/events/received"),
                "delivered_per_s": rate("/events/delivered"),
                "filtered_per_s": rate("/events/filtered"),
                "bytes_per_s": rate("/bytes"),
                "retries_per_s": rate("/retries"),
                "retries": now["retries"],
                "in_flight": now["events"]["in_flight"],
                "lag_ms": now["lag_ms"],
                "dead_letters": now["dead_letters"],
            }));
        }
        rows
    }
}

fn table(rows: &[Value]) -> Table {
    let mut table = Table::new(&[
        "DESTINATION",
        "TYPE",
        "IN/S",
        "OUT/S",
        "FILTERED/S",
        "BYTES/S",
        "IN HAND",
        "LAG",
        "RETRIES",
        "DEAD",
        "STATE",
    ]);
    for row in rows {
        let text = |field: &str| row[field].as_str().unwrap_or_default();
        let number = |field: &str| row[field].as_f64().map_or(String::new(), short);
        let state = match row["ready"].as_bool() {
            Some(true) => Cell::styled("ok", Style::Good),
            _ => Cell::styled(text("reason"), Style::Bad),
        };
        table.row(vec![
            text("name").into(),
            text("type").into(),
            number("received_per_s").into(),
            number("delivered_per_s").into(),
            number("filtered_per_s").into(),
            number("bytes_per_s").into(),
            number("in_flight").into(),
            lag(row["lag_ms"].as_u64().unwrap_or(0)).into(),
            number("retries").into(),
            number("dead_letters").into(),
            state,
        ]);
    }
    table
}

/// A number in four characters or so: `950`, `12.3k`, `4.5M`.
fn short(number: f64) -> String {
    match number {
        n if n < 1000.0 => format!("{n:.0}"),
        n if n < 1e6 => format!("{:.1}k", n / 1e3),
        n if n < 1e9 => format!("{:.1}M", n / 1e6),
        n => format!("{:.1}G", n / 1e9),
    }
}

fn lag(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..120_000 => format!("{} s", ms / 1000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: Instant, delivered: u64, lag_ms: u64) -> Look {
        let answer = json!({"items": [{"name": "hook", "type": "webhook", "ready": delivered > 0,
            "reason": "503\u{1b}[2J", "events": {"received": delivered, "delivered": delivered,
            "filtered": 0, "in_flight": 12_345}, "bytes": 0, "retries": 3, "lag_ms": lag_ms,
            "dead_letters": 2}]});
        Look {
            at,
            ..Look::of(&answer)
        }
    }

    #[test]
    fn rates_are_of_the_time_between_looks() {
        let at = Instant::now();
        let rows = look(at + Duration::from_secs(2), 3000, 0).rows(Some(&look(at, 1000, 0)));
        assert_eq!(rows[0]["delivered_per_s"], 1000.0);
        let first = look(at, 3000, 0).rows(None);
        assert_eq!(
            first[0]["delivered_per_s"],
            Value::Null,
            "one look has no rate"
        );
        // A router that was started again counts from nothing.
        let again = look(at + Duration::from_secs(1), 10, 0).rows(Some(&look(at, 3000, 0)));
        assert_eq!(again[0]["delivered_per_s"], Value::Null);
    }

    #[test]
    fn a_table_is_short_and_safe() {
        let at = Instant::now();
        let rows = look(at, 0, 125_000).rows(None);
        let text = table(&rows).render(false);
        assert!(text.contains("12.3k") && text.contains("2 min"), "{text}");
        assert!(!text.contains('\u{1b}') && text.contains("503"), "{text}");
        assert_eq!(
            (short(999.0), short(4_500_000.0)),
            ("999".into(), "4.5M".into())
        );
    }
}
