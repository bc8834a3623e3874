//! A device for the crash test: emits events through the embedded publisher with a spool on disk and
//! prints how far `flush` said that they are durable. It runs until it is killed.
//!
//! Arguments: broker host, port, device name, spool directory, generation. Messages are
//! `<device>/<generation>/<number>`; a line `durable <generation> <number>` stands for all up to it.

#![allow(clippy::print_stdout)]

use std::time::Duration;

use thinglog_edge::{Publisher, Record};
use thinglog_schemas::Severity;

/// Emitted between two flushes.
const BURST: u64 = 5;
/// A device is not a benchmark.
const PAUSE: Duration = Duration::from_millis(10);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, device, spool, generation] = arguments.as_slice() else {
        return Err("usage: crash-device HOST PORT DEVICE SPOOL GENERATION".into());
    };
    let publisher = Publisher::builder(device)
        .broker(host, port.parse()?)
        .spool(spool, 64 << 20)
        .backoff(Duration::from_millis(100), Duration::from_millis(500))
        .start()?;
    let mut number = 0u64;
    loop {
        for _ in 0..BURST {
            let source = if number.is_multiple_of(3) {
                "main"
            } else {
                "sensor"
            };
            let message = format!("{device}/{generation}/{number}");
            if !publisher.emit_blocking(Record::new(source, Severity::INFO, message)) {
                return Err("the publisher ended".into());
            }
            number += 1;
        }
        if publisher.flush_blocking(Duration::from_secs(30)) {
            println!("durable {generation} {}", number - 1);
        }
        std::thread::sleep(PAUSE);
    }
}
