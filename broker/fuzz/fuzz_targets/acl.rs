//! Runs `thinglog_broker::fuzz::acl` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| thinglog_broker::fuzz::acl(data));
