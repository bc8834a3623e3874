//! What an idle publisher costs: connected to a broker with nothing to send, it prints the processor
//! time, the times it was woken, and the memory of this process.
//!
//! ```sh
//! cargo run --release -p thinglog-edge --example idle -- mqtt://127.0.0.1:1883 60
//! ```

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::{fs, time::Duration};

use thinglog_edge::{BrokerUrl, Publisher};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or("127.0.0.1:1883".into());
    let url: BrokerUrl = url.parse().unwrap();
    let seconds: u64 = arguments.next().map_or(60, |text| text.parse().unwrap());
    let publisher = Publisher::builder("idle").broker_url(&url).start().unwrap();
    while !publisher.counters().connected {
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_secs(3));
    let before = (processor_time(), wakeups());
    std::thread::sleep(Duration::from_secs(seconds));
    let (spent, woken) = (processor_time() - before.0, wakeups() - before.1);
    let share = spent as f64 / 1e9 / seconds as f64 * 100.0;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let memory = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    println!(
        "{seconds} s idle: {spent} ns of processor time ({share:.4} %), woken {woken} times, {memory}"
    );
}

/// Nanoseconds that all threads have run (proc(5), schedstat).
fn processor_time() -> u64 {
    each_thread("schedstat", |text| text.split(' ').next()?.parse().ok())
}

/// Voluntary context switches of all threads.
fn wakeups() -> u64 {
    each_thread("status", |text| {
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line?.trim().parse().ok()
    })
}

fn each_thread(file: &str, read: impl Fn(&str) -> Option<u64>) -> u64 {
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.path().join(file)).ok());
    texts.filter_map(|text| read(&text)).sum()
}
