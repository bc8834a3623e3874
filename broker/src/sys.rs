//! The topics below `$SYS/broker`, named and counted as mosquitto does (mosquitto(8), "Broker status").
//! Pure: counts and time are arguments; [`crate::upkeep`] publishes what comes out.

use std::{collections::HashMap, time::Duration};

use crate::hub::Census;

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Packets of any kind.
    pub(crate) packets_received: u64,
    pub(crate) packets_sent: u64,
    pub(crate) publishes_received: u64,
    pub(crate) publishes_sent: u64,
    pub(crate) publishes_dropped: u64,
    /// Payloads alone.
    pub(crate) payload_received: u64,
    pub(crate) payload_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    /// Connections taken.
    pub(crate) connections: u64,
    pub(crate) expired: u64,
}

/// What there is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) census: Census,
    pub(crate) retained: u64,
    pub(crate) retained_bytes: u64,
    /// Bytes of queued messages on disk.
    pub(crate) mail_bytes: u64,
    /// Bytes of messages that sessions hold.
    pub(crate) queued_bytes: u64,
}

/// Topics of averages, and what they are averages of.
type Load = (&'static str, fn(&Totals) -> u64);
const LOADS: [Load; 9] = [
    ("messages/received", |totals| totals.packets_received),
    ("messages/sent", |totals| totals.packets_sent),
    ("publish/received", |totals| totals.publishes_received),
    ("publish/sent", |totals| totals.publishes_sent),
    ("publish/dropped", |totals| totals.publishes_dropped),
    ("bytes/received", |totals| totals.bytes_received),
    ("bytes/sent", |totals| totals.bytes_sent),
    ("sockets", |totals| totals.connections),
    ("connections", |totals| totals.connections),
];
/// Averages are taken over so many minutes.
const MINUTES: [(&str, f64); 3] = [("1min", 1.0), ("5min", 5.0), ("15min", 15.0)];

/// What was said last.
#[derive(Debug, Default)]
pub(crate) struct Sys {
    last: Totals,
    loads: [[f64; MINUTES.len()]; LOADS.len()],
    /// Most sessions there were.
    maximum: u64,
    said: HashMap<String, String>,
}

impl Sys {
    /// The topics below `$SYS/broker/` whose values have changed, `passed` after the last time.
    pub(crate) fn changes(
        &mut self,
        totals: Totals,
        now: &Now,
        uptime: Duration,
        passed: Duration,
    ) -> Vec<(String, String)> {
        self.average(&totals, passed);
        let census = &now.census;
        let clients = census.connected + census.away;
        self.maximum = self.maximum.max(clients);
        let counts = [
            ("clients/connected", census.connected),
            ("clients/active", census.connected),
            ("clients/disconnected", census.away),
            ("clients/inactive", census.away),
            ("clients/total", clients),
            ("clients/maximum", self.maximum),
            ("clients/expired", totals.expired),
            ("messages/received", totals.packets_received),
            ("messages/sent", totals.packets_sent),
            ("messages/stored", now.retained + census.queued),
            ("store/messages/count", now.retained + census.queued),
            (
                "store/messages/bytes",
                now.retained_bytes + now.queued_bytes,
            ),
            ("publish/messages/received", totals.publishes_received),
            ("publish/messages/sent", totals.publishes_sent),
            ("publish/messages/dropped", totals.publishes_dropped),
            ("publish/bytes/received", totals.payload_received),
            ("publish/bytes/sent", totals.payload_sent),
            ("bytes/received", totals.bytes_received),
            ("bytes/sent", totals.bytes_sent),
            ("subscriptions/count", census.subscriptions),
            ("retained messages/count", now.retained),
        ];
        let mut values = vec![
            (
                "version".to_owned(),
                concat!("thinglog version ", env!("CARGO_PKG_VERSION")).to_owned(),
            ),
            ("uptime".to_owned(), format!("{} seconds", uptime.as_secs())),
        ];
        values.extend(counts.map(|(topic, count)| (topic.to_owned(), count.to_string())));
        for ((name, _), averages) in LOADS.iter().zip(&self.loads) {
            for ((minutes, _), average) in MINUTES.iter().zip(averages) {
                values.push((format!("load/{name}/{minutes}"), format!("{average:.2}")));
            }
        }
        values.retain(|(topic, value)| self.said.get(topic) != Some(value));
        self.said.extend(values.iter().cloned());
        values
    }

    /// Averages a minute, each weighed down by what happened since.
    fn average(&mut self, totals: &Totals, passed: Duration) {
        let last = std::mem::replace(&mut self.last, *totals);
        let passed = passed.as_secs_f64() / 60.0;
        if passed <= 0.0 {
            return;
        }
        for ((_, of), averages) in LOADS.iter().zip(&mut self.loads) {
            let rate = of(totals).saturating_sub(of(&last)) as f64 / passed;
            for ((_, minutes), average) in MINUTES.iter().zip(averages) {
                let weight = (-passed / minutes).exp();
                *average = rate + weight * (*average - rate);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    #[test]
    fn only_what_has_changed_is_said_again() {
        let mut sys = Sys::default();
        let now = Now::default();
        let first = sys.changes(Totals::default(), &now, TEN, TEN);
        let topics: Vec<&str> = first.iter().map(|(topic, _)| topic.as_str()).collect();
        for topic in [
            "version",
            "clients/maximum",
            "load/bytes/sent/15min",
            "retained messages/count",
        ] {
            assert!(topics.contains(&topic), "{topic}");
        }
        let again = sys.changes(Totals::default(), &now, 2 * TEN, TEN);
        assert_eq!(again, [("uptime".to_owned(), "20 seconds".to_owned())]);
    }

    #[test]
    fn averages_come_near_a_steady_rate_the_short_one_first() {
        let mut sys = Sys::default();
        let mut totals = Totals::default();
        for _ in 0..12 {
            totals.bytes_sent += 100;
            sys.changes(totals, &Now::default(), TEN, TEN);
        }
        let averages = sys.loads[6];
        assert_eq!(LOADS[6].0, "bytes/sent");
        assert!(averages[0] > 500.0 && averages[0] <= 600.0, "{averages:?}");
        assert!(averages[0] > averages[1] && averages[1] > averages[2]);
    }

    #[test]
    fn the_maximum_stays() {
        let mut sys = Sys::default();
        let mut now = Now::default();
        for (connected, away) in [(3, 2), (1, 0)] {
            now.census.connected = connected;
            now.census.away = away;
            sys.changes(Totals::default(), &now, TEN, TEN);
        }
        assert_eq!(sys.said["clients/maximum"], "5");
        assert_eq!(sys.said["clients/total"], "1");
    }
}
