//! A process under measurement: started, asked for its CPU time and memory, stopped.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

/// A child process that is stopped when dropped.
pub(super) struct Process {
    child: Child,
    name: String,
}

/// What the operating system accounts to a process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// User and system time, seconds.
    pub(super) cpu_seconds: f64,
    /// Memory resident now and at its highest, bytes.
    pub(super) resident: u64,
    pub(super) peak: u64,
}

impl Process {
    /// Starts `command` with its output in `log`.
    pub(super) fn start(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Process> {
        let file = std::fs::File::create(log)
            .with_context(|| format!("cannot create {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Process {
            child,
            name: name.into(),
        })
    }

    /// Waits until `address` takes connections.
    pub(super) fn wait_for(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status} before it was ready", self.name);
            }
            if Instant::now() > deadline {
                bail!("{} does not take connections on {address}", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// CPU time and memory, from `/proc` (proc(5)).
    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        let pid = self.child.id();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The command name stands in parentheses and may hold spaces; fields 14 and 15 are counted from the state, field 3.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks = |index: usize| -> anyhow::Result<f64> {
            Ok(fields
                .get(index)
                .context("short /proc stat")?
                .parse::<u64>()? as f64)
        };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib = |key: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
                .unwrap_or(0)
                * 1024
        };
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        Ok(Usage {
            cpu_seconds: (ticks(11)? + ticks(12)?) / per_second,
            resident: kib("VmRSS:"),
            peak: kib("VmHWM:"),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback address whose port nobody uses at the moment.
pub(super) fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}
