//! Runs `thinglog_broker::fuzz::credentials` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| thinglog_broker::fuzz::credentials(data));
