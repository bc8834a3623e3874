//! Child processes: started with their output in a file, killed or asked to end, never left behind.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// A binary or a library of this workspace, beside the test executable.
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the path of the test");
    let folder = own
        .ancestors()
        .nth(2)
        .expect("target/<profile>/deps/<test>");
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is missing: cargo build --workspace --lib --bins",
        path.display()
    );
    path
}

/// A running child. Dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with stdout and stderr appended to `<folder>/<name>.log`. Its stdin is a pipe.
    pub fn start(name: &str, folder: &Path, command: &mut Command) -> Process {
        let log = folder.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log file");
        let other = file.try_clone().expect("a log file");
        command.stdin(Stdio::piped()).stdout(file).stderr(other);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {command:?}: {error}"));
        Process {
            name: name.to_owned(),
            child,
            log,
            ended: None,
        }
    }

    /// Memory it had at most, bytes (`VmHWM`, proc(5)).
    pub fn peak_memory(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("VmHWM in kB") * 1024
    }

    /// Its stdin, once; dropping it closes the pipe.
    pub fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("stdin is taken once")
    }

    /// What it has written so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child to wait for");
        }
        self.ended.is_some()
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let name = self.name.clone();
        wait::until(&format!("{name} to end"), || {
            if self.has_ended() { self.ended } else { None }
        })
    }

    /// SIGKILL; gone when this returns.
    pub fn kill(&mut self) {
        if !self.has_ended() {
            self.child.kill().expect("a child to kill");
            self.ended = Some(self.child.wait().expect("a child to wait for"));
        }
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        if !self.has_ended() {
            kill_process(Pid::from_child(&self.child), Signal::TERM).expect("a child to signal");
        }
        self.wait()
    }

    /// SIGTERM and SIGINT together, and waits for the end.
    pub fn terminate_twice(&mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.child);
        for signal in [Signal::TERM, Signal::INT] {
            kill_process(pid, signal).expect("a child to signal");
        }
        self.wait()
    }

    /// SIGHUP, which has files read again.
    pub fn hang_up(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).expect("a child to signal");
    }

    /// Panics with its output when it has ended.
    #[track_caller]
    pub fn assert_running(&mut self) {
        if self.has_ended() {
            panic!(
                "{} ended with {:?}:\n{}",
                self.name,
                self.ended,
                self.output()
            );
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let output = self.output();
            let tail: Vec<&str> = output.lines().rev().take(40).collect();
            eprintln!("--- end of {}'s output", self.name);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
