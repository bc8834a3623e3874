//! What the tests of the dashboard share: a fleet that runs, what its devices log, and a browser.

use serde_json::{Value, json};
use thinglog_tests::mosquitto;
use thinglog_tests::mqtt::{Connection, Version};
use thinglog_tests::process::Process;
use thinglog_tests::site::Site;
use thinglog_tests::webdriver::{self, Browser};

const STORE: &str = "[router.destinations.store]\ntype = \"store\"\n";

/// A fleet and who looks at it.
pub(crate) struct Stage {
    // Ends before what it looks at.
    pub(crate) browser: Browser,
    pub(crate) up: Process,
    pub(crate) site: Site,
}

impl Stage {
    /// Everything running; `None` where the browser is missing.
    pub(crate) fn open(test: &str) -> Option<Stage> {
        Stage::with(test, |_| ())
    }

    /// The same, with something prepared before thinglog starts.
    pub(crate) fn with(test: &str, prepare: impl FnOnce(&Site)) -> Option<Stage> {
        if !webdriver::installed(test) || !mosquitto::installed(test) {
            return None;
        }
        let site = Site::new();
        site.configure(STORE);
        prepare(&site);
        let up = site.up();
        let browser = Browser::start();
        Some(Stage { browser, up, site })
    }

    /// Opens a page.
    #[track_caller]
    pub(crate) fn go(&self, path: &str) {
        self.browser
            .open(&format!("http://{}{path}", self.site.http));
    }

    /// Opens the log page and waits until it goes along with what arrives.
    #[track_caller]
    pub(crate) fn go_live(&self, path: &str) {
        self.go(path);
        self.browser.until_text(".status-bar [role=status]", "Live");
    }

    /// Has a device log something; it is in the store when this returns.
    #[track_caller]
    pub(crate) fn log(&self, device: &str, source: &str, events: &[Value]) {
        let mut client = Connection::open(self.site.mqtt, device, Version::V5).unwrap();
        let lines: Vec<String> = events.iter().map(Value::to_string).collect();
        for lines in lines.chunks(1000) {
            let topic = format!("thinglog/logs/{device}/{source}");
            client.publish(&topic, lines.join("\n").as_bytes()).unwrap();
            client.acknowledged().unwrap();
        }
    }

    /// The same of one line.
    #[track_caller]
    pub(crate) fn say(&self, device: &str, level: &str, message: &str) {
        self.log(device, "app", &[event(level, message)]);
    }

    /// Runs `thinglog <arguments>`, which succeeds.
    #[track_caller]
    pub(crate) fn thinglog(&self, arguments: &[&str]) -> String {
        self.site.done(arguments, "")
    }

    /// The page complains about nothing.
    #[track_caller]
    pub(crate) fn is_content(&self) {
        let complaints = self.browser.complaints();
        assert!(complaints.is_empty(), "{complaints:#?}");
    }
}

/// One event as devices write it.
pub(crate) fn event(level: &str, message: &str) -> Value {
    json!({"level": level, "msg": message})
}
