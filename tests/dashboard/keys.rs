//! The pages by keyboard alone, and what assistive technology is told on the way.

use thinglog_tests::webdriver::{ENTER, ESCAPE, TAB};

use crate::stage::Stage;

#[test]
fn everything_is_reached_by_keyboard_and_has_a_name() {
    let Some(stage) = Stage::open("everything_is_reached_by_keyboard") else {
        return;
    };
    stage.say("lamp-7", "info", "by keyboard");
    stage.go("/");
    stage.browser.until_text("[data-test=fleet-row]", "lamp-7");
    let mut reached = Vec::new();
    for _ in 0..25 {
        stage.browser.press(TAB);
        let (role, name) = stage.browser.focus();
        if !["", "none", "generic", "RootWebArea"].contains(&&*role) {
            assert!(
                !name.is_empty(),
                "a {role} without a name behind {reached:?}"
            );
        }
        reached.push(format!("{role} {name}"));
    }
    for wanted in [
        "link Logs",
        "link Levels",
        "link Destinations",
        "searchbox Search devices",
        "link lamp-7",
    ] {
        assert!(
            reached.iter().any(|found| found == wanted),
            "{wanted}: {reached:?}"
        );
    }
    assert!(reached[0].contains("To the content"), "{reached:?}");
    stage.is_content();
}

#[test]
fn keys_lead_from_page_to_page_and_through_the_log() {
    let Some(stage) = Stage::open("keys_lead_from_page_to_page") else {
        return;
    };
    for n in 0..30 {
        stage.say("lamp-7", "info", &format!("event {n}."));
    }
    stage.go("/");
    stage.browser.until_text("[data-test=fleet-row]", "lamp-7");
    for (keys, title) in [
        ("gv", "Groups and levels"),
        ("gd", "Destinations"),
        ("gf", "Fleet"),
        ("gl", "Logs"),
    ] {
        stage.browser.press(keys);
        stage.browser.until_text("h1", title);
    }
    stage
        .browser
        .until_text("[data-test=log-line]", "event 29.");
    stage.browser.press("kk");
    stage.browser.until("a chosen event", "document.querySelector('[data-test=log-line][aria-selected=true]')?.innerText.includes('event 28.')");
    stage.browser.press(ENTER);
    stage.browser.until_text("aside.detail", "event 28.");
    stage.browser.press(ESCAPE);
    stage.browser.until(
        "the event to close",
        "document.querySelector('aside.detail').hidden",
    );
    stage.browser.press("p");
    stage.browser.until_text("[data-test=pause]", "Pause");
    stage.browser.press("/");
    assert_eq!(stage.browser.focus().1, "Search");
    // Whoever writes means letters.
    stage.browser.press("gd?");
    stage.browser.until(
        "the letters",
        "document.querySelector('[data-test=search]').value === 'gd?'",
    );
    stage.browser.press(TAB);
    stage.browser.press("?");
    stage.browser.until_text("dialog h2", "Keys");
    stage.browser.press(ESCAPE);
    stage
        .browser
        .until("the help to close", "!document.querySelector('dialog')");
    stage.is_content();
}
