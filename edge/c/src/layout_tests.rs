//! The header against the code: the C compiler lays structures out as Rust does, and takes the header
//! as C99 and as C++.

use std::{
    mem::{offset_of, size_of},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    attributes::{Attribute, AttributeValue},
    counters::Counters,
};

const HEADER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/include");

/// Runs a compiler over `source`; panics with what it says when it does not take it.
fn compile(compiler: &str, options: &[&str], source: &Path) {
    let mut command = Command::new(compiler);
    command.args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I", HEADER]);
    let output = command.args(options).arg(source).output();
    let output = output.unwrap_or_else(|error| panic!("{compiler}: {error}"));
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{compiler} {options:?}: {complaints}"
    );
}

fn write(folder: &Path, name: &str, source: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, source).unwrap();
    path
}

#[test]
fn structures_lie_in_memory_as_the_header_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let fields = [
        ("thinglog_attribute", "key", offset_of!(Attribute, key)),
        ("thinglog_attribute", "type", offset_of!(Attribute, kind)),
        (
            "thinglog_attribute",
            "length",
            offset_of!(Attribute, length),
        ),
        ("thinglog_attribute", "value", offset_of!(Attribute, value)),
        ("thinglog_counters", "size", offset_of!(Counters, size)),
        (
            "thinglog_counters",
            "accepted",
            offset_of!(Counters, accepted),
        ),
        (
            "thinglog_counters",
            "filtered",
            offset_of!(Counters, filtered),
        ),
        (
            "thinglog_counters",
            "dropped",
            offset_of!(Counters, dropped),
        ),
        (
            "thinglog_counters",
            "acknowledged",
            offset_of!(Counters, acknowledged),
        ),
        (
            "thinglog_counters",
            "batches",
            offset_of!(Counters, batches),
        ),
        (
            "thinglog_counters",
            "payload_bytes",
            offset_of!(Counters, payload_bytes),
        ),
        (
            "thinglog_counters",
            "queued_events",
            offset_of!(Counters, queued_events),
        ),
        (
            "thinglog_counters",
            "in_flight_events",
            offset_of!(Counters, in_flight_events),
        ),
        (
            "thinglog_counters",
            "memory_bytes",
            offset_of!(Counters, memory_bytes),
        ),
        (
            "thinglog_counters",
            "spool_bytes",
            offset_of!(Counters, spool_bytes),
        ),
        (
            "thinglog_counters",
            "unreadable_records",
            offset_of!(Counters, unreadable_records),
        ),
        (
            "thinglog_counters",
            "connects",
            offset_of!(Counters, connects),
        ),
        (
            "thinglog_counters",
            "connected",
            offset_of!(Counters, connected),
        ),
    ];
    let sizes = [
        ("thinglog_attribute", size_of::<Attribute>()),
        ("thinglog_counters", size_of::<Counters>()),
        (
            "((thinglog_attribute *)0)->value",
            size_of::<AttributeValue>(),
        ),
    ];
    // A negative size of an array where they differ.
    let mut source = String::from("#include <thinglog.h>\n");
    for (n, (structure, field, offset)) in fields.iter().enumerate() {
        source += &format!(
            "typedef char {structure}_{field}_{n}[offsetof({structure}, {field}) == {offset} ? 1 : -1];\n"
        );
    }
    for (n, (structure, size)) in sizes.iter().enumerate() {
        source += &format!("typedef char size_{n}[sizeof({structure}) == {size} ? 1 : -1];\n");
    }
    let path = write(folder.path(), "layout.c", &source);
    compile("cc", &["-std=c99", "-fsyntax-only"], &path);
}

#[test]
fn the_header_is_c99_and_cpp() {
    let folder = tempfile::tempdir().unwrap();
    // Twice, and with everything used that is more than a declaration.
    let source = "#include <thinglog.h>\n#include <thinglog.h>\n\
        int use(thinglog_publisher *log) {\n\
        thinglog_attribute attributes[4];\n\
        attributes[0] = thinglog_string(\"k\", \"v\");\n\
        attributes[1] = thinglog_integer(\"k\", 1);\n\
        attributes[2] = thinglog_number(\"k\", 0.5);\n\
        attributes[3] = thinglog_boolean(\"k\", 1);\n\
        thinglog_printf(log, \"app\", THINGLOG_SYSLOG(3), \"%d\", 1);\n\
        return thinglog_emit_kv(log, NULL, THINGLOG_INFO, 0, \"m\", 1, attributes, 4);\n}\n";
    for (name, compiler, standard) in [
        ("c99.c", "cc", "-std=c99"),
        ("c17.c", "cc", "-std=c17"),
        ("cpp11.cc", "c++", "-std=c++11"),
        ("cpp20.cc", "c++", "-std=c++20"),
    ] {
        let path = write(folder.path(), name, source);
        compile(compiler, &[standard, "-fsyntax-only"], &path);
    }
}

#[test]
fn priorities_of_syslog_are_the_table_of_the_schemas() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = String::from("#include <thinglog.h>\n");
    source += "int main(void) {\n";
    for priority in 0..8u8 {
        let severity = thinglog_schemas::Severity::from_syslog(priority).number();
        source +=
            &format!("if (THINGLOG_SYSLOG({priority}) != {severity}) return 1 + {priority};\n");
    }
    source += "return 0;\n}\n";
    let path = write(folder.path(), "syslog.c", &source);
    let program = folder.path().join("syslog");
    let object = program.to_str().unwrap();
    // What the header defines inline calls into a library that is not there.
    let options = [
        "-std=c99",
        "-O1",
        "-Wl,--unresolved-symbols=ignore-all",
        "-o",
        object,
    ];
    compile("cc", &options, &path);
    let status = Command::new(&program).status().unwrap();
    assert_eq!(status.code(), Some(0), "the priority is the code - 1");
}
