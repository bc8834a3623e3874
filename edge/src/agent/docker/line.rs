//! Entries of a container's log to records: what the engine cut is joined again, and every record
//! knows the place after it. Pure.

use std::time::Instant;

use serde_json::Value;
use thinglog_schemas::{batch::MAX_MESSAGE, name};

use super::{
    DockerOptions, NameFrom,
    engine::Container,
    frames::{Entry, Output},
    place::{Place, Resume},
};
use crate::{
    Record,
    agent::{
        joiner::Joiner as Lines, lines::Line, multiline::MultilineOptions, recognise::Recogniser,
    },
};

/// A container's own clock is the engine's, but it may count in another zone without saying so: a
/// time that is farther away than this is not believed.
const NEAR: u64 = 5 * 60 * 1_000_000_000;
/// The label by which Docker Compose names a service.
const SERVICE: &str = "com.docker.compose.service";
/// The label by which a container says how its lines are joined: a preset, or `none`.
const MULTILINE: &str = "thinglog.multiline";
/// Of an id, as the engine's tools show it.
const SHORT_ID: usize = 12;

/// A record and the place after it.
pub(super) type Placed = (Record, Place);

/// What one output of a container says.
struct Side {
    output: Output,
    stream: &'static str,
    recogniser: Recogniser,
    /// The line that is not complete yet, and the time of its first part.
    text: Vec<u8>,
    time: Option<u64>,
    truncated: bool,
    /// Lines of one event, and the time of the first and the place after the last of them.
    lines: Option<Lines>,
    held_time: Option<u64>,
    held_place: Place,
}

impl Side {
    /// The line is complete; `each` gets the event it ended, with its time and, where that is not
    /// the place after this line, its place.
    fn end(&mut self, read: Place, now: Instant, each: &mut impl FnMut(Record, Option<Place>)) {
        let text = std::mem::take(&mut self.text);
        let (time, truncated) = (self.time.take(), std::mem::take(&mut self.truncated));
        let line = Line {
            bytes: &text,
            truncated,
        };
        let Side {
            recogniser,
            held_time,
            held_place,
            ..
        } = self;
        let Some(lines) = &mut self.lines else {
            if !text.is_empty() {
                each(timed(recogniser.record(line), time), None);
            }
            return;
        };
        let before = *held_place;
        let mut given = !lines.is_holding();
        lines.push(line, 0, now, &mut |line, _| {
            given = true;
            each(timed(recogniser.record(line), *held_time), Some(before));
        });
        if !text.is_empty() {
            *held_place = read;
            if given {
                *held_time = time;
            }
        }
    }

    /// What is held is complete.
    fn flush(&mut self, each: &mut impl FnMut(Record, Option<Place>)) {
        let Side {
            recogniser,
            held_time,
            held_place,
            ..
        } = self;
        if let Some(lines) = &mut self.lines {
            lines.flush(&mut |line, _| {
                each(
                    timed(recogniser.record(line), *held_time),
                    Some(*held_place),
                );
            });
        }
    }

    fn is_holding(&self) -> bool {
        self.lines.as_ref().is_some_and(Lines::is_holding)
    }

    fn due(&self) -> Option<Instant> {
        self.lines.as_ref()?.due()
    }
}

fn timed(mut record: Record, time: Option<u64>) -> Record {
    record.time = nearer(record.time, time);
    record
}

/// Makes records of one container's entries.
pub(super) struct Joiner {
    source: String,
    attributes: Vec<(String, Value)>,
    sides: [Side; 2],
    resume: Resume,
    /// After all entries that came.
    read: Place,
    /// After everything that was given out.
    place: Place,
}

impl Joiner {
    /// Goes on at `place`.
    pub(super) fn new(options: &DockerOptions, container: &Container, place: Place) -> Joiner {
        let source = source(options, container);
        let multiline = multiline(options, container);
        let side = |output, stream, severity| Side {
            output,
            stream,
            recogniser: Recogniser::new(&source, severity).reading(options.line_options()),
            text: Vec::new(),
            time: None,
            truncated: false,
            lines: multiline.as_ref().map(Lines::new),
            held_time: None,
            held_place: place,
        };
        Joiner {
            sides: [
                side(Output::Stdout, "stdout", thinglog_schemas::Severity::INFO),
                side(Output::Stderr, "stderr", options.stderr),
            ],
            attributes: attributes(options, container, &source),
            source,
            resume: Resume::at(place),
            read: place,
            place,
        }
    }

    /// The source of its records.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Takes an entry; gives a record when an event ends with it.
    pub(super) fn take(&mut self, entry: Entry<'_>, now: Instant, out: &mut Vec<Placed>) {
        if let Some(time) = entry.time {
            if !self.resume.is_new(entry.output, time) {
                return;
            }
            self.read.pass(entry.output, time);
        }
        let side = &mut self.sides[usize::from(entry.output == Output::Stderr)];
        let room = MAX_MESSAGE.saturating_sub(side.text.len());
        let kept = entry.text.len().min(room);
        side.text.extend_from_slice(&entry.text[..kept]);
        side.truncated |= entry.truncated || kept < entry.text.len();
        side.time = side.time.or(entry.time);
        if entry.ends {
            self.end(entry.output, now, out);
        }
    }

    /// The container ended: what it wrote last is a line as well.
    pub(super) fn finish(&mut self, now: Instant, out: &mut Vec<Placed>) {
        for output in [Output::Stdout, Output::Stderr] {
            self.end(output, now, out);
        }
        self.flush(out, |_| true);
    }

    /// When [`poll`](Joiner::poll) has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.sides.iter().filter_map(Side::due).min()
    }

    /// Gives out what has been held long enough.
    pub(super) fn poll(&mut self, now: Instant, out: &mut Vec<Placed>) {
        self.flush(out, |side| side.due().is_some_and(|due| due <= now));
    }

    fn flush(&mut self, out: &mut Vec<Placed>, which: impl Fn(&Side) -> bool) {
        for side in self.sides.iter_mut().filter(|side| which(side)) {
            let (place, output, stream) = (&mut self.place, side.output, side.stream);
            let attributes = &self.attributes;
            side.flush(&mut |record, after| {
                place.follow(output, after.unwrap_or(*place));
                out.push((dressed(record, stream, attributes), *place));
            });
        }
    }

    fn end(&mut self, output: Output, now: Instant, out: &mut Vec<Placed>) {
        let side = &mut self.sides[usize::from(output == Output::Stderr)];
        let (place, stream, read) = (&mut self.place, side.stream, self.read);
        let attributes = &self.attributes;
        side.end(read, now, &mut |record, after| {
            place.follow(output, after.unwrap_or(read));
            out.push((dressed(record, stream, attributes), *place));
        });
        if !side.is_holding() {
            place.follow(output, read);
        }
    }
}

fn dressed(mut record: Record, stream: &str, attributes: &[(String, Value)]) -> Record {
    let own = [("stream".to_owned(), stream.into())];
    for (key, value) in own.into_iter().chain(attributes.iter().cloned()) {
        record.attributes.entry(key).or_insert(value);
    }
    record
}

/// How the lines of a container are joined: as its label says, else as configured.
fn multiline(options: &DockerOptions, container: &Container) -> Option<MultilineOptions> {
    let labels = container.config.labels.as_ref();
    let label = labels.and_then(|labels| labels.get(MULTILINE));
    match label.map(String::as_str) {
        None => options.multiline.clone(),
        Some("none") => None,
        Some(preset) => match preset.parse() {
            Ok(multiline) => Some(multiline),
            Err(error) => {
                let name = name_of(container);
                tracing::warn!(%name, "label {MULTILINE}: {error}");
                options.multiline.clone()
            }
        },
    }
}

/// The time a line says, unless the engine received it at quite another.
fn nearer(said: Option<u64>, received: Option<u64>) -> Option<u64> {
    match (said, received) {
        (Some(said), Some(received)) if said.abs_diff(received) > NEAR => Some(received),
        (said, received) => said.or(received),
    }
}

/// Its name without the slash.
pub(super) fn name_of(container: &Container) -> &str {
    container.name.trim_start_matches('/')
}

fn source(options: &DockerOptions, container: &Container) -> String {
    let labels = container.config.labels.as_ref();
    let service = labels.and_then(|labels| labels.get(SERVICE));
    let service = service.filter(|_| options.source_from == NameFrom::Service);
    let own = service.map_or(name_of(container), |service| service.as_str());
    let source = options.source.as_deref().unwrap_or(own);
    name::encode(source).into_owned()
}

fn attributes(
    options: &DockerOptions,
    container: &Container,
    source: &str,
) -> Vec<(String, Value)> {
    let mut attributes: Vec<(String, Value)> = Vec::new();
    let name = name_of(container);
    if name != source {
        attributes.push(("container.name".into(), name.into()));
    }
    let id = container.id.get(..SHORT_ID).unwrap_or(&container.id);
    attributes.push(("container.id".into(), id.into()));
    attributes.push(("container.image".into(), (&*container.config.image).into()));
    let labels = container.config.labels.as_ref();
    for key in &options.labels {
        if let Some(value) = labels.and_then(|labels| labels.get(key)) {
            attributes.push((format!("container.label.{key}"), value.as_str().into()));
        }
    }
    attributes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use thinglog_schemas::{Severity, json::parse_time};

    use super::{
        super::engine::{ContainerConfig, ContainerState},
        *,
    };

    fn container() -> Container {
        let labels = [(SERVICE, "pump"), ("site", "north"), ("other", "x")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Container {
            id: "0123456789abcdef".into(),
            name: "/plant-pump-1".into(),
            config: ContainerConfig {
                tty: false,
                image: "pump:2".into(),
                labels: Some(BTreeMap::from(labels)),
            },
            state: ContainerState { running: true },
        }
    }

    fn at() -> u64 {
        parse_time("2026-11-21T10:00:00Z").unwrap()
    }

    fn entry(output: Output, text: &str, ends: bool) -> Entry<'_> {
        Entry {
            output,
            time: Some(at()),
            text: text.as_bytes(),
            ends,
            truncated: false,
        }
    }

    fn joiner(options: &DockerOptions) -> Joiner {
        Joiner::new(options, &container(), Place::default())
    }

    impl Joiner {
        /// Takes an entry that ends one event at most.
        fn give(&mut self, entry: Entry<'_>) -> Option<Placed> {
            let mut out = Vec::new();
            self.take(entry, crate::clock::mono(), &mut out);
            assert!(out.len() <= 1);
            out.pop()
        }

        fn rest(&mut self) -> Vec<Placed> {
            let mut out = Vec::new();
            self.finish(crate::clock::mono(), &mut out);
            out
        }
    }

    #[test]
    fn a_line_says_which_container_it_is_of() {
        let options = DockerOptions {
            labels: vec!["site".into(), "missing".into()],
            ..DockerOptions::default()
        };
        let (record, _) = joiner(&options)
            .give(entry(Output::Stderr, "hot", true))
            .unwrap();
        assert_eq!((&*record.source, &*record.message), ("pump", "hot"));
        assert_eq!((record.severity, record.time), (Severity::INFO, Some(at())));
        let expected = json!({
            "stream": "stderr", "container.name": "plant-pump-1", "container.id": "0123456789ab",
            "container.image": "pump:2", "container.label.site": "north",
        });
        assert_eq!(Value::Object(record.attributes), expected);
    }

    #[test]
    fn the_source_may_be_the_name_or_the_same_for_all() {
        let mut options = DockerOptions {
            source_from: NameFrom::Name,
            stderr: Severity::ERROR,
            ..DockerOptions::default()
        };
        let (record, _) = joiner(&options)
            .give(entry(Output::Stderr, "hot", true))
            .unwrap();
        assert_eq!(
            (&*record.source, record.severity),
            ("plant-pump-1", Severity::ERROR)
        );
        assert!(!record.attributes.contains_key("container.name"));
        options.source = Some("containers".into());
        let (record, _) = joiner(&options)
            .give(entry(Output::Stdout, "hot", true))
            .unwrap();
        assert_eq!(
            (&*record.source, record.severity),
            ("containers", Severity::INFO)
        );
    }

    #[test]
    fn what_the_engine_cut_is_joined_and_its_place_is_behind_the_last_part() {
        let mut joiner = joiner(&DockerOptions::default());
        assert!(joiner.give(entry(Output::Stdout, "one ", false)).is_none());
        let (other, between) = joiner.give(entry(Output::Stderr, "other", true)).unwrap();
        assert_eq!(other.message, "other");
        let (record, after) = joiner.give(entry(Output::Stdout, "line", true)).unwrap();
        assert_eq!(record.message, "one line");
        // Going on between them, the first part is read again.
        let mut again = Joiner::new(&DockerOptions::default(), &container(), between);
        assert!(again.give(entry(Output::Stdout, "one ", false)).is_none());
        assert!(again.give(entry(Output::Stderr, "other", true)).is_none());
        let (record, place) = again.give(entry(Output::Stdout, "line", true)).unwrap();
        assert_eq!((&*record.message, place), ("one line", after));
    }

    #[test]
    fn what_a_container_wrote_last_needs_no_newline() {
        let mut joiner = joiner(&DockerOptions::default());
        assert!(joiner.give(entry(Output::Stdout, "bye", false)).is_none());
        let last = joiner.rest();
        assert_eq!(last.len(), 1);
        assert_eq!(last[0].0.message, "bye");
        assert_eq!(joiner.rest().len(), 0);
    }

    #[test]
    fn lines_that_belong_together_are_one_event_of_their_output_and_its_place_is_behind_them() {
        let options = DockerOptions {
            multiline: Some("python".parse().unwrap()),
            ..DockerOptions::default()
        };
        let mut joiner = joiner(&options);
        let at = |n: u64| at() + n;
        let timed = |output, n: u64, text: &'static str| Entry {
            time: Some(at(n)),
            ..entry(output, text, true)
        };
        let log = [
            timed(Output::Stderr, 0, "ERROR it failed"),
            timed(Output::Stderr, 1, "Traceback (most recent call last):"),
            timed(Output::Stdout, 2, "meanwhile"),
            timed(Output::Stderr, 3, "  File \"a.py\", line 1"),
            timed(Output::Stderr, 4, "KeyError: 'x'"),
            timed(Output::Stdout, 5, "next"),
            timed(Output::Stderr, 6, "INFO well again"),
        ];
        let mut given = Vec::new();
        for entry in log {
            given.extend(joiner.give(entry));
        }
        given.extend(joiner.rest());
        let trace = "ERROR it failed\nTraceback (most recent call last):\n  File \"a.py\", line 1\nKeyError: 'x'";
        let messages: Vec<&str> = given.iter().map(|(record, _)| &*record.message).collect();
        assert_eq!(messages, ["meanwhile", trace, "next", "INFO well again"]);
        assert_eq!(
            (given[1].0.time, given[1].0.severity),
            (Some(at(0)), Severity::ERROR)
        );
        // Going on after any of them gives the others again, whole.
        for upto in 0..given.len() {
            let mut again = Joiner::new(&options, &container(), given[upto].1);
            let mut rest = Vec::new();
            for entry in log {
                rest.extend(again.give(entry));
            }
            rest.extend(again.rest());
            let rest: Vec<&str> = rest.iter().map(|(record, _)| &*record.message).collect();
            assert_eq!(rest, messages[upto + 1..]);
        }
    }

    #[test]
    fn a_label_says_how_the_lines_of_a_container_are_joined() {
        let joined = |label: Option<&str>| {
            let mut container = container();
            let labels = container.config.labels.as_mut().unwrap();
            labels.extend(label.map(|preset| (MULTILINE.to_owned(), preset.to_owned())));
            let options = DockerOptions {
                multiline: Some("java".parse().unwrap()),
                ..DockerOptions::default()
            };
            multiline(&options, &container).map(|found| found == "java".parse().unwrap())
        };
        assert_eq!(joined(None), Some(true));
        assert_eq!(joined(Some("python")), Some(false));
        assert_eq!(joined(Some("none")), None);
        assert_eq!(joined(Some("cobol")), Some(true));
    }

    #[test]
    fn a_time_in_another_zone_is_not_believed() {
        let mut joiner = joiner(&DockerOptions::default());
        for (text, expected) in [
            (
                r#"{"time":"2026-11-21T09:59:58Z","msg":"m"}"#,
                at() - 2_000_000_000,
            ),
            (r#"{"time":"2026-11-21T08:00:00Z","msg":"m"}"#, at()),
        ] {
            let (record, _) = joiner.give(entry(Output::Stdout, text, true)).unwrap();
            assert_eq!(record.time, Some(expected), "{text}");
        }
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut joiner = joiner(&DockerOptions::default());
        let part = "x".repeat(16 << 10);
        for _ in 0..20 {
            assert!(joiner.give(entry(Output::Stdout, &part, false)).is_none());
        }
        let (record, _) = joiner.give(entry(Output::Stdout, "end", true)).unwrap();
        assert_eq!(record.message.len(), MAX_MESSAGE);
        assert!(record.truncated);
    }
}
