//! Signing in and out with a browser, and what an operator who is limited to a group gets to see.

use std::fs;

use thinglog_tests::site::Site;

use crate::stage::Stage;

const LOGINS: &str = "[broker.auth]\npasswords = \"passwords\"\nanonymous = true\nacl = \"acl\"";

/// Users `ada` (admin) and `otto` (operator of group `eu`), both with the password `wonder`; devices need
/// none.
fn users(site: &Site) {
    site.configure(LOGINS);
    fs::write(site.path().join("acl"), "topic readwrite thinglog/logs/#\n").unwrap();
    site.done(&["passwd", "ada", "--role", "admin"], "wonder\n");
    let otto = ["passwd", "otto", "--role", "operator", "--group", "eu"];
    site.done(&otto, "wonder\n");
}

impl Stage {
    fn sign_in(&self, name: &str, password: &str) {
        self.browser.fill("input[autocomplete=username]", name);
        self.browser.fill("input[type=password]", password);
        self.browser.click("[data-test=sign-in]");
    }

    /// Runs `thinglog <arguments>` as the administrator.
    fn as_admin(&self, arguments: &[&str]) -> String {
        fs::write(self.site.path().join("secret"), "wonder\n").unwrap();
        let login = ["--username", "ada", "--password-file", "secret"];
        self.thinglog(&[arguments, &login].concat())
    }
}

#[test]
fn who_signs_in_is_led_back_and_who_signs_out_sees_nothing_more() {
    let Some(stage) = Stage::with("who_signs_in_is_led_back", users) else {
        return;
    };
    stage.say("lamp-7", "info", "for those who may");
    stage.go("/logs?device=lamp-7");
    stage.browser.until_text("h1", "Sign in");
    stage.sign_in("ada", "wrong");
    stage
        .browser
        .until_text("[data-test=problem]", "do not fit");
    stage.sign_in("ada", "wonder");
    stage
        .browser
        .until_text("[data-test=log-line]", "for those who may");
    assert!(stage.browser.place().starts_with("/logs?device=lamp-7"));
    let cookie = stage.browser.run("return document.cookie", &[]);
    assert_eq!(cookie, "", "scripts do not see the session");
    stage.browser.reload();
    stage
        .browser
        .until_text("[data-test=log-line]", "for those who may");
    stage.browser.click("button.user");
    stage.browser.click("[data-test=sign-out]");
    stage.browser.until_text("h1", "Sign in");
    stage.go("/");
    stage.browser.until_text("h1", "Sign in");
    // What was refused is all that there was to complain about.
    let complaints = stage.browser.complaints();
    let refused = complaints.iter().all(|text| text.contains("401"));
    assert!(refused, "{complaints:#?}");
}

#[test]
fn who_is_removed_is_asked_to_sign_in_again() {
    let Some(stage) = Stage::with("who_is_removed_is_asked", users) else {
        return;
    };
    stage.say("lamp-7", "info", "here");
    stage.go("/");
    stage.sign_in("ada", "wonder");
    stage.browser.until_text("[data-test=fleet-row]", "lamp-7");
    stage.site.done(&["passwd", "ada", "--delete"], "");
    stage.up.hang_up();
    stage.browser.until_text("h1", "Sign in");
}

#[test]
fn an_operator_of_a_group_sees_that_group_on_every_page_and_clears_nothing() {
    let Some(stage) = Stage::with("an_operator_of_a_group_sees", users) else {
        return;
    };
    for device in ["lamp-us", "lamp-eu"] {
        stage.say(device, "info", &format!("here is {device}"));
    }
    for group in ["eu", "us"] {
        stage.as_admin(&["group", "create", group]);
        stage.as_admin(&["group", "add", group, &format!("lamp-{group}")]);
    }
    stage.go("/sign-in");
    stage.sign_in("otto", "wonder");
    let sees_own = |selector: &str, own: &str, others: &str| {
        stage.browser.until_text(selector, own);
        let texts = stage.browser.texts("body").join("\n");
        assert!(!texts.contains(others), "{selector}: {texts}");
    };
    stage.browser.until_text("[data-test=fleet-row]", "lamp-eu");
    sees_own("[data-test=fleet-row]", "lamp-eu", "us");
    stage.go_live("/logs");
    sees_own("[data-test=log-line]", "here is lamp-eu", "lamp-us");
    for device in ["lamp-us", "lamp-eu"] {
        stage.say(device, "warn", &format!("again {device}"));
    }
    sees_own("[data-test=log-line]", "again lamp-eu", "lamp-us");
    stage.go("/levels");
    sees_own("table.levels", "eu", "lamp-us");
    assert_eq!(stage.browser.count("[data-focus='set group us']"), 0);
    stage.go("/destinations");
    stage.browser.until_text("main", "limited to groups");
    stage.go("/devices/lamp-us");
    stage.browser.until_shown("main [data-test=problem]");
    assert!(!stage.browser.texts("main").join("").contains("here is"));
    stage.go_live("/logs?device=lamp-us");
    let shown = stage.browser.texts("[data-test=log-line]").concat();
    assert_eq!(shown, "");
    let clear =
        "return fetch('/api/v1/devices/lamp-us/logs', {method: 'DELETE'}).then((a) => a.status)";
    assert_eq!(stage.browser.run(clear, &[]), 403);
    let all = stage.as_admin(&["logs", "--device", "lamp-us"]);
    assert!(all.contains("again lamp-us"), "{all}");
}
