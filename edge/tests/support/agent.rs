//! One source of the agent in a thread of its own, into a publisher for the test's broker.

#![allow(dead_code, clippy::unwrap_used)]

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use thinglog_edge::{
    Builder, Publisher,
    agent::{Sink, SourceError},
};
use tokio_util::sync::CancellationToken;

/// A running source.
pub(crate) struct Running {
    cancel: CancellationToken,
    thread: thread::JoinHandle<(Result<(), SourceError>, bool)>,
}

/// A quick publisher.
pub(crate) fn publisher(broker: SocketAddr) -> Builder {
    Publisher::builder("lamp-7")
        .broker("127.0.0.1", broker.port())
        .flush_age(Duration::from_millis(20))
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
}

/// Runs `source` until it is stopped.
pub(crate) fn run<F>(publisher: Builder, source: F) -> Running
where
    F: AsyncFnOnce(&Sink, CancellationToken) -> Result<(), SourceError> + Send + 'static,
{
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    let thread = thread::spawn(move || {
        let publisher = publisher.start().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let sink = Sink::new(publisher.clone());
            let ended = source(&sink, token).await;
            (ended, publisher.close(Duration::from_secs(10)).await)
        })
    });
    Running { cancel, thread }
}

impl Running {
    /// Ends it as a signal would; everything has to be delivered.
    pub(crate) fn stop(self) {
        self.cancel.cancel();
        let (ended, durable) = self.thread.join().unwrap();
        ended.unwrap();
        assert!(durable, "not everything was delivered");
    }

    /// Waits until it fails by itself.
    pub(crate) fn failure(self) -> SourceError {
        let (ended, _) = self.thread.join().unwrap();
        ended.unwrap_err()
    }
}

/// The real program with a spool in `dir` and one source, whose table is given.
pub(crate) struct Program {
    child: Child,
}

impl Program {
    pub(crate) fn start(dir: &Path, broker: SocketAddr, source: &str) -> Program {
        Program::with(dir, broker, source, &[])
    }

    /// The same with variables in its environment.
    pub(crate) fn with(
        dir: &Path,
        broker: SocketAddr,
        source: &str,
        variables: &[(&str, &str)],
    ) -> Program {
        let at = dir.display();
        let text = format!(
            "device = \"lamp-7\"\nbroker = \"{broker}\"\n\
             [control]\nsocket = \"{at}/control.sock\"\n\
             [reconnect]\nfirst = \"10ms\"\nlongest = \"50ms\"\n\
             [upload]\nflush = \"20ms\"\n\
             [spool]\npath = \"{at}/spool\"\n\
             [source.it]\n{source}\n"
        );
        let file = dir.join("edge.toml");
        fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_thinglog-edge"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("THINGLOG_") {
                command.env_remove(name);
            }
        }
        let mut log = File::options();
        let log = log.create(true).append(true);
        let log = log.open(dir.join("log")).unwrap();
        let child = command
            .arg("--config")
            .arg(&file)
            .arg("start")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Program { child }
    }
}

impl Drop for Program {
    /// By SIGKILL.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
