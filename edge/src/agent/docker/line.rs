//! Entries of a container's log to records: what the engine cut is joined again, and every record
//! knows the place after it. Pure.

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
    agent::{lines::Line, recognise::Recogniser},
};

/// A container's own clock is the engine's, but it may count in another zone without saying so: a
/// time that is farther away than this is not believed.
const NEAR: u64 = 5 * 60 * 1_000_000_000;
/// The label by which Docker Compose names a service.
const SERVICE: &str = "com.docker.compose.service";
/// Of an id, as the engine's tools show it.
const SHORT_ID: usize = 12;

/// A line that is not complete yet.
#[derive(Default)]
struct Partial {
    text: Vec<u8>,
    time: Option<u64>,
    truncated: bool,
}

/// Makes records of one container's entries.
pub(super) struct Joiner {
    attributes: Vec<(String, Value)>,
    out: Recogniser,
    err: Recogniser,
    partial_out: Partial,
    partial_err: Partial,
    resume: Resume,
    /// After all entries that came.
    read: Place,
    /// After all complete lines.
    place: Place,
}

impl Joiner {
    /// Goes on at `place`.
    pub(super) fn new(options: &DockerOptions, container: &Container, place: Place) -> Joiner {
        let source = source(options, container);
        let recogniser =
            |severity| Recogniser::new(&source, severity).reading(options.line_options());
        Joiner {
            attributes: attributes(options, container, &source),
            out: recogniser(thinglog_schemas::Severity::INFO),
            err: recogniser(options.stderr),
            partial_out: Partial::default(),
            partial_err: Partial::default(),
            resume: Resume::at(place),
            read: place,
            place,
        }
    }

    /// Takes an entry; gives a record when a line ends with it, and the place after it.
    pub(super) fn take(&mut self, entry: Entry<'_>) -> Option<(Record, Place)> {
        if let Some(time) = entry.time {
            if !self.resume.is_new(entry.output, time) {
                return None;
            }
            self.read.pass(entry.output, time);
        }
        let partial = self.partial(entry.output);
        let room = MAX_MESSAGE.saturating_sub(partial.text.len());
        let kept = entry.text.len().min(room);
        partial.text.extend_from_slice(&entry.text[..kept]);
        partial.truncated |= entry.truncated || kept < entry.text.len();
        partial.time = partial.time.or(entry.time);
        if !entry.ends {
            return None;
        }
        self.end(entry.output)
    }

    /// The container ended: what it wrote last is a line as well.
    pub(super) fn finish(&mut self) -> impl Iterator<Item = (Record, Place)> {
        let last = [Output::Stdout, Output::Stderr].map(|output| self.end(output));
        last.into_iter().flatten()
    }

    fn end(&mut self, output: Output) -> Option<(Record, Place)> {
        let partial = std::mem::take(self.partial(output));
        self.place.follow(output, self.read);
        if partial.text.is_empty() {
            return None;
        }
        let line = Line {
            bytes: &partial.text,
            truncated: partial.truncated,
        };
        let (recogniser, stream) = match output {
            Output::Stdout => (&mut self.out, "stdout"),
            Output::Stderr => (&mut self.err, "stderr"),
        };
        let mut record = recogniser.record(line);
        record.time = nearer(record.time, partial.time);
        let own = [("stream".to_owned(), stream.into())];
        for (key, value) in own.into_iter().chain(self.attributes.iter().cloned()) {
            record.attributes.entry(key).or_insert(value);
        }
        Some((record, self.place))
    }

    fn partial(&mut self, output: Output) -> &mut Partial {
        match output {
            Output::Stdout => &mut self.partial_out,
            Output::Stderr => &mut self.partial_err,
        }
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

    #[test]
    fn a_line_says_which_container_it_is_of() {
        let options = DockerOptions {
            labels: vec!["site".into(), "missing".into()],
            ..DockerOptions::default()
        };
        let (record, _) = joiner(&options)
            .take(entry(Output::Stderr, "hot", true))
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
            .take(entry(Output::Stderr, "hot", true))
            .unwrap();
        assert_eq!(
            (&*record.source, record.severity),
            ("plant-pump-1", Severity::ERROR)
        );
        assert!(!record.attributes.contains_key("container.name"));
        options.source = Some("containers".into());
        let (record, _) = joiner(&options)
            .take(entry(Output::Stdout, "hot", true))
            .unwrap();
        assert_eq!(
            (&*record.source, record.severity),
            ("containers", Severity::INFO)
        );
    }

    #[test]
    fn what_the_engine_cut_is_joined_and_its_place_is_behind_the_last_part() {
        let mut joiner = joiner(&DockerOptions::default());
        assert!(joiner.take(entry(Output::Stdout, "one ", false)).is_none());
        let (other, between) = joiner.take(entry(Output::Stderr, "other", true)).unwrap();
        assert_eq!(other.message, "other");
        let (record, after) = joiner.take(entry(Output::Stdout, "line", true)).unwrap();
        assert_eq!(record.message, "one line");
        // Going on between them, the first part is read again.
        let mut again = Joiner::new(&DockerOptions::default(), &container(), between);
        assert!(again.take(entry(Output::Stdout, "one ", false)).is_none());
        assert!(again.take(entry(Output::Stderr, "other", true)).is_none());
        let (record, place) = again.take(entry(Output::Stdout, "line", true)).unwrap();
        assert_eq!((&*record.message, place), ("one line", after));
    }

    #[test]
    fn what_a_container_wrote_last_needs_no_newline() {
        let mut joiner = joiner(&DockerOptions::default());
        assert!(joiner.take(entry(Output::Stdout, "bye", false)).is_none());
        let last: Vec<_> = joiner.finish().collect();
        assert_eq!(last.len(), 1);
        assert_eq!(last[0].0.message, "bye");
        assert_eq!(joiner.finish().count(), 0);
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
            let (record, _) = joiner.take(entry(Output::Stdout, text, true)).unwrap();
            assert_eq!(record.time, Some(expected), "{text}");
        }
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut joiner = joiner(&DockerOptions::default());
        let part = "x".repeat(16 << 10);
        for _ in 0..20 {
            assert!(joiner.take(entry(Output::Stdout, &part, false)).is_none());
        }
        let (record, _) = joiner.take(entry(Output::Stdout, "end", true)).unwrap();
        assert_eq!(record.message.len(), MAX_MESSAGE);
        assert!(record.truncated);
    }
}
