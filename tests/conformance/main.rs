//! Conformance of the broker with MQTT 3.1.1 and 5.0, over raw sockets against the real binary.
//!
//! [`table`] maps every normative statement of both specifications to the tests that hold the broker
//! to it, or says why none does; the other modules are those tests, by what they are about.

#![allow(clippy::unwrap_used)]

mod connect;
mod exchange;
mod format;
mod limits;
mod properties;
mod publish;
mod raw;
mod retained;
mod session;
mod shared;
mod subscribe;
mod table;
mod table_v311;
mod table_v5;
mod will;

use std::fs;
use std::net::SocketAddr;

use thinglog_tests::process::Process;
use thinglog_tests::site::Site;

use raw::{Raw, Version};

/// A topic whose messages wait in the session's queue, and one whose messages are read from the log.
const TOPICS: [&str; 2] = ["house/hall", "thinglog/logs/lamp/app"];

/// A running broker.
struct Broker {
    site: Site,
    process: Process,
}

impl Broker {
    fn start() -> Broker {
        Broker::with("")
    }

    /// With more lines of configuration.
    fn with(lines: &str) -> Broker {
        let site = Site::new();
        let path = site.path().join("thinglog.toml");
        let config = fs::read_to_string(&path).unwrap();
        fs::write(&path, config + lines).unwrap();
        let process = site.broker();
        Broker { site, process }
    }

    /// Stops in order and starts again.
    fn restart(&mut self) {
        self.process.terminate();
        self.process = self.site.broker();
    }

    fn address(&self) -> SocketAddr {
        self.site.mqtt
    }

    /// A client with a clean session.
    #[track_caller]
    fn client(&self, version: Version, id: &str) -> Raw {
        Raw::connect(self.address(), &raw::connect(version, id))
    }

    /// A client whose session outlives its connection.
    #[track_caller]
    fn lasting(&self, version: Version, id: &str) -> Raw {
        Raw::connect(self.address(), &raw::connect(version, id).lasting())
    }
}
