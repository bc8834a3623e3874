//! The log page: the live tail, pausing, searching, scrolling back, downloading, clearing.

use std::fs;

use serde_json::json;
use thinglog_tests::wait;

use crate::stage::{Stage, event};

const LINE: &str = "[data-test=log-line]:not([hidden])";

/// Whether a line with this text can be seen, as an expression.
const IN_SIGHT: &str = "(() => { \
    const box = document.querySelector('[role=log] [role=listbox]').getBoundingClientRect(); \
    return [...document.querySelectorAll('[data-test=log-line]:not([hidden])')].some((row) => { \
        const at = row.getBoundingClientRect(); \
        return row.innerText.includes(arguments[0]) && at.top >= box.top - 1 && at.bottom <= box.bottom + 1; \
    }); \
})()";

impl Stage {
    #[track_caller]
    fn until_in_sight(&self, text: &str) {
        self.browser.until_given(text, IN_SIGHT, &[json!(text)]);
    }

    #[track_caller]
    fn is_in_sight(&self, text: &str) -> bool {
        let script = format!("return {IN_SIGHT}");
        self.browser.run(&script, &[json!(text)]) == json!(true)
    }
}

#[test]
fn the_live_tail_shows_what_is_published_and_holds_still_while_paused() {
    let Some(stage) = Stage::open("the_live_tail_shows_what_is_published") else {
        return;
    };
    let events: Vec<_> = (0..200)
        .map(|n| event("info", &format!("line {n}.")))
        .collect();
    stage.log("lamp-7", "app", &events);
    stage.go_live("/logs");
    stage.until_in_sight("line 199.");
    stage.say("lamp-7", "info", "the first light");
    stage.until_in_sight("the first light");
    stage.browser.click("[data-test=pause]");
    stage.browser.until_text("[data-test=pause]", "Resume");
    stage.say("lamp-7", "warn", "the second light");
    stage.browser.until_text("[data-test=pause]", "1");
    assert!(stage.is_in_sight("the first light"));
    assert!(!stage.is_in_sight("the second light"));
    stage.browser.click("[data-test=pause]");
    stage.until_in_sight("the second light");
    stage.say("lamp-7", "error", "the third light");
    stage.until_in_sight("the third light");
    stage.is_content();
}

#[test]
fn a_search_shows_what_matches_and_marks_it() {
    let Some(stage) = Stage::open("a_search_shows_what_matches") else {
        return;
    };
    stage.say("lamp-7", "info", "hay and hay");
    stage.say("lamp-8", "info", "a Needle in the hay");
    stage.go_live("/logs");
    stage.browser.until_text(LINE, "hay and hay");
    stage.browser.type_into("[data-test=search]", "needle");
    stage.browser.until_text(&format!("{LINE} mark"), "Needle");
    stage.browser.until_no_text(LINE, "hay and hay");
    assert!(stage.browser.place().contains("needle"));
    stage.say("lamp-9", "info", "another needle arrives");
    stage.browser.until_text(&format!("{LINE} mark"), "needle");
    stage.browser.until_text(LINE, "another needle arrives");
    stage.browser.reload();
    stage.browser.until_text(LINE, "another needle arrives");
    stage.browser.until_no_text(LINE, "hay and hay");
    stage.is_content();
}

#[test]
fn a_hundred_thousand_lines_are_scrolled_through_with_few_elements() {
    const LINES: usize = 100_000;
    let Some(stage) = Stage::open("a_hundred_thousand_lines") else {
        return;
    };
    let events: Vec<_> = (0..LINES)
        .map(|n| event("info", &format!("line {n}.")))
        .collect();
    stage.log("lamp-7", "app", &events);
    stage.go_live("/logs");
    stage.browser.until_text(LINE, "line 99999.");
    // Each time the top is reached, more is read.
    stage.browser.until("the first line", 
        "(() => { \
            const list = document.querySelector('[role=log] [role=listbox]'); \
            if (document.querySelectorAll('*').length > 3000) throw new Error('too many elements'); \
            list.scrollTop = 0; \
            const rows = [...document.querySelectorAll('[data-test=log-line]:not([hidden])')]; \
            return rows.some((row) => row.innerText.includes('line 0.')); \
        })()");
    stage.say("lamp-7", "info", "after all of them");
    stage.browser.until_text("[data-test=pause]", "1");
    stage.browser.click("[data-test=pause]");
    stage.browser.until_text(LINE, "after all of them");
    stage.is_content();
}

#[test]
fn a_download_holds_all_that_fits_the_conditions() {
    let Some(stage) = Stage::open("a_download_holds_all_that_fits") else {
        return;
    };
    let events: Vec<_> = (0..1500)
        .map(|n| event("info", &format!("line {n}.")))
        .collect();
    stage.log("lamp-7", "app", &events);
    stage.say("lamp-8", "info", "of another");
    stage.go_live("/logs?device=lamp-7");
    stage.browser.until_text(LINE, "line 1499.");
    stage.browser.click("[data-test=download]");
    stage.browser.click("dialog input[type=checkbox]");
    stage.browser.click("dialog a[download]");
    let downloads = stage.browser.downloads();
    let text = wait::until("the download", || {
        let files = fs::read_dir(&downloads).ok()?.flatten();
        let mut done = files.filter(|file| file.path().extension().is_some_and(|e| e == "ndjson"));
        fs::read_to_string(done.next()?.path()).ok()
    });
    let messages: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["message"].clone())
        .collect();
    assert_eq!(messages.len(), 1500);
    assert_eq!(messages[0], json!("line 0."));
    assert_eq!(messages[1499], json!("line 1499."));
    stage.is_content();
}

#[test]
fn a_log_is_cleared_after_a_question() {
    let Some(stage) = Stage::open("a_log_is_cleared_after_a_question") else {
        return;
    };
    stage.say("lamp-7", "info", "to be forgotten");
    stage.say("lamp-8", "info", "to be kept");
    stage.go_live("/logs?device=lamp-7");
    stage.browser.until_text(LINE, "to be forgotten");
    stage.browser.click("[data-test=clear]");
    stage.browser.click("dialog footer button:not(.danger)");
    stage
        .browser
        .until("the dialog to close", "!document.querySelector('dialog')");
    stage.browser.until_text(LINE, "to be forgotten");
    stage.browser.click("[data-test=clear]");
    stage.browser.click("dialog footer .danger");
    stage.browser.until_no_text(LINE, "to be forgotten");
    stage.browser.reload();
    stage.browser.until_text(".log-box", "Nothing matches");
    stage.go_live("/logs");
    stage.browser.until_text(LINE, "to be kept");
    stage.browser.until_no_text(LINE, "to be forgotten");
    stage.is_content();
}
