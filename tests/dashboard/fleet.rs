//! The fleet, a device and the levels: who is there, a level for a while, why it is so, destinations.

use thinglog_tests::wait;

use crate::stage::Stage;

#[test]
fn devices_are_listed_found_and_opened() {
    let Some(stage) = Stage::open("devices_are_listed_found_and_opened") else {
        return;
    };
    for n in 1..=3 {
        stage.say(&format!("lamp-{n}"), "info", "here");
    }
    stage.say("pump-1", "error", "broken");
    stage.go("/");
    let row = "[data-test=fleet-row]";
    for device in ["lamp-1", "lamp-2", "lamp-3", "pump-1"] {
        stage.browser.until_text(row, device);
    }
    stage.browser.type_into("[data-test=search]", "pump");
    stage.browser.until_no_text(row, "lamp");
    stage.browser.until_text(row, "pump-1");
    stage.browser.click(&format!("{row} th .name a"));
    stage.browser.until_text("h1", "pump-1");
    assert_eq!(stage.browser.place(), "/devices/pump-1");
    stage.is_content();
}

#[test]
fn a_level_set_for_a_while_holds_and_falls_back() {
    let Some(stage) = Stage::open("a_level_set_for_a_while") else {
        return;
    };
    stage.thinglog(&["level", "set", "default", "INFO"]);
    stage.say("lamp-7", "info", "here");
    stage.go("/devices/lamp-7");
    let answer = ".explained .answer";
    stage.browser.until_text(answer, "INFO");
    // However slow the machine is, some span is long enough to be seen and short enough to end.
    let seen = [2, 8, 30].into_iter().any(|seconds| {
        stage.browser.click("[data-test=level-set]");
        stage.browser.click("dialog input[value=ERROR]");
        let choose = "const [span] = document.querySelectorAll('dialog select'); \
            span.value = 'until'; span.dispatchEvent(new Event('change')); \
            const until = document.querySelector('dialog input[type=datetime-local]'); \
            until.value = new Date(Date.now() + (arguments[0] + 1) * 1000).toISOString().slice(0, 19); \
            window.ends = Date.parse(until.value + 'Z');";
        stage.browser.run(choose, &[seconds.into()]);
        stage.browser.click("dialog button[type=submit]");
        let shown = "!document.querySelector('dialog') || document.querySelector('dialog .problem:not([hidden])')";
        stage.browser.until("an answer", shown);
        if stage.browser.count("dialog") > 0 {
            // Its end was past before it was set.
            stage.browser.click("dialog header button");
            return false;
        }
        let seen = stage.browser.until(
            "the level or its end",
            "document.querySelector('.explained .answer')?.innerText.includes('ERROR') ? 'seen' \
             : Date.now() > window.ends ? 'late' : null",
        );
        stage.browser.until_text(answer, "INFO");
        seen == "seen"
    });
    assert!(seen, "the temporary level was never shown");
    let told = stage.thinglog(&["level", "explain", "lamp-7", "--json"]);
    assert!(told.contains("INFO"), "{told}");
    stage.browser.until_text(".changes", "temporary");
}

#[test]
fn groups_are_a_tree_with_levels_that_can_be_set_and_explained() {
    let Some(stage) = Stage::open("groups_are_a_tree_with_levels") else {
        return;
    };
    stage.thinglog(&["group", "create", "eu"]);
    stage.thinglog(&["group", "create", "de", "--parent", "eu"]);
    stage.say("lamp-7", "info", "here");
    stage.thinglog(&["group", "add", "de", "lamp-7"]);
    stage.go("/levels");
    let row = "table.levels tbody tr";
    stage.browser.until_text(row, "eu");
    stage.browser.until_text(row, "de");
    stage.browser.click("[data-focus='set group eu']");
    stage.browser.click("dialog input[value=WARN]");
    stage.browser.click("dialog button[type=submit]");
    stage.browser.until_text(row, "WARN");
    wait::until("the level by the command line", || {
        let told = stage.thinglog(&["level", "explain", "lamp-7", "--json"]);
        told.contains("WARN").then_some(())
    });
    stage.browser.type_into("form.bar input", "lamp-7");
    stage.browser.click("[data-test=level-why]");
    stage.browser.until_text(".explained .answer", "WARN");
    stage.browser.until_text(".explained .has-won", "eu");
    stage.is_content();
}

#[test]
fn destinations_say_how_they_are() {
    let Some(stage) = Stage::open("destinations_say_how_they_are") else {
        return;
    };
    for n in 0..5 {
        stage.say("lamp-7", "info", &format!("line {n}"));
    }
    stage.go("/destinations");
    let row = "[data-test=destination-row]";
    stage.browser.until_text(row, "file");
    stage.browser.until_text(row, "store");
    let delivered = "[...document.querySelectorAll('[data-test=destination-row]')]\
        .every((row) => row.querySelector('[data-label=Delivered]').innerText === '5')";
    stage.browser.until("all to be delivered", delivered);
    stage.is_content();
}
