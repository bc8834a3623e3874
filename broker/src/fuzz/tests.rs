use std::path::Path;

use super::*;

fn run(name: &str, target: impl Fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    thinglog_journal::fuzz::run(name, &corpus.join(name), target);
}

#[test]
fn no_bytes_harm_the_packet_readers() {
    run("packets", packets);
}

#[test]
fn no_bytes_harm_what_is_read_from_disk() {
    run("stored", stored);
}

#[test]
fn no_acl_file_harms() {
    run("acl", acl);
}

#[test]
fn no_file_of_credentials_and_no_token_harms() {
    run("credentials", credentials);
}

#[test]
fn whatever_clients_send_the_broker_goes_on_serving() {
    run("session", session);
}
