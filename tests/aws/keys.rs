//! Signing in with access keys: who may, who may not, and how far.

use thinglog_tests::site::Site;
use thinglog_tests::wait;

use crate::{Key, aws, clients, python, tell, with_key};

#[test]
fn wrong_signatures_are_refused_as_aws_refuses_them() {
    with_key(
        "wrong_signatures_are_refused_as_aws_refuses_them",
        "signatures",
    );
}

#[test]
fn what_is_too_large_is_refused_and_many_are_served() {
    with_key("what_is_too_large_is_refused_and_many_are_served", "sizes");
}

#[test]
fn an_operator_of_a_group_stays_within_it() {
    let Some(python) = python("an_operator_of_a_group_stays_within_it") else {
        return;
    };
    let site = Site::new();
    site.configure_http("access_keys = \"keys\"");
    let admin = Key::add(&site, "root", &["--role", "admin"]);
    let eve = Key::add(&site, "eve", &["--role", "operator", "--group", "eu"]);
    let _up = site.up();
    let more = [
        ("ADMIN_ID", admin.id.as_str()),
        ("ADMIN_SECRET", admin.secret.as_str()),
    ];
    tell(&python, &site, &eve, "scoped", &more);
}

#[test]
fn keys_are_made_and_ended_while_the_router_runs() {
    let Some(python) = python("keys_are_made_and_ended_while_the_router_runs") else {
        return;
    };
    let site = Site::new();
    site.configure_http("access_keys = \"keys\"");
    let first = Key::add(&site, "root", &["--role", "admin"]);
    let up = site.up();
    aws(&python, &site, &first, "list-things");

    let second = Key::add(&site, "alice", &["--role", "operator"]);
    site.done(&["key", "remove", &first.id], "");
    up.hang_up();
    let answer = |key: &Key| {
        let program = python.with_file_name("aws");
        let mut list = clients(&program, &site, key);
        let output = list.args(["iot", "list-things"]).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    wait::until("the new key to be taken up", || {
        answer(&second).is_empty().then_some(())
    });
    assert!(answer(&first).contains("(UnrecognizedClientException)"));

    let listed = site.done(&["key", "list"], "");
    assert!(
        listed.contains(&second.id) && listed.contains("alice"),
        "{listed}"
    );
    assert!(
        !listed.contains(&first.id) && !listed.contains(&second.secret),
        "{listed}"
    );
    // Who changed something stands in its document, and nobody's secret in a log.
    aws(
        &python,
        &site,
        &second,
        "set-v2-logging-options --role-arn r --default-log-level WARN",
    );
    let log = up.output();
    for key in [&first, &second] {
        assert!(!log.contains(&key.secret));
    }
}
