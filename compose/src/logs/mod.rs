//! `thinglog logs`: what was logged, from the router's store.

pub(crate) mod cli;

use std::{path::Path, process::ExitCode, thread, time::Duration};

use jiff::tz::TimeZone;
use ureq::http::Method;

use crate::{fleet::Session, line, say};
use cli::{Clear, Search};

/// Lines unless told, and with `--follow`.
const USUAL: usize = 100;
const BEFORE: usize = 10;
/// Events of a page, the most there can be.
const PAGE: usize = 1000;
/// Until a connection that broke is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Searches.
pub(crate) fn search(config: Option<&Path>, args: &Search) -> anyhow::Result<ExitCode> {
    let session = Session::new(config, &args.api)?;
    let printer = Printer {
        json: session.json,
        colour: session.colour,
        zone: args.local.then(TimeZone::system),
    };
    let query = query(args);
    let query: Vec<(&str, &str)> = query.iter().map(|(key, value)| (*key, &**value)).collect();
    if args.all {
        session
            .api
            .lines(&["logs", "download"], &query, None, |text| {
                printer.print(text);
                true
            })?;
    } else if args.follow {
        follow(&session, &query, &printer, args.lines.unwrap_or(BEFORE))?;
    } else {
        newest(&session, &query, &printer, args.lines.unwrap_or(USUAL))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Forgets what a device has logged.
pub(crate) fn clear(config: Option<&Path>, args: &Clear) -> anyhow::Result<ExitCode> {
    let session = Session::new(config, &args.api)?;
    let path = ["devices", &args.device, "logs"];
    session.api.change(Method::DELETE, &path, None)?;
    if !session.json {
        eprintln!("forgot what {} had logged", args.device);
    }
    Ok(ExitCode::SUCCESS)
}

/// The parameters of a request.
fn query(args: &Search) -> Vec<(&'static str, String)> {
    let names = |names: &[String]| (!names.is_empty()).then(|| names.join(","));
    let all = [
        ("device", names(&args.device)),
        ("group", names(&args.group)),
        ("source", names(&args.source)),
        ("level", args.level.map(|level| level.name().to_owned())),
        ("since", args.since.clone()),
        ("until", args.until.clone()),
        ("grep", args.grep.clone()),
        ("filter", args.filter.clone()),
        ("store", args.store.clone()),
    ];
    all.into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
}

/// The newest events, the oldest of them first.
fn newest(
    session: &Session,
    query: &[(&str, &str)],
    printer: &Printer,
    count: usize,
) -> anyhow::Result<()> {
    let mut items = Vec::new();
    let page = count.clamp(1, PAGE).to_string();
    let mut query = query.to_vec();
    query.push(("limit", &page));
    session.api.each(&["logs"], &query, |item| {
        items.push(item);
        Ok(items.len() < count)
    })?;
    items.truncate(count);
    if items.is_empty() && !session.json {
        eprintln!("nothing found");
    }
    items
        .iter()
        .rev()
        .for_each(|item| printer.print(&item.to_string()));
    Ok(())
}

/// What a stream of server-sent events has told so far.
#[derive(Default)]
struct Heard {
    /// Of the last message.
    id: Option<String>,
    event: String,
    failure: Option<String>,
}

impl Heard {
    /// Takes a line; gives an event that was told.
    fn line<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        if text.is_empty() {
            self.event.clear();
        } else if let Some(id) = text.strip_prefix("id: ") {
            self.id = Some(id.to_owned());
        } else if let Some(event) = text.strip_prefix("event: ") {
            self.event = event.to_owned();
        } else if let Some(data) = text.strip_prefix("data: ") {
            match self.event.as_str() {
                "" => return Some(data),
                "failure" => self.failure = Some(data.to_owned()),
                _ => {}
            }
        }
        None
    }
}

/// Goes on with what comes until somebody ends it; a connection that breaks is taken up again.
fn follow(
    session: &Session,
    query: &[(&str, &str)],
    printer: &Printer,
    before: usize,
) -> anyhow::Result<()> {
    let before = before.to_string();
    let mut query = query.to_vec();
    query.push(("history", &before));
    let mut heard = Heard::default();
    loop {
        let last = heard.id.clone();
        let was_connected = last.is_some();
        let done = session
            .api
            .lines(&["logs", "tail"], &query, last.as_deref(), |text| {
                if let Some(event) = heard.line(text) {
                    printer.print(event);
                }
                if let Some(failure) = heard.failure.take() {
                    eprintln!("the store: {failure}; trying again");
                }
                true
            });
        match done {
            Err(error) if !was_connected && heard.id.is_none() => return Err(error),
            Err(error) => eprintln!("{error:#}; trying again"),
            Ok(()) => {}
        }
        thread::sleep(AGAIN_AFTER);
    }
}

/// How events are shown.
struct Printer {
    json: bool,
    colour: bool,
    zone: Option<TimeZone>,
}

impl Printer {
    fn print(&self, text: &str) {
        let zone = self.zone.as_ref();
        say(&line::of_json(text, self.json, self.colour, zone));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_of_server_sent_events_is_understood() {
        let mut heard = Heard::default();
        let told: Vec<&str> = "data: {\"a\":1}\n\nid: 7\nevent: history\ndata: end\n\n: here\n\nid: 8\ndata: {\"b\":2}\n\nevent: failure\ndata: {\"code\":\"x\"}\n"
            .lines()
            .filter_map(|line| heard.line(line))
            .collect();
        assert_eq!(told, ["{\"a\":1}", "{\"b\":2}"]);
        assert_eq!(heard.id.as_deref(), Some("8"));
        assert_eq!(heard.failure.as_deref(), Some("{\"code\":\"x\"}"));
    }
}
