//! What a device's answers mean for who asked. Pure.

use serde_json::Value;
use thinglog_schemas::request::{Done, Progress, Response, State};

/// What to do about an answer.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    /// Nothing new.
    Nothing,
    /// Something for people.
    Told(String),
    /// Events to be printed.
    Events(Vec<Value>),
    /// It is over and all is there.
    Successful {
        /// For people.
        told: String,
        /// What was asked for, when that is no events.
        status: Option<Value>,
    },
    /// It is over, for this reason.
    Failed(String),
}

/// One conversation with a device.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// The device has answered at all.
    pub(super) begun: bool,
    /// The next chunk that was not seen yet.
    chunk: u64,
}

impl Talk {
    /// An answer came; after `Successful` or `Failed` none will.
    pub(super) fn hear(&mut self, response: Response) -> Heard {
        self.begun = true;
        match response.state {
            State::Init { ahead: 0 } => Heard::Told("the device took the request".into()),
            State::Init { ahead } => Heard::Told(format!(
                "the device took the request; {ahead} come before it"
            )),
            State::Executing(Progress { lines: 0, .. }) => Heard::Nothing,
            State::Executing(progress) => Heard::Told(format!("searching: {}", figures(progress))),
            // Sent again after a lost connection.
            State::Chunk { chunk, .. } if chunk < self.chunk => Heard::Nothing,
            State::Chunk { chunk, events } if chunk == self.chunk => {
                self.chunk += 1;
                Heard::Events(events)
            }
            State::Chunk { .. } => Heard::Failed(self.missing()),
            State::Successful(done) if !done.repeated && done.chunks > self.chunk => {
                Heard::Failed(self.missing())
            }
            State::Successful(done) => Heard::Successful {
                told: summary(&done),
                status: done.status,
            },
            State::Failed { reason, progress } => Heard::Failed(match progress.lines {
                0 => reason,
                _ => format!("{reason} ({})", figures(progress)),
            }),
        }
    }

    fn missing(&self) -> String {
        let chunk = self.chunk;
        format!("part {chunk} of the answer was lost on its way; ask again")
    }
}

fn figures(progress: Progress) -> String {
    let Progress {
        lines,
        matched,
        sent,
    } = progress;
    format!("{lines} lines read, {matched} found, {sent} sent")
}

fn summary(done: &Done) -> String {
    let mut text = match done.status {
        Some(_) => "done".to_owned(),
        None => format!("done: {}", figures(done.progress)),
    };
    match done.limited.as_deref() {
        Some("lines") => text.push_str("; the newest of them, ask for more with --lines"),
        Some("bytes") => text.push_str("; the oldest of them, go on with a later --from"),
        Some(other) => text.push_str(&format!("; limited by {other}")),
        None => {}
    }
    for note in &done.notes {
        text.push_str("; ");
        text.push_str(note);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn response(state: State) -> Response {
        Response {
            id: "r1".into(),
            time: "2026-01-02T03:04:05Z".into(),
            state,
        }
    }

    fn chunk(chunk: u64) -> Response {
        let events = vec![json!(chunk)];
        response(State::Chunk { chunk, events })
    }

    fn done(chunks: u64) -> Response {
        response(State::Successful(Done {
            chunks,
            limited: Some("lines".into()),
            notes: vec!["syslog: no such file".into()],
            ..Done::default()
        }))
    }

    #[test]
    fn chunks_are_taken_in_order_and_once() {
        let mut talk = Talk::default();
        talk.hear(response(State::Init { ahead: 0 }));
        assert!(talk.begun);
        assert_eq!(talk.hear(chunk(0)), Heard::Events(vec![json!(0)]));
        assert_eq!(talk.hear(chunk(0)), Heard::Nothing);
        assert_eq!(talk.hear(chunk(1)), Heard::Events(vec![json!(1)]));
        let Heard::Successful { told, .. } = talk.hear(done(2)) else {
            panic!("not done");
        };
        assert!(
            told.contains("--lines") && told.contains("no such file"),
            "{told}"
        );
    }

    #[test]
    fn a_part_that_is_missing_is_never_passed_over() {
        let mut talk = Talk::default();
        talk.hear(chunk(0));
        let Heard::Failed(reason) = talk.hear(chunk(2)) else {
            panic!("taken");
        };
        assert!(reason.contains("part 1"), "{reason}");
        assert!(matches!(talk.hear(done(2)), Heard::Failed(_)));
    }
}
