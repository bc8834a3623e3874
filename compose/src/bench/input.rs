//! The events a benchmark publishes: lines of a file, or made up to look like a device's log.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, bail};

/// Lines kept in memory; publishers go round them.
const MAX_LINES: usize = 200_000;

/// Message texts, used in turn.
#[derive(Clone)]
pub(super) struct Input {
    lines: Arc<[String]>,
}

impl Input {
    /// The non-empty lines of a text file, the first 200,000 of them.
    pub(super) fn from_file(path: &Path) -> anyhow::Result<Input> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut lines = Vec::new();
        for line in BufReader::new(file).split(b'\n') {
            let line = line.with_context(|| format!("cannot read {}", path.display()))?;
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if !text.is_empty() {
                lines.push(text);
            }
            if lines.len() == MAX_LINES {
                break;
            }
        }
        if lines.is_empty() {
            bail!("{} holds no lines", path.display());
        }
        Ok(Input {
            lines: lines.into(),
        })
    }

    /// Log lines of about `size` bytes that vary where real ones do: addresses, numbers, words.
    pub(super) fn synthetic(size: usize) -> Input {
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let lines = (0..MAX_LINES / 4).map(|_| synthetic_line(&mut random, size));
        Input {
            lines: lines.collect(),
        }
    }

    /// The text of the `index`th event.
    pub(super) fn line(&self, index: u64) -> &str {
        &self.lines[(index % self.lines.len() as u64) as usize]
    }
}

/// SplitMix64: the same input at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }
}

fn synthetic_line(random: &mut Random, size: usize) -> String {
    let address = format!(
        "10.{}.{}.{}",
        random.below(4),
        random.below(250),
        random.below(250)
    );
    let mut line = match random.below(4) {
        0 => format!(
            "{address} - - \"{} /api/v1/{}/{} HTTP/1.1\" {} {} {}ms",
            random.pick(&["GET", "GET", "GET", "POST", "PUT"]),
            random.pick(&["telemetry", "status", "config", "firmware"]),
            random.below(100_000),
            random.pick(&["200", "200", "200", "304", "404", "502"]),
            random.below(90_000),
            random.below(900)
        ),
        1 => format!(
            "sensor {} reports temperature={}.{} humidity={} battery={}%",
            random.pick(&["attic", "cellar", "kitchen", "boiler", "garage"]),
            random.below(40),
            random.below(10),
            random.below(100),
            random.below(100)
        ),
        2 => format!(
            "{}[{}]: session opened for user {} from {address} port {}",
            random.pick(&["sshd", "login", "cron", "systemd-logind"]),
            random.below(32_768),
            random.pick(&["root", "pi", "operator", "svc-backup"]),
            random.below(65_536)
        ),
        _ => format!(
            "link {} {} after {} ms, rssi -{} dBm, retries {}",
            random.pick(&["wlan0", "eth0", "wwan0"]),
            random.pick(&["up", "down", "lost", "renewed lease"]),
            random.below(30_000),
            random.below(100),
            random.below(8)
        ),
    };
    while line.len() < size.saturating_sub(9) {
        line.push(' ');
        line.push_str(random.pick(&[
            "request", "handled", "queue", "worker", "cache", "retry", "upstream", "ok", "id",
        ]));
        line.push('=');
        line.push_str(&random.below(10_000).to_string());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synthetic_lines_have_about_the_size_asked_for() {
        let input = Input::synthetic(140);
        let bytes: usize = (0..1000).map(|index| input.line(index).len()).sum();
        assert!((125_000..155_000).contains(&bytes), "{bytes}");
    }
}
