//! AWS IoT's API as AWS's own clients meet it: the aws command line and boto3, of PyPI, against a real
//! `thinglog up`, with access keys and without. What they ask and what they must get stands in the
//! Python files beside this one; what becomes of it on devices, here.
//!
//! `tests/run` installs them into the folder `clients/aws` of the target directory.

#![allow(clippy::unwrap_used)]

mod keys;
mod reach;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use thinglog_tests::site::Site;

/// The Python that has AWS's clients. Without it a test is skipped, loudly; with `CI=true` it fails.
fn python(test: &str) -> Option<PathBuf> {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let target = temporary.parent().expect("the target directory");
    let folder = target.join("clients/aws/bin");
    if folder.join("aws").exists() {
        return Some(folder.join("python"));
    }
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(
        !ci,
        "{} is missing; tests/run installs it",
        folder.display()
    );
    eprintln!(
        "SKIPPED {test}: no {}; tests/run installs it",
        folder.display()
    );
    None
}

/// An access key as `thinglog key add --json` tells it.
struct Key {
    id: String,
    secret: String,
}

impl Key {
    /// Makes one.
    fn add(site: &Site, user: &str, grant: &[&str]) -> Key {
        let arguments = [&["key", "add", user, "--json", "--file", "keys"], grant].concat();
        let told: Value = serde_json::from_str(&site.done(&arguments, "")).unwrap();
        let field = |name: &str| told[name].as_str().unwrap().to_owned();
        Key {
            id: field("id"),
            secret: field("secret"),
        }
    }

    /// Where nobody signs in AWS's clients sign all the same.
    fn any() -> Key {
        Key {
            id: "any".into(),
            secret: "any".into(),
        }
    }
}

/// AWS's clients, with a key, towards a site. What the machine has configured for AWS is left out.
fn clients(program: &Path, site: &Site, key: &Key) -> Command {
    let mut command = Command::new(program);
    let own = std::env::vars_os().map(|(name, _)| name);
    let foreign = own.filter(|name| {
        let name = name.to_string_lossy().to_ascii_lowercase();
        name.starts_with("aws_") || name.ends_with("_proxy")
    });
    for name in foreign {
        command.env_remove(name);
    }
    command
        .env("AWS_ENDPOINT_URL", format!("http://{}", site.http))
        .env("AWS_ACCESS_KEY_ID", &key.id)
        .env("AWS_SECRET_ACCESS_KEY", &key.secret)
        .env("AWS_DEFAULT_REGION", "eu-north-1")
        .env("AWS_CONFIG_FILE", site.path().join("none"))
        .env("AWS_SHARED_CREDENTIALS_FILE", site.path().join("none"))
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(site.path());
    command
}

/// What tells a part of the story.
fn story(python: &Path, site: &Site, key: &Key, part: &str) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("aws/story.py");
    let mut command = clients(python, site, key);
    command.arg(script).arg(part);
    command
}

/// Tells a part of the story.
#[track_caller]
fn tell(python: &Path, site: &Site, key: &Key, part: &str, more: &[(&str, &str)]) {
    let mut command = story(python, site, key, part);
    let output = command.envs(more.iter().copied()).output().unwrap();
    assert!(
        output.status.success(),
        "{part}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs `aws iot <line>`, which must succeed.
#[track_caller]
fn aws(python: &Path, site: &Site, key: &Key, line: &str) {
    let program = python.with_file_name("aws");
    let output = clients(&program, site, key)
        .arg("iot")
        .args(line.split_whitespace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
}

/// A part told with the key of an admin.
#[track_caller]
fn with_key(test: &str, part: &str) {
    let Some(python) = python(test) else { return };
    let site = Site::new();
    site.configure_http("access_keys = \"keys\"");
    let key = Key::add(&site, "root", &["--role", "admin"]);
    let _up = site.up();
    tell(&python, &site, &key, part, &[]);
}

/// A part told on loopback, where nobody signs in.
#[track_caller]
fn without_sign_in(test: &str, part: &str) {
    let Some(python) = python(test) else { return };
    let site = Site::new();
    let _up = site.up();
    tell(&python, &site, &Key::any(), part, &[]);
}

#[test]
fn the_page_on_logging_is_gone_through_with_a_key() {
    with_key(
        "the_page_on_logging_is_gone_through_with_a_key",
        "logging_page",
    );
}

#[test]
fn the_page_on_logging_is_gone_through_without_sign_in() {
    without_sign_in(
        "the_page_on_logging_is_gone_through_without_sign_in",
        "logging_page",
    );
}

#[test]
fn logging_refuses_as_aws_does() {
    with_key("logging_refuses_as_aws_does", "logging_refusals");
}

#[test]
fn static_groups_are_aws_s_with_a_key() {
    with_key("static_groups_are_aws_s_with_a_key", "static_groups");
}

#[test]
fn static_groups_are_aws_s_without_sign_in() {
    without_sign_in("static_groups_are_aws_s_without_sign_in", "static_groups");
}

#[test]
fn groups_refuse_as_aws_does() {
    with_key("groups_refuse_as_aws_does", "group_refusals");
}

#[test]
fn things_go_in_and_out_of_groups() {
    with_key("things_go_in_and_out_of_groups", "membership");
}

#[test]
fn dynamic_groups_are_aws_s() {
    with_key("dynamic_groups_are_aws_s", "dynamic_groups");
}

#[test]
fn things_are_aws_s() {
    with_key("things_are_aws_s", "things_story");
}

#[test]
fn things_refuse_as_aws_does() {
    with_key("things_refuse_as_aws_does", "thing_refusals");
}

#[test]
fn lists_come_page_by_page() {
    with_key("lists_come_page_by_page", "pagination");
}
