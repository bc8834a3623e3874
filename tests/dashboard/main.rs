//! The dashboard in a real browser: Chromium without a screen, steered by its driver, over a real broker
//! and router and what real clients publish.

#![allow(clippy::unwrap_used)]

mod access;
mod fleet;
mod keys;
mod logs;
mod looks;
mod stage;
mod text;

use std::process::Command;

/// The modules of the pages that need no browser have tests of their own, for Node.
#[test]
fn the_modules_of_the_pages_pass_their_own_tests() {
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../router/dashboard/web-tests");
    if Command::new("node").arg("--version").output().is_err() {
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!ci, "node is missing (Debian: npm)");
        eprintln!("SKIPPED the_modules_of_the_pages_pass_their_own_tests: no node (Debian: npm)");
        return;
    }
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".test.mjs"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let done = Command::new("node")
        .arg("--test")
        .args(files)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{told}");
}
