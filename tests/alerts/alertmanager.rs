//! Prometheus' Alertmanager as a receiver: a real one (Debian's prometheus-alertmanager).

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use serde_json::Value;
use thinglog_tests::process::Process;
use thinglog_tests::site::{Site, free_address, http_get};
use thinglog_tests::wait;

use crate::hook::Hook;
use crate::told::publish;

const PROGRAM: &str = "prometheus-alertmanager";

/// Whether there is one. Without it a test is skipped, loudly; with `CI=true` it fails.
fn installed(test: &str) -> bool {
    if Command::new(PROGRAM).arg("--version").output().is_ok() {
        return true;
    }
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!ci, "{PROGRAM} is missing (Debian: {PROGRAM})");
    eprintln!("SKIPPED {test}: no {PROGRAM} (Debian: {PROGRAM})");
    false
}

/// Starts an Alertmanager that tells everything to `hook`.
fn start(site: &Site, address: SocketAddr, hook: &Hook) -> Process {
    let file = site.path().join("alertmanager.yml");
    let config = format!(
        "route:\n  receiver: hook\n  group_wait: 100ms\n  group_interval: 500ms\n\
         receivers:\n- name: hook\n  webhook_configs:\n  - url: http://{}/\n",
        hook.address
    );
    fs::write(&file, config).unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!(
            "--storage.path={}",
            site.path().join("am").display()
        ))
        .arg(format!("--web.listen-address={address}"))
        .arg("--cluster.listen-address=");
    let mut process = Process::start("alertmanager", site.path(), &mut command);
    wait::until("Alertmanager to listen", || {
        process.assert_running();
        TcpStream::connect(address).ok()
    });
    process
}

/// What it says is active.
fn active(address: SocketAddr) -> Vec<Value> {
    let (status, body) = wait::until("an answer of Alertmanager", || {
        http_get(address, "/api/v2/alerts")
    });
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[test]
fn alertmanager_hears_of_an_alert_and_of_its_end_although_it_was_away_at_first() {
    if !installed("alertmanager_hears_of_an_alert_and_of_its_end_although_it_was_away_at_first") {
        return;
    }
    let (site, hook, address) = (Site::new(), Hook::listening(), free_address());
    site.configure(&format!(
        "[router.receivers.am]\ntype = \"alertmanager\"\nurl = \"http://{address}\"\n\
         [router.alerts.many]\nwhen = 'message ~ /failed/'\ncount = 2\nwithin = \"3s\"\nto = [\"am\"]\n\
         severity = \"page\"\nlabels = {{ team = \"lights\" }}\n\
         annotations = {{ text = \"{{{{device}}}}: {{{{message}}}}\" }}\n"
    ));
    let _up = site.up();
    // They may fall into two windows on a machine that is busy.
    wait::until("a notification", || {
        publish(&site, "lamp-7", "failed");
        let page = site.get("/metrics");
        page.contains("thinglog_router_alerts_unsent 1")
            .then_some(())
    });
    let _alertmanager = start(&site, address, &hook);
    let of_hook = |status: &str| {
        let requests = hook.requests().into_iter();
        let mut alerts = requests.flat_map(|it| it.body["alerts"].as_array().unwrap().clone());
        alerts.find(|alert| alert["status"] == *status)
    };
    let told = wait::until("what Alertmanager sends on", || of_hook("firing"));
    let labels = &told["labels"];
    assert_eq!(labels["alertname"], "many");
    assert_eq!(labels["device"], "lamp-7");
    assert_eq!(
        (&labels["severity"], &labels["team"]),
        (&"page".into(), &"lights".into())
    );
    assert_eq!(told["annotations"]["text"], "lamp-7: failed");
    wait::until("the end", || of_hook("resolved"));
    assert_eq!(active(address), Vec::<Value>::new());
}
