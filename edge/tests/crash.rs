//! SIGKILL at random moments: what `flush` called durable arrives, once by id, in order, without a
//! hole that nobody declared. Rounds: `THINGLOG_CRASH_ROUNDS` (default 10).

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use support::{Answer, Broker, LIMIT};
use thinglog_edge::{Publisher, Record};
use thinglog_schemas::Severity;

const ADDRESS: &str = "CRASH_ADDRESS";
const SPOOL: &str = "CRASH_SPOOL";
const FROM: &str = "CRASH_FROM";

/// Emits numbers without end, and prints each one up to which `flush` was true. Its batches are small, or so
/// large that events wait before the queue.
#[test]
#[ignore = "run by the test below as a process of its own"]
fn child() {
    let variable = |name| std::env::var(name).unwrap();
    let address: SocketAddr = variable(ADDRESS).parse().unwrap();
    let mut number: u64 = variable(FROM).parse().unwrap();
    let batch = if number.is_multiple_of(2) { 7 } else { 1000 };
    let publisher = Publisher::builder("lamp-7")
        .broker(address.ip().to_string(), address.port())
        .flush_age(Duration::from_millis(2))
        .backoff(Duration::from_millis(1), Duration::from_millis(5))
        .batch(batch, 1 << 20)
        .spool(variable(SPOOL), 8 << 20)
        .start()
        .unwrap();
    loop {
        for _ in 0..number % 23 + 1 {
            let source = ["app", "nginx", "cron"][number as usize % 3];
            publisher.emit(Record::new(source, Severity::INFO, number.to_string()));
            number += 1;
        }
        if publisher.flush_blocking(LIMIT) {
            let mut out = std::io::stdout().lock();
            if writeln!(out, "durable {number}")
                .and_then(|()| out.flush())
                .is_err()
            {
                return;
            }
        }
    }
}

fn start(address: SocketAddr, spool: &Path, from: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture"])
        .env(ADDRESS, address.to_string())
        .env(SPOOL, spool)
        .env(FROM, from.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn random(below: u64) -> u64 {
    getrandom::u64().unwrap() % below
}

#[test]
fn what_flush_called_durable_survives_kill_at_any_moment() {
    let rounds = std::env::var("THINGLOG_CRASH_ROUNDS");
    let rounds: u64 = rounds.map_or(10, |rounds| rounds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start();
    // Numbers of the rounds do not overlap; each has what was durable before its end.
    let mut durable: Vec<(u64, u64)> = Vec::new();
    for round in 0..rounds {
        let from = round * 1_000_001;
        let mut child = start(broker.address, dir.path(), from);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let enough = random(40) + 1;
        let mut told = 0;
        let mut upto = from;
        for line in lines {
            let line = line.unwrap();
            let Some(number) = line.strip_prefix("durable ") else {
                continue;
            };
            upto = number.parse().unwrap();
            told += 1;
            match random(12) {
                0 => broker.drop_connections(),
                1 => broker.answer(&[Answer::Silence; 3], Answer::Acknowledge),
                _ => {}
            }
            if told == enough {
                std::thread::sleep(Duration::from_micros(random(3000)));
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(told >= enough, "the child ended by itself");
        durable.push((from, upto));
    }
    broker.answer(&[], Answer::Acknowledge);
    let mut last = start(broker.address, dir.path(), rounds * 1_000_001);
    let sent_on = |state: &support::State| {
        let arrived: std::collections::HashSet<String> = state.messages().into_iter().collect();
        let missing = durable
            .iter()
            .flat_map(|(from, upto)| *from..*upto)
            .find(|number| !arrived.contains(&number.to_string()));
        missing.is_none().then_some(())
    };
    broker.wait(sent_on);
    last.kill().unwrap();
    last.wait().unwrap();
    broker.state(check_ids_and_order);
}

/// An id always means the same event, an event has one id, each lane arrives in order, and no lane has
/// a hole.
fn check_ids_and_order(state: &support::State) {
    let mut by_id: HashMap<(u64, u64), String> = HashMap::new();
    let mut by_message: HashMap<String, (u64, u64)> = HashMap::new();
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for (_, batch) in state.batches() {
        let next = next.entry(batch.epoch).or_default();
        assert!(batch.first_seq <= *next, "a hole before {batch:?}");
        assert!(batch.drops.is_empty());
        let mut previous: Option<u64> = None;
        for entry in batch.entries {
            let id = (batch.epoch, entry.seq);
            let number: u64 = entry.message.parse().unwrap();
            assert!(previous < Some(number));
            previous = Some(number);
            let known = by_id.insert(id, entry.message.clone());
            assert!(known.is_none_or(|known| known == entry.message));
            let known = by_message.insert(entry.message, id);
            assert!(known.is_none_or(|known| known == id));
            *next = (*next).max(entry.seq + 1);
        }
    }
}
