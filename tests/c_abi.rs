//! The C library as firmware has it: programs compiled against the header and the built library, shared
//! and static, that log to a real broker; and the library from another language.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use thinglog_tests::process::{Process, binary};
use thinglog_tests::site::Site;

fn c() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("edge/c")
}

/// Compiles `source` into `folder`; `library` is what it is linked with.
fn compile(source: &Path, folder: &Path, library: &[&str]) -> PathBuf {
    let program = folder.join(source.file_stem().unwrap());
    let output = Command::new("cc")
        .args([
            "-std=c99",
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            "-I",
        ])
        .arg(c().join("include"))
        .arg(source)
        .args(library)
        .arg("-o")
        .arg(&program)
        .output()
        .expect("a C compiler");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    program
}

/// Installs the library below `folder`; returns where it is then.
fn install(folder: &Path) -> PathBuf {
    let prefix = folder.join("usr");
    let output = Command::new(c().join("install"))
        .arg("--prefix")
        .arg(&prefix)
        .arg("--from")
        .arg(binary("libthinglog.so").parent().unwrap())
        .output()
        .expect("a shell");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    prefix.join("lib")
}

/// Options that link with the installed library and have the program find it.
fn shared_library(folder: &Path) -> [String; 4] {
    let library = install(folder);
    let library = library.to_str().unwrap();
    [
        format!("-L{library}"),
        format!("-Wl,-rpath,{library}"),
        "-lthinglog".into(),
        "-lpthread".into(),
    ]
}

/// What a program prints; `None` when it is not there, which fails with CI=true.
fn printed(program: &str, debian: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program}: {errors}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(_) => {
            let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!ci, "no {program} (Debian: {debian})");
            eprintln!("SKIPPED: no {program} (Debian: {debian})");
            None
        }
    }
}

/// Runs a program to its end, which has to be a good one.
fn run(name: &str, site: &Site, command: &mut Command) -> String {
    let mut process = Process::start(name, site.path(), command);
    let status = process.wait();
    let output = process.output();
    assert!(status.success(), "{name}: {status}: {output}");
    output
}

#[test]
fn firmware_in_c_logs_through_the_shared_library() {
    let site = Site::new();
    let _up = site.up();
    let library = shared_library(site.path());
    let library = library.each_ref().map(String::as_str);
    let sensor = compile(&c().join("examples/sensor.c"), site.path(), &library);
    let mut command = Command::new(sensor);
    command.args([&site.mqtt.to_string(), "lamp-7", "90", "1"]);
    let output = run("sensor", &site, &mut command);
    assert_eq!(output, "92 events, 92 acknowledged, 0 dropped\n");

    let end = site.event("sensor ends after 90 readings");
    assert_eq!(
        (&end["device"], &end["source"]),
        (&"lamp-7".into(), &"sensor".into())
    );
    assert_eq!(
        (&end["severity"], &end["level"]),
        (&10.into(), &"INFO".into())
    );
    let events = site.events();
    let readings: Vec<_> = events
        .iter()
        .filter_map(|event| event["attributes"].as_object())
        .collect();
    assert_eq!(readings.len(), 90);
    for (number, reading) in (1..).zip(readings) {
        assert_eq!(reading["reading"], number);
        assert!(reading["celsius"].is_f64() && reading["simulated"].is_boolean());
        assert_eq!(reading["zone"], "thermal_zone0");
    }
}

#[test]
fn firmware_in_c_logs_through_the_static_library_and_leaves_on_sigterm() {
    let site = Site::new();
    let _up = site.up();
    let archive = binary("libthinglog.a");
    let library = [archive.to_str().unwrap(), "-lpthread", "-ldl", "-lm"];
    let sensor = compile(&c().join("examples/sensor.c"), site.path(), &library);
    let mut command = Command::new(sensor);
    let spool = site.path().join("spool");
    command
        .args([&site.mqtt.to_string(), "lamp-8", "0", "1"])
        .arg(&spool);
    let mut process = Process::start("sensor", site.path(), &mut command);
    site.event("a reading");
    let status = process.terminate();
    assert!(status.success(), "{status}: {}", process.output());
    assert!(process.output().contains(" 0 dropped"));
    assert!(spool.join("journal").is_dir(), "it had a spool on disk");
}

#[test]
fn careless_callers_get_answers_instead_of_crashes() {
    let site = Site::new();
    let _up = site.up();
    let library = shared_library(site.path());
    let library = library.each_ref().map(String::as_str);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("c/abuse.c");
    let abuse = compile(&source, site.path(), &library);
    run(
        "abuse",
        &site,
        Command::new(abuse).arg(site.mqtt.to_string()),
    );

    let cafe = site.event("caf\u{FFFD}");
    assert_eq!(cafe["attributes"]["thinglog.invalid_utf8"], true);
    assert_eq!(
        (&cafe["level"], &cafe["source"]),
        (&"WARN".into(), &"bad".into())
    );
    let nameless = site.event("neither source nor severity");
    assert_eq!(
        (&nameless["level"], &nameless["source"]),
        (&"INFO".into(), &"app".into())
    );
    let keyless = site.event("no key");
    assert_eq!(keyless["attributes"]["thinglog.dropped_attributes"], 1);
    assert_eq!(keyless["time"], "2026-01-02T03:04:05.000000000Z");
    let events = site.events();
    let large = events
        .iter()
        .find(|event| event["truncated"] == true)
        .unwrap();
    assert_eq!(large["message"], "x".repeat(256 << 10));
    let threads = events.iter().filter(|event| event["source"] == "threads");
    let texts: BTreeSet<&str> = threads
        .filter_map(|event| event["message"].as_str())
        .collect();
    assert_eq!(texts.len(), 4000);
    assert!(!site.has_event("filtered") && !site.has_event("late"));
}

#[test]
fn the_library_exports_what_the_header_declares_and_nothing_else() {
    let header = std::fs::read_to_string(c().join("include/thinglog.h")).unwrap();
    let inline = [
        "thinglog_string",
        "thinglog_integer",
        "thinglog_number",
        "thinglog_boolean",
    ];
    let declared: BTreeSet<String> = header
        .lines()
        .filter(|line| !line.starts_with([' ', '*', '/', '#']) && !line.contains("static inline"))
        .filter_map(|line| line.split_once('(')?.0.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("thinglog_") && !inline.contains(name))
        .map(str::to_owned)
        .collect();
    let output = Command::new("nm")
        .args(["-D", "--defined-only", "--format=just-symbols"])
        .arg(binary("libthinglog.so"))
        .output()
        .expect("nm, which comes with the linker");
    let text = String::from_utf8(output.stdout).unwrap();
    let exported: BTreeSet<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    assert!(declared.len() > 10, "{declared:?}");
    assert_eq!(exported, declared);
}

#[test]
fn the_installed_library_says_its_version_and_what_programs_are_to_ask_for() {
    let folder = tempfile::tempdir().unwrap();
    let library = install(folder.path());
    let version = env!("CARGO_PKG_VERSION");
    let file = library.join("libthinglog.so");
    let real = file.canonicalize().unwrap();
    assert!(real.ends_with(format!("libthinglog.so.{version}")));
    let header = std::fs::read_to_string(c().join("include/thinglog.h")).unwrap();
    let define = format!("#define THINGLOG_VERSION \"{version}\"\n");
    assert!(header.contains(&define), "the header is of another version");

    let dynamic = printed("readelf", "binutils", &["-d", file.to_str().unwrap()]);
    if let Some(dynamic) = dynamic {
        let name = dynamic.lines().find(|line| line.contains("SONAME"));
        assert!(name.unwrap().contains("[libthinglog.so.0]"), "{name:?}");
    }
    let config = library.join("pkgconfig/thinglog.pc");
    let config = config.to_str().unwrap();
    if let Some(about) = printed("pkg-config", "pkgconf", &["--cflags", "--libs", config]) {
        let include = folder.path().join("usr/include");
        assert!(
            about.contains(&format!("-I{}", include.display())),
            "{about}"
        );
        assert!(
            about.contains(&format!("-L{}", library.display())),
            "{about}"
        );
        assert!(about.contains("-lthinglog"), "{about}");
        let known = printed("pkg-config", "pkgconf", &["--modversion", config]);
        assert_eq!(known.unwrap().trim(), version);
    }
}

#[test]
fn python_logs_through_the_library() {
    if Command::new("python3").arg("--version").output().is_err() {
        assert!(
            std::env::var("CI").is_err(),
            "python3 is missing (Debian: python3)"
        );
        eprintln!("SKIPPED python_logs_through_the_library: no python3 (Debian: python3)");
        return;
    }
    let site = Site::new();
    let _up = site.up();
    let mut command = Command::new("python3");
    command
        .arg(c().join("examples/sensor.py"))
        .arg(binary("libthinglog.so"));
    command.args([&site.mqtt.to_string(), "lamp-9"]);
    run("python", &site, &mut command);
    let hot = site.event("it is too hot");
    assert_eq!(
        (&hot["device"], &hot["level"]),
        (&"lamp-9".into(), &"WARN".into())
    );
    assert_eq!(hot["attributes"]["celsius"], 91.5);
    let version = env!("CARGO_PKG_VERSION");
    site.event(&format!("python begins, thinglog {version}, grüßt"));
}
