//! What a benchmark prints: its machine, its input, a line for every run, and medians.

use std::io::{IsTerminal, Write};

use serde::Serialize;

use super::BenchArgs;

/// The figures of one run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Run {
    pub(super) subject: String,
    pub(super) events: u64,
    /// From the first publish until every event is in the file.
    pub(super) seconds: f64,
    /// Until the last acknowledgement.
    pub(super) acknowledged_seconds: f64,
    /// CPU time of the processes measured, user and system.
    pub(super) cpu_seconds: f64,
    pub(super) peak_bytes: u64,
    pub(super) idle_bytes: u64,
    /// Bytes published.
    pub(super) wire_bytes: u64,
    /// Bytes in the file.
    pub(super) output_bytes: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    /// A bare write and fdatasync of the output's bytes, 1 MiB at a time.
    pub(super) floor_seconds: Option<f64>,
}

impl Run {
    fn events_per_second(&self) -> f64 {
        self.events as f64 / self.seconds
    }

    fn cpu_per_million(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.events as f64
    }
}

/// Collects runs.
pub(super) struct Report {
    runs: Vec<Run>,
    json: bool,
    command: String,
}

impl Report {
    pub(super) fn new(args: &BenchArgs) -> Report {
        let command: Vec<String> = std::env::args().skip(1).collect();
        Report {
            runs: Vec::new(),
            json: args.json,
            command: command.join(" "),
        }
    }

    /// Tells a person what runs now.
    pub(super) fn progress(&self, what: &str) {
        if std::io::stderr().is_terminal() {
            let _ = writeln!(std::io::stderr(), "running {what} ...");
        }
    }

    pub(super) fn add(&mut self, run: Run) {
        self.runs.push(run);
    }

    /// Prints everything to standard output.
    pub(super) fn print(&self) {
        let text = if self.json {
            self.as_json()
        } else {
            self.as_text()
        };
        let _ = std::io::stdout().write_all(text.as_bytes());
    }

    fn subjects(&self) -> Vec<&str> {
        let mut subjects: Vec<&str> = Vec::new();
        for run in &self.runs {
            if !subjects.contains(&run.subject.as_str()) {
                subjects.push(&run.subject);
            }
        }
        subjects
    }

    fn medians(&self, subject: &str) -> Run {
        let runs: Vec<&Run> = self
            .runs
            .iter()
            .filter(|run| run.subject == subject)
            .collect();
        let of = |value: fn(&Run) -> f64| median(runs.iter().map(|run| value(run)).collect());
        Run {
            subject: subject.to_owned(),
            events: runs[0].events,
            seconds: of(|run| run.seconds),
            acknowledged_seconds: of(|run| run.acknowledged_seconds),
            cpu_seconds: of(|run| run.cpu_seconds),
            peak_bytes: of(|run| run.peak_bytes as f64) as u64,
            idle_bytes: of(|run| run.idle_bytes as f64) as u64,
            wire_bytes: of(|run| run.wire_bytes as f64) as u64,
            output_bytes: of(|run| run.output_bytes as f64) as u64,
            lost: runs.iter().map(|run| run.lost).sum(),
            duplicated: runs.iter().map(|run| run.duplicated).sum(),
            floor_seconds: runs[0]
                .floor_seconds
                .map(|_| of(|run| run.floor_seconds.unwrap_or_default())),
        }
    }

    fn as_json(&self) -> String {
        let medians: Vec<Run> = self
            .subjects()
            .iter()
            .map(|subject| self.medians(subject))
            .collect();
        let value = serde_json::json!({
            "machine": machine(), "command": self.command, "runs": self.runs, "medians": medians,
        });
        format!("{value:#}\n")
    }

    fn as_text(&self) -> String {
        let mut text = format!("{}\nthinglog {}\n", machine(), self.command);
        for subject in self.subjects() {
            let runs = self
                .runs
                .iter()
                .filter(|run| run.subject == subject)
                .count();
            let median = self.medians(subject);
            text.push_str(&format!(
                "\n{subject}: {} events, median of {runs}\n",
                median.events
            ));
            for run in self
                .runs
                .iter()
                .filter(|run| runs > 1 && run.subject == subject)
            {
                text.push_str(&format!(
                    "  run       {:>12.0} events/s {:>8.2} CPU s/million\n",
                    run.events_per_second(),
                    run.cpu_per_million()
                ));
            }
            text.push_str(&lines(&median));
        }
        text
    }
}

fn lines(run: &Run) -> String {
    let per_event = |bytes: u64| bytes as f64 / run.events as f64;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut text = format!(
        "  rate      {:>12.0} events/s {:>8.1} MB/s into the file (last acknowledgement after {:.2} of {:.2} s)\n\
         \x20 CPU       {:>12.2} s a million events\n\
         \x20 memory    {:>12.1} MiB at most, {:.1} MiB idle\n\
         \x20 wire      {:>12.1} bytes an event; file {:.1}\n\
         \x20 lost      {:>12}   duplicated {}\n",
        run.events_per_second(),
        run.output_bytes as f64 / run.seconds / 1e6,
        run.acknowledged_seconds,
        run.seconds,
        run.cpu_per_million(),
        mib(run.peak_bytes),
        mib(run.idle_bytes),
        per_event(run.wire_bytes),
        per_event(run.output_bytes),
        run.lost,
        run.duplicated,
    );
    if let Some(floor) = run.floor_seconds {
        text.push_str(&format!(
            "  floor     {:>12.2} s for a bare write and fdatasync of the file's bytes: {:.2} times that\n",
            floor,
            run.seconds / floor
        ));
    }
    text
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    }
}

/// Processor and core count.
pub(super) fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| {
        line.strip_prefix("model name")?
            .split_once(':')
            .map(|(_, name)| name.trim())
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {cores} cores", model.unwrap_or("unknown processor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_of_an_even_count_is_the_middle_of_two() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
