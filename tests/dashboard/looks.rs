//! How the pages look, against approved pictures, and what axe-core finds of barriers, dark and light.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use thinglog_tests::picture;

use crate::stage::Stage;

/// What differs with time, chance and machine is hidden; letters are those of a font that is installed.
const STILL: &str = "const sheet = new CSSStyleSheet(); sheet.replaceSync(` \
    [data-moves], [data-moves] * { visibility: hidden !important; font-size: 0 !important; } \
    * { animation: none !important; transition: none !important; caret-color: transparent !important; \
        font-family: 'DejaVu Sans' !important; } \
    pre, code, kbd, .mono, [role=log] * { font-family: 'DejaVu Sans Mono' !important; }`); \
    document.adoptedStyleSheets.push(sheet); document.activeElement?.blur(); \
    return document.fonts.ready.then(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true)))))";

/// Pages, and what is so once one is complete.
const PAGES: [(&str, &str, &str); 6] = [
    (
        "fleet",
        "/",
        "all('[data-test=fleet-row]').length === 6 && all('.sparkbox svg').length === 6",
    ),
    (
        "device",
        "/devices/lamp-1",
        "all('.rules li').length > 0 && all('.changes li').length > 0",
    ),
    (
        "logs",
        "/logs",
        "all('[data-test=log-line]:not([hidden])').length === 9 && text('.live') === 'Live'",
    ),
    (
        "levels",
        "/levels",
        "all('table.levels tbody tr').length === 3",
    ),
    (
        "destinations",
        "/destinations",
        "all('[data-test=destination-row] .is-online').length === 2",
    ),
    (
        "sign-in",
        "/sign-in",
        "all('input[type=password]').length === 1",
    ),
];

/// Opens a page and waits until it is complete.
fn open(stage: &Stage, path: &str, complete: &str) {
    stage.go(path);
    let looks = format!(
        "((all, text) => {complete} && !text('main').includes('Looking') && all('[aria-busy=true]').length === 0)\
         ((selector) => [...document.querySelectorAll(selector)], (selector) => document.querySelector(selector)?.innerText ?? '')"
    );
    stage.browser.until(path, &looks);
}

/// A fleet with something to see on every page.
fn fleet(stage: &Stage) {
    stage.thinglog(&["level", "set", "default", "INFO"]);
    stage.thinglog(&["group", "create", "eu"]);
    stage.thinglog(&["group", "create", "de", "--parent", "eu"]);
    stage.thinglog(&["level", "set", "group:eu", "WARN"]);
    for n in 1..=5 {
        let device = format!("lamp-{n}");
        stage.say(&device, "error", &format!("lamp {n} is too hot: 92 °C"));
        stage.thinglog(&["group", "add", if n < 3 { "eu" } else { "de" }, &device]);
    }
    for level in ["info", "warn", "error"] {
        stage.say("pump-1", level, &format!("pressure is {level}"));
    }
    stage.say("pump-1", "error", "the last of all");
}

/// axe-core from npm as one file; `tests/run` puts it in the target directory.
fn axe() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let target = own.ancestors().nth(3).unwrap();
    target.join("clients/axe/node_modules/axe-core/axe.min.js")
}

#[test]
fn no_page_has_a_serious_barrier() {
    const TEST: &str = "no_page_has_a_serious_barrier";
    let Some(stage) = Stage::open(TEST) else {
        return;
    };
    let Ok(axe) = fs::read_to_string(axe()) else {
        let missing = "no axe-core (tests/run gets it from npm)";
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!ci, "{missing}");
        eprintln!("SKIPPED {TEST}: {missing}");
        return;
    };
    fleet(&stage);
    let mut found = Vec::new();
    for scheme in ["dark", "light"] {
        stage.browser.prefer(scheme);
        for (name, path, complete) in PAGES {
            open(&stage, path, complete);
            stage.browser.run(&axe, &[]);
            let told = stage.browser.run_async(
                "const done = arguments[arguments.length - 1]; \
                 axe.run(document, {resultTypes: ['violations']}).then((found) => done(found.violations.map((v) => \
                 ({id: v.id, impact: v.impact, help: v.help, nodes: v.nodes.map((n) => n.html + ' ' + n.failureSummary)}))))",
            );
            let grave = told.as_array().unwrap().iter().filter(|violation| {
                [json!("serious"), json!("critical")].contains(&violation["impact"])
            });
            found.extend(grave.map(|violation| format!("{name}, {scheme}: {violation:#}")));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn pages_look_as_they_were_approved() {
    const TEST: &str = "pages_look_as_they_were_approved";
    let Some(stage) = Stage::open(TEST) else {
        return;
    };
    fleet(&stage);
    let approved = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboard/approved");
    let own = std::env::current_exe().unwrap();
    let kept = own.ancestors().nth(3).unwrap().join("pictures");
    let mut found = Vec::new();
    for scheme in ["dark", "light"] {
        stage.browser.prefer(scheme);
        for (name, path, complete) in PAGES {
            open(&stage, path, complete);
            assert_eq!(stage.browser.run(STILL, &[]), Value::Bool(true));
            let name = format!("{name}-{scheme}");
            let shown = stage.browser.picture();
            found.extend(picture::compare(&approved, &kept, &name, &shown).err());
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
