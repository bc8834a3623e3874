//! The harness of the end-to-end tests: real processes, free ports, temporary data, and waiting for
//! what is expected instead of for time to pass. A harness may panic: that is how a test fails.
//!
//! The binaries are those beside the test executable; `tests/run` builds them first.

pub mod browser;
pub mod certificates;
pub mod mosquitto;
pub mod mqtt;
pub mod picture;
pub mod process;
pub mod random;
pub mod site;
pub mod wait;
pub mod webdriver;
