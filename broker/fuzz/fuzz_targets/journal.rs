//! Runs `thinglog_journal::fuzz::recovery` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| thinglog_journal::fuzz::recovery(data));
