//! What devices write is text to the pages, whatever it looks like.

use serde_json::json;

use crate::stage::Stage;

const MARKUP: &str =
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>";

#[test]
fn markup_and_control_characters_are_shown_and_run_nothing() {
    let Some(stage) = Stage::open("markup_and_control_characters_are_shown") else {
        return;
    };
    let controls = "bell \u{7} escape \u{1b}[31m turned \u{202e}txet end";
    let attributes = json!({"<b>key</b>": MARKUP, "javascript": "javascript:alert(1)"});
    stage.log(
        "lamp-7",
        "<i>source</i>".replace(['<', '>', '/'], "-").as_str(),
        &[
            json!({"level": "info", "msg": MARKUP, "attributes": attributes}),
            json!({"level": "info", "msg": controls}),
        ],
    );
    let line = "[data-test=log-line]:not([hidden])";
    for path in ["/logs", "/logs?q=onerror", "/logs?device=lamp-7"] {
        stage.go_live(path);
        stage.browser.until_text(line, MARKUP);
    }
    stage.browser.until_text(line, "bell");
    let shown = stage.browser.texts(line).join("\n");
    assert!(
        !shown.contains(['\u{7}', '\u{1b}', '\u{202e}']),
        "{shown:?}"
    );
    stage.browser.click(line);
    stage.browser.until_shown("aside.detail");
    stage.browser.until("the event in full", "document.querySelector('aside.detail').innerText.includes('onerror') || document.querySelector('aside.detail').innerText.includes('bell')");
    let count = |what: &str| stage.browser.count(&format!("main {what}"));
    assert_eq!((count("img"), count("script"), count("b")), (0, 0, 0));
    let title = stage.browser.run("return document.title", &[]);
    assert!(!title.to_string().contains("owned"), "{title}");
    stage.is_content();
}

#[test]
fn an_address_that_names_markup_is_shown_as_text() {
    let Some(stage) = Stage::open("an_address_that_names_markup") else {
        return;
    };
    let markup = "%3Cimg%20src%3Dx%20onerror%3D%22document.title%3D'owned'%22%3E";
    for path in [
        format!("/logs?q={markup}&device={markup}"),
        format!("/devices/{markup}"),
        format!("/?q={markup}&group={markup}"),
        format!("/sign-in?to={markup}"),
    ] {
        stage.go(&path);
        stage.browser.until(
            "the page",
            "document.querySelector('main').innerText.length > 0",
        );
        assert_eq!(stage.browser.count("main img"), 0, "{path}");
        let title = stage.browser.run("return document.title", &[]);
        assert_ne!(title, json!("owned"));
    }
}
