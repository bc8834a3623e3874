//! Chromium that a test steers, by its driver and the protocol of WebDriver (W3C): pages, clicks, keys,
//! scripts, pictures, and what the page complained about.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Process;
use crate::wait;

/// How large a page is, CSS pixels.
pub const WIDTH: u32 = 1280;
/// See [`WIDTH`].
pub const HEIGHT: u32 = 900;
/// An answer may be this late: a script waits for its page.
const PATIENCE: Duration = Duration::from_secs(120);
/// The name under which the protocol refers to an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Whether browser and driver are there. Without them a test is skipped, loudly; with `CI=true` it fails.
pub fn installed(test: &str) -> bool {
    let runs = |name: &str| Command::new(name).arg("--version").output().is_ok();
    let missing: Vec<&str> = ["chromium", "chromedriver"]
        .into_iter()
        .filter(|name| !runs(name))
        .collect();
    if missing.is_empty() {
        return true;
    }
    let missing = format!(
        "no {} (Debian: chromium, chromium-driver)",
        missing.join(", ")
    );
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!ci, "{missing}");
    eprintln!("SKIPPED {test}: {missing}");
    false
}

/// A browser with one window. Dropping it ends it.
pub struct Browser {
    driver: SocketAddr,
    session: String,
    folder: TempDir,
    process: Process,
}

/// An element of the page, until the page replaces it.
pub struct Element<'a> {
    browser: &'a Browser,
    id: String,
}

/// What the driver says when something cannot be done: the protocol's word, and an explanation.
#[derive(Debug)]
pub struct Failure {
    /// `stale element reference` and the like.
    pub error: String,
    /// For people.
    pub message: String,
}

impl Failure {
    /// Whether the page was just changing, so that another attempt may do.
    fn passes(&self) -> bool {
        [
            "stale element reference",
            "no such element",
            "element click intercepted",
            "element not interactable",
        ]
        .contains(&&*self.error)
    }
}

impl Browser {
    /// Starts one, with a profile of its own, and downloads into [`Browser::downloads`].
    pub fn start() -> Browser {
        let folder = tempfile::tempdir().expect("a temporary directory");
        // However the test ends, the driver ends with it, and the browser with its pipe to the driver.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "chromedriver", "--port=0"])
            .env("TZ", "UTC")
            .env("HOME", folder.path());
        let mut process = Process::start("chromedriver", folder.path(), &mut command);
        let port: u16 = wait::until("chromedriver to listen", || {
            process.assert_running();
            let output = process.output();
            let (_, rest) = output.split_once("started successfully on port ")?;
            rest.split_once('.')?.0.parse().ok()
        });
        let driver = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let downloads = folder.path().join("downloads");
        fs::create_dir(&downloads).expect("a folder for downloads");
        let wanted = capabilities(&folder.path().join("profile"), &downloads);
        let begun = ask(driver, "POST", "/session", &wanted);
        let begun = begun.unwrap_or_else(|failure| panic!("no browser: {failure:?}"));
        let session = begun["sessionId"].as_str().expect("a session");
        let browser = Browser {
            driver,
            session: format!("/session/{session}"),
            folder,
            process,
        };
        // The window's own parts are of another height with another version.
        let size =
            json!({"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": false});
        browser.devtools("Emulation.setDeviceMetricsOverride", &size);
        browser
    }

    /// Where downloads go.
    pub fn downloads(&self) -> PathBuf {
        self.folder.path().join("downloads")
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value, Failure> {
        let path = format!("{}{path}", self.session);
        ask(self.driver, method, &path, body)
    }

    #[track_caller]
    fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let done = self.call(method, path, body);
        done.unwrap_or_else(|failure| panic!("{method} {path}: {failure:?}\n{}", self.state()))
    }

    /// Opens a page and waits until it is loaded.
    #[track_caller]
    pub fn open(&self, url: &str) {
        self.done("POST", "/url", &json!({"url": url}));
    }

    /// Loads the page anew.
    #[track_caller]
    pub fn reload(&self) {
        self.done("POST", "/refresh", &json!({}));
    }

    /// What a script returns; `arguments` are its `arguments`.
    #[track_caller]
    pub fn run(&self, script: &str, arguments: &[Value]) -> Value {
        let body = json!({"script": script, "args": arguments});
        self.done("POST", "/execute/sync", &body)
    }

    /// What a script gives to the function that is its last argument.
    #[track_caller]
    pub fn run_async(&self, script: &str) -> Value {
        let body = json!({"script": script, "args": []});
        self.done("POST", "/execute/async", &body)
    }

    /// The value of an expression, once it is true in JavaScript's eyes. Panics with what the page shows.
    #[track_caller]
    pub fn until(&self, what: &str, expression: &str) -> Value {
        self.until_given(what, expression, &[])
    }

    /// The same, of an expression over `arguments`.
    #[track_caller]
    pub fn until_given(&self, what: &str, expression: &str, arguments: &[Value]) -> Value {
        let script = format!("return ({expression});");
        let deadline = std::time::Instant::now() + wait::PATIENCE;
        loop {
            let value = self.run(&script, arguments);
            let is_true = match &value {
                Value::Null | Value::Bool(false) => false,
                Value::String(text) => !text.is_empty(),
                Value::Number(number) => number.as_f64() != Some(0.0),
                _ => true,
            };
            if is_true {
                return value;
            }
            let late = std::time::Instant::now() > deadline;
            assert!(!late, "waited in vain for {what}\n{}", self.state());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Until an element is there that is shown.
    #[track_caller]
    pub fn until_shown(&self, selector: &str) {
        let shown = "[...document.querySelectorAll(arguments[0])].some((e) => e.checkVisibility())";
        self.until_given(selector, shown, &[json!(selector)]);
    }

    /// Until some element of the selector has this text in it.
    #[track_caller]
    pub fn until_text(&self, selector: &str, text: &str) {
        let has = "[...document.querySelectorAll(arguments[0])].some((e) => e.innerText.includes(arguments[1]))";
        let what = format!("{selector} with the text {text:?}");
        self.until_given(&what, has, &[json!(selector), json!(text)]);
    }

    /// Until no element of the selector has this text in it.
    #[track_caller]
    pub fn until_no_text(&self, selector: &str, text: &str) {
        let has = "![...document.querySelectorAll(arguments[0])].some((e) => e.innerText.includes(arguments[1]))";
        let what = format!("{selector} without the text {text:?}");
        self.until_given(&what, has, &[json!(selector), json!(text)]);
    }

    /// The texts of all elements of a selector.
    #[track_caller]
    pub fn texts(&self, selector: &str) -> Vec<String> {
        let script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText)";
        let found = self.run(script, &[json!(selector)]);
        let texts = found.as_array().into_iter().flatten();
        texts
            .map(|text| text.as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// How many elements a selector has.
    #[track_caller]
    pub fn count(&self, selector: &str) -> u64 {
        let script = "return document.querySelectorAll(arguments[0]).length";
        self.run(script, &[json!(selector)]).as_u64().unwrap_or(0)
    }

    /// The path and query of the page.
    #[track_caller]
    pub fn place(&self) -> String {
        let place = self.run("return location.pathname + location.search", &[]);
        place.as_str().unwrap_or_default().to_owned()
    }

    fn find(&self, selector: &str) -> Result<Element<'_>, Failure> {
        let body = json!({"using": "css selector", "value": selector});
        let found = self.call("POST", "/element", &body)?;
        let id = found[ELEMENT].as_str().unwrap_or_default().to_owned();
        Ok(Element { browser: self, id })
    }

    /// Does something with the first element of a selector, once that can be done.
    #[track_caller]
    fn with(&self, selector: &str, act: impl Fn(&Element<'_>) -> Result<Value, Failure>) -> Value {
        let deadline = std::time::Instant::now() + wait::PATIENCE;
        loop {
            match self.find(selector).and_then(|element| act(&element)) {
                Ok(value) => return value,
                Err(failure) if failure.passes() && std::time::Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(failure) => panic!("{selector}: {failure:?}\n{}", self.state()),
            }
        }
    }

    /// Clicks the first element of a selector, once that can be clicked.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        self.with(selector, |element| element.post("click", &json!({})));
    }

    /// Types into the first element of a selector, behind what is there.
    #[track_caller]
    pub fn type_into(&self, selector: &str, text: &str) {
        self.with(selector, |element| {
            element.post("value", &json!({"text": text}))
        });
    }

    /// Empties an element for text and types into it.
    #[track_caller]
    pub fn fill(&self, selector: &str, text: &str) {
        self.with(selector, |element| element.post("clear", &json!({})));
        self.type_into(selector, text);
    }

    /// Presses and releases keys, one after the other, wherever the focus is. Special keys are the
    /// protocol's: [`TAB`], [`ENTER`].
    #[track_caller]
    pub fn press(&self, keys: &str) {
        let actions = keys.chars().flat_map(|key| {
            ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()}))
        });
        let actions: Vec<Value> = actions.collect();
        let body = json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]});
        self.done("POST", "/actions", &body);
    }

    /// The role and the name that assistive technology is told of what has the focus.
    #[track_caller]
    pub fn focus(&self) -> (String, String) {
        let active = self.done("GET", "/element/active", &Value::Null);
        let id = active[ELEMENT].as_str().unwrap_or_default();
        let told = |what: &str| {
            let told = self.call("GET", &format!("/element/{id}/{what}"), &Value::Null);
            let told = told.unwrap_or_default();
            told.as_str().unwrap_or_default().to_owned()
        };
        (told("computedrole"), told("computedlabel"))
    }

    /// Calls the browser's own protocol.
    #[track_caller]
    pub fn devtools(&self, command: &str, parameters: &Value) -> Value {
        let body = json!({"cmd": command, "params": parameters});
        self.done("POST", "/goog/cdp/execute", &body)
    }

    /// Pages prefer this scheme of colours from now on: `dark` or `light`. Nothing moves.
    #[track_caller]
    pub fn prefer(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme},
                              {"name": "prefers-reduced-motion", "value": "reduce"}]);
        self.devtools("Emulation.setEmulatedMedia", &json!({"features": features}));
    }

    /// What the window shows, a PNG in base64.
    #[track_caller]
    pub fn picture(&self) -> String {
        let picture = self.done("GET", "/screenshot", &Value::Null);
        picture.as_str().unwrap_or_default().to_owned()
    }

    /// What the page complained about since the last call: errors of scripts, breaches of its policy,
    /// files that are missing; and requests that were refused.
    #[track_caller]
    pub fn complaints(&self) -> Vec<String> {
        let log = self.done("POST", "/se/log", &json!({"type": "browser"}));
        let entries = log.as_array().into_iter().flatten();
        let severe = entries.filter(|entry| entry["level"] == "SEVERE");
        severe
            .map(|entry| entry["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Where the browser is and what it shows, for a test that failed.
    fn state(&self) -> String {
        let script = "return location.href + '\\n' + document.body.innerText.slice(0, 4000)";
        let shown = self.call(
            "POST",
            "/execute/sync",
            &json!({"script": script, "args": []}),
        );
        let log = self.call("POST", "/se/log", &json!({"type": "browser"}));
        let shown = shown.unwrap_or_default();
        format!(
            "--- the page: {}\n--- its log: {log:?}",
            shown.as_str().unwrap_or("nothing")
        )
    }
}

impl Element<'_> {
    fn post(&self, what: &str, body: &Value) -> Result<Value, Failure> {
        let path = format!("/element/{}/{what}", self.id);
        self.browser.call("POST", &path, body)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.call("DELETE", "", &Value::Null);
        self.process.kill();
    }
}

/// The tabulator key.
pub const TAB: &str = "\u{e004}";
/// The enter key.
pub const ENTER: &str = "\u{e007}";
/// The escape key.
pub const ESCAPE: &str = "\u{e00c}";

fn capabilities(profile: &Path, downloads: &Path) -> Value {
    let arguments = [
        "--headless=new".to_owned(),
        "--no-sandbox".into(),
        "--disable-gpu".into(),
        "--disable-quic".into(),
        "--disable-dev-shm-usage".into(),
        "--disable-background-networking".into(),
        "--disable-component-update".into(),
        "--disable-sync".into(),
        "--no-first-run".into(),
        "--remote-debugging-pipe".into(),
        "--hide-scrollbars".into(),
        "--disable-lcd-text".into(),
        "--font-render-hinting=none".into(),
        "--force-color-profile=srgb".into(),
        "--force-device-scale-factor=1".into(),
        "--lang=en".into(),
        format!("--window-size={WIDTH},{HEIGHT}"),
        format!("--user-data-dir={}", profile.display()),
    ];
    json!({"capabilities": {"alwaysMatch": {
        "browserName": "chrome",
        "goog:loggingPrefs": {"browser": "ALL"},
        "goog:chromeOptions": {
            "binary": "/usr/bin/chromium",
            "args": arguments,
            "prefs": {"download.default_directory": downloads, "download.prompt_for_download": false},
        },
        "timeouts": {"script": 60_000, "pageLoad": 60_000},
    }}})
}

/// One request and its answer.
fn ask(driver: SocketAddr, method: &str, path: &str, body: &Value) -> Result<Value, Failure> {
    let broken = |message: String| Failure {
        error: "no answer".into(),
        message,
    };
    let answer = exchange(driver, method, path, body).map_err(|error| broken(error.to_string()))?;
    let told: Value = serde_json::from_slice(&answer).map_err(|error| broken(error.to_string()))?;
    let value = &told["value"];
    match value["error"].as_str() {
        None => Ok(value.clone()),
        Some(error) => Err(Failure {
            error: error.to_owned(),
            message: value["message"].as_str().unwrap_or_default().to_owned(),
        }),
    }
}

/// The body of the answer.
fn exchange(
    driver: SocketAddr,
    method: &str,
    path: &str,
    body: &Value,
) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(driver)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {driver}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    // The driver keeps the connection, so the end is where the head says.
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(|_| ErrorKind::InvalidData)?;
        }
    }
    let mut answer = vec![0; length];
    reader.read_exact(&mut answer)?;
    Ok(answer)
}
