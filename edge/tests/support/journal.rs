//! Journals of systemd for tests: real files, written by systemd-journal-remote and read by the real
//! journalctl. Where one of them is missing the test is skipped, loudly; with CI=true it fails.

#![allow(dead_code, clippy::unwrap_used)]

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where Debian and Fedora have it.
const REMOTE: [&str; 2] = [
    "/lib/systemd/systemd-journal-remote",
    "/usr/lib/systemd/systemd-journal-remote",
];

/// One journal file, and a `journalctl` that reads it and nothing else.
pub(crate) struct Journal {
    dir: tempfile::TempDir,
    remote: &'static str,
    written: u64,
}

/// An entry: seconds since the epoch, unit, syslog priority, message.
pub(crate) type Entry<'a> = (u64, &'a str, u8, &'a str);

impl Journal {
    /// An empty one; `None` when `test` must be skipped.
    pub(crate) fn new(test: &str) -> Option<Journal> {
        let remote = REMOTE.into_iter().find(|path| Path::new(path).exists());
        let has_journalctl = Command::new("journalctl")
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        let Some(remote) = remote.filter(|_| has_journalctl) else {
            let missing = "journalctl or systemd-journal-remote (Debian: systemd-journal-remote)";
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "{test} needs {missing}"
            );
            eprintln!("SKIP: {test} needs {missing}");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal {
            dir,
            remote,
            written: 0,
        };
        journal.script(
            "journalctl",
            &format!(
                "echo $$ >> {:?}\nexec {} --file={:?} \"$@\"",
                journal.path().join("pids"),
                real_journalctl().display(),
                journal.file()
            ),
        );
        Some(journal)
    }

    /// Another one with what this one has.
    pub(crate) fn copy(&self) -> Journal {
        let copy = Journal::new("a copy").unwrap();
        fs::copy(self.file(), copy.file()).unwrap();
        Journal {
            written: self.written,
            ..copy
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.path().join("test.journal")
    }

    /// The program that reads this journal; also what a `PATH` begins with finds.
    pub(crate) fn program(&self) -> PathBuf {
        self.path().join("journalctl")
    }

    fn script(&self, name: &str, body: &str) {
        let path = self.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Appends entries.
    pub(crate) fn write(&mut self, entries: &[Entry<'_>]) {
        let mut export = Vec::new();
        for (seconds, unit, priority, message) in entries {
            self.written += 1;
            let micros = seconds * 1_000_000 + self.written;
            let name = unit.trim_end_matches(".service");
            writeln!(
                export,
                "__REALTIME_TIMESTAMP={micros}\n__MONOTONIC_TIMESTAMP={micros}\n\
                 _BOOT_ID=0123456789abcdef0123456789abcdef\n\
                 _MACHINE_ID=fedcba9876543210fedcba9876543210\n_HOSTNAME=lamp-7\n\
                 _TRANSPORT=stdout\n_PID={}\n_SYSTEMD_UNIT={unit}\nSYSLOG_IDENTIFIER={name}\n\
                 PRIORITY={priority}\nMESSAGE={message}\n",
                self.written
            )
            .unwrap();
        }
        self.import(&export);
    }

    /// Appends an entry of these fields, whatever is in them, beside those that say when it was.
    pub(crate) fn write_fields(&mut self, fields: &[(&str, &[u8])]) {
        self.written += 1;
        let micros = 1_767_225_600_000_000 + self.written;
        let mut export = format!(
            "__REALTIME_TIMESTAMP={micros}\n__MONOTONIC_TIMESTAMP={micros}\n\
             _BOOT_ID=0123456789abcdef0123456789abcdef\n"
        )
        .into_bytes();
        for (name, value) in fields {
            let length = (value.len() as u64).to_le_bytes();
            export.extend([name.as_bytes(), b"\n", &length, value, b"\n"].concat());
        }
        export.push(b'\n');
        self.import(&export);
    }

    fn import(&self, export: &[u8]) {
        let mut child = Command::new(self.remote)
            .arg(format!("--output={}", self.file().display()))
            .arg("--split-mode=none")
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(export).unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
    }

    /// What journalctl itself says.
    pub(crate) fn read(&self, arguments: &[&str]) -> String {
        let output = Command::new(self.program())
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// The processes that were started to read it and still run.
    pub(crate) fn readers(&self) -> Vec<u32> {
        let pids = fs::read_to_string(self.path().join("pids")).unwrap_or_default();
        let pids = pids.lines().filter_map(|pid| pid.parse().ok());
        let alive = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !status.is_empty() && !status.contains(") Z ")
        };
        pids.filter(alive).collect()
    }
}

/// Waits until there is something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + super::LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "waited in vain for {what}"
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn real_journalctl() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|folder| folder.join("journalctl"));
    found.find(|path| path.exists()).unwrap()
}

const DAEMON: &str = "/lib/systemd/systemd-journald";

/// A real systemd-journald with a namespace, and so files and sockets, of its own.
pub(crate) struct Journald {
    pub(crate) namespace: String,
    child: std::process::Child,
}

impl Journald {
    /// `None` when `test` must be skipped.
    pub(crate) fn start(test: &str) -> Option<Journald> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if !rustix::process::getuid().is_root() || !Path::new(DAEMON).exists() {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "{test} needs root and {DAEMON} (Debian: systemd)"
            );
            eprintln!("SKIP: {test} needs root and {DAEMON} (Debian: systemd)");
            return None;
        }
        let namespace = format!("tl{}x{number}", std::process::id());
        fs::create_dir_all("/run/log/journal").unwrap();
        let child = Command::new(DAEMON)
            .arg(&namespace)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let journald = Journald { namespace, child };
        let socket = journald.dir("/run/systemd/journal.").join("socket");
        until("journald to start", || socket.exists().then_some(()));
        Some(journald)
    }

    fn dir(&self, before: &str) -> PathBuf {
        format!("{before}{}", self.namespace).into()
    }

    /// Says something, as programs do that speak the journal's own protocol.
    pub(crate) fn say(&self, identifier: &str, message: &str) {
        let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let text = format!("SYSLOG_IDENTIFIER={identifier}\nPRIORITY=5\nMESSAGE={message}\n");
        let to = self.dir("/run/systemd/journal.").join("socket");
        socket.send_to(text.as_bytes(), to).unwrap();
    }

    /// Rotates, removes files, and the like.
    pub(crate) fn tell(&self, arguments: &[&str]) {
        let output = Command::new("journalctl")
            .arg(format!("--namespace={}", self.namespace))
            .args(arguments)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(self.dir("/run/systemd/journal."));
        let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let files = format!("/run/log/journal/{}.", machine.trim());
        let _ = fs::remove_dir_all(self.dir(&files));
    }
}
