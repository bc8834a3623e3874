//! What `thinglog bench broker` prints: a line for every broker and scenario, medians of its runs, and
//! how they stand to the bars they have to meet.

use std::{collections::BTreeMap, fmt::Write as _, io::IsTerminal, io::Write as _};

use serde::Serialize;

use super::{super::report::machine, super::report::median, latency, subject::Subject};

/// The figures of one run, in the order of the table's columns.
#[derive(Clone, Debug)]
pub(super) struct Figures(Vec<(&'static str, f64)>);

impl Figures {
    pub(super) fn new(figures: &[(&'static str, f64)]) -> Figures {
        Figures(figures.to_vec())
    }

    fn get(&self, name: &str) -> Option<f64> {
        self.0
            .iter()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| *value)
    }

    fn as_json(&self) -> serde_json::Value {
        let pairs = self.0.iter();
        let object: serde_json::Map<String, serde_json::Value> = pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).into()))
            .collect();
        object.into()
    }
}

/// A scenario, and which bars hold for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scenario {
    Throughput { order: usize, name: String, qos: u8 },
    Latency,
    Crowd { clients: usize },
    Return { clients: usize },
}

impl Scenario {
    pub(super) fn name(&self) -> String {
        match self {
            Scenario::Throughput { name, .. } => name.clone(),
            Scenario::Latency => format!("5,000 messages/s of {} publishers", latency::CONNECTIONS),
            Scenario::Crowd { clients } => format!("{clients} clients, a subscription each"),
            Scenario::Return { clients } => format!("{clients} clients come back"),
        }
    }

    /// Whom the others are compared with.
    fn peer(&self) -> Subject {
        match self {
            Scenario::Return { .. } => Subject::Memory,
            _ => Subject::Mosquitto,
        }
    }
}

/// A figure that has to stand in some ratio to mosquitto's, or below a limit.
#[derive(Debug, Serialize)]
struct Bar {
    scenario: String,
    subject: &'static str,
    what: String,
    value: f64,
    bar: f64,
    is_met: bool,
}

/// Collects runs.
#[derive(Default)]
pub(super) struct Report {
    runs: BTreeMap<(Scenario, usize), Vec<Figures>>,
}

/// The order in which brokers are listed.
const SUBJECTS: [Subject; 4] = [
    Subject::Durable,
    Subject::Memory,
    Subject::Mosquitto,
    Subject::Tokens,
];

impl Report {
    /// Tells a person what runs now.
    pub(super) fn progress(&self, what: &str) {
        if std::io::stderr().is_terminal() {
            let _ = writeln!(std::io::stderr(), "running {what} ...");
        }
    }

    pub(super) fn add(&mut self, scenario: &Scenario, subject: Subject, figures: Figures) {
        let place = SUBJECTS.iter().position(|other| *other == subject);
        let key = (scenario.clone(), place.unwrap_or_default());
        self.runs.entry(key).or_default().push(figures);
    }

    /// Prints everything to standard output.
    pub(super) fn print(&self, json: bool, notes: &[String]) {
        let text = if json {
            self.as_json(notes)
        } else {
            self.as_text(notes)
        };
        let _ = std::io::stdout().write_all(text.as_bytes());
    }

    fn median(&self, scenario: &Scenario, place: usize) -> Option<Figures> {
        let runs = self.runs.get(&(scenario.clone(), place))?;
        let names = runs.first()?.0.iter().map(|(name, _)| *name);
        let of = |name| median(runs.iter().filter_map(|run| run.get(name)).collect());
        Some(Figures(names.map(|name| (name, of(name))).collect()))
    }

    fn scenarios(&self) -> Vec<&Scenario> {
        let mut scenarios: Vec<&Scenario> =
            self.runs.keys().map(|(scenario, _)| scenario).collect();
        scenarios.dedup();
        scenarios
    }

    fn bars(&self) -> Vec<Bar> {
        let mut bars = Vec::new();
        for scenario in self.scenarios() {
            let of = |subject| {
                let place = SUBJECTS.iter().position(|other| *other == subject);
                self.median(scenario, place?)
            };
            let peer = of(scenario.peer());
            for subject in SUBJECTS.into_iter().filter(|one| *one != scenario.peer()) {
                if let Some(ours) = of(subject) {
                    bars.extend(bars_of(scenario, subject, &ours, peer.as_ref()));
                }
            }
        }
        bars
    }

    fn as_json(&self, notes: &[String]) -> String {
        let rows: Vec<_> = self
            .runs
            .iter()
            .map(|((scenario, place), runs)| {
                serde_json::json!({
                    "scenario": scenario.name(),
                    "broker": SUBJECTS[*place].name(),
                    "runs": runs.iter().map(Figures::as_json).collect::<Vec<_>>(),
                    "median": self.median(scenario, *place).as_ref().map(Figures::as_json),
                })
            })
            .collect();
        let value = serde_json::json!({
            "machine": machine(), "command": command(), "rows": rows, "bars": self.bars(), "notes": notes,
        });
        format!("{value:#}\n")
    }

    fn as_text(&self, notes: &[String]) -> String {
        let mut text = format!("{}\nthinglog {}\n", machine(), command());
        for scenario in self.scenarios() {
            let rows: Vec<(usize, Figures)> = (0..SUBJECTS.len())
                .filter_map(|place| Some((place, self.median(scenario, place)?)))
                .collect();
            let Some((first, head)) = rows.first() else {
                continue;
            };
            let runs = self
                .runs
                .get(&(scenario.clone(), *first))
                .map_or(0, Vec::len);
            let _ = write!(text, "\n{}, median of {runs}\n{:24}", scenario.name(), "");
            for (name, _) in &head.0 {
                let _ = write!(text, "{name:>18}");
            }
            text.push('\n');
            for (place, figures) in &rows {
                let _ = write!(text, "  {:22}", SUBJECTS[*place].name());
                for (_, value) in &figures.0 {
                    let _ = write!(text, "{:>18}", shown(*value));
                }
                text.push('\n');
            }
        }
        text.push_str("\nBars\n");
        for bar in self.bars() {
            let _ = writeln!(
                text,
                "  {:6} {:>8.2} (bar {:>6.2})  {}: {}; {}",
                if bar.is_met { "met" } else { "MISSED" },
                bar.value,
                bar.bar,
                bar.subject,
                bar.what,
                bar.scenario,
            );
        }
        for note in notes {
            let _ = writeln!(text, "  note: {note}");
        }
        text
    }
}

/// What has to hold: ratios to mosquitto in the same run, and limits of our own.
fn bars_of(
    scenario: &Scenario,
    subject: Subject,
    ours: &Figures,
    peer: Option<&Figures>,
) -> Vec<Bar> {
    let mut bars = Vec::new();
    let mut add = |what: String, value: Option<f64>, bar: f64, at_least: bool| {
        let Some(value) = value else { return };
        bars.push(Bar {
            scenario: scenario.name(),
            subject: subject.name(),
            what,
            value,
            bar,
            is_met: if at_least { value >= bar } else { value <= bar },
        });
    };
    let ratio = |name: &str| Some(ours.get(name)? / peer?.get(name)?);
    match scenario {
        Scenario::Throughput { qos, .. } => {
            let bar = if *qos == 0 { 1.5 } else { 2.0 };
            let what = "times mosquitto's messages for each CPU second";
            add(what.into(), ratio("messages/CPU s"), bar, true);
        }
        Scenario::Latency if subject == Subject::Durable => {
            let disk = ours.get("fdatasync p99 ms").unwrap_or(f64::NAN);
            let what = format!(
                "ms PUBACK p99, where the disk's own fdatasync p99 is {disk:.2} ms (counts below 5)"
            );
            add(what, ours.get("PUBACK p99 ms"), 12.0, false);
        }
        Scenario::Latency => {
            let what = "times mosquitto's p99 from publish to subscriber";
            add(what.into(), ratio("delivered p99 ms"), 2.0, false);
        }
        Scenario::Return { .. } => {
            let what = "times the time without logins for all to come back";
            add(what.into(), ratio("reconnect s"), 1.2, false);
        }
        Scenario::Crowd { .. } => {
            let connect = "times mosquitto's time to connect and subscribe";
            add(connect.into(), ratio("connect s"), 1.5, false);
            let first = "times mosquitto's time for the first publish to each topic";
            add(first.into(), ratio("first publish s"), 2.0, false);
            add(
                "MB of memory at most".into(),
                ours.get("peak MB"),
                100.0,
                false,
            );
        }
    }
    bars
}

fn shown(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "-".into(),
        size if size >= 1000.0 => {
            let digits = format!("{value:.0}");
            let mut text = String::new();
            for (index, digit) in digits.chars().enumerate() {
                if index > 0 && (digits.len() - index).is_multiple_of(3) {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        size if size >= 100.0 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

fn command() -> String {
    std::env::args().skip(1).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_a_ratio_of_medians() {
        let mut report = Report::default();
        let scenario = Scenario::Throughput {
            order: 0,
            name: "load".into(),
            qos: 1,
        };
        for rate in [100.0, 300.0, 250.0] {
            let ours = Figures::new(&[("messages/CPU s", rate)]);
            report.add(&scenario, Subject::Durable, ours);
        }
        assert!(report.bars().is_empty(), "nothing to compare with");
        let theirs = Figures::new(&[("messages/CPU s", 100.0)]);
        report.add(&scenario, Subject::Mosquitto, theirs);
        let bars = report.bars();
        assert_eq!((bars.len(), bars[0].value, bars[0].is_met), (1, 2.5, true));
    }

    #[test]
    fn large_figures_are_grouped() {
        assert_eq!(shown(1_234_567.0), "1,234,567");
        assert_eq!(shown(0.126), "0.13");
    }
}
