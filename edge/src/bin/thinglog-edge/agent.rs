//! `start`: every configured source at once, until a signal ends it.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use thinglog_edge::{
    Publisher,
    agent::{Supervisor, source::Surroundings},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
};

use crate::{
    cli::Options,
    complain,
    config::{self, Loaded},
    control::{self, Asked, Control, Request},
    notify::Notifier,
    report::{Progress, Report},
    setup, undelivered, watchdog,
    watchdog::Heart,
};

/// What the farewell to the broker gets when sources took all of the time there was.
const FAREWELL: Duration = Duration::from_millis(500);

/// The agent while it runs.
struct Agent {
    options: Options,
    file: Option<PathBuf>,
    loaded: Loaded,
    publisher: Publisher,
    supervisor: Supervisor,
    notifier: Arc<Notifier>,
    progress: Progress,
    started: Instant,
}

/// Signals, caught from the moment this exists.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
        })
    }
}

/// Carries until a signal says to end; then what is left gets `flush_timeout` to leave.
pub(crate) async fn run(
    options: Options,
    file: Option<PathBuf>,
    loaded: Loaded,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let notifier = Arc::new(Notifier::from_environment());
    let sources = setup::sources(&loaded)?;
    let around = Surroundings {
        state: setup::state(&loaded)?,
        drain: loaded.settings.flush_timeout.0,
    };
    let publisher = setup::publisher(&loaded).start()?;
    let mut supervisor = Supervisor::new(publisher.clone(), around);
    supervisor.apply(sources).await?;
    let (ask, mut asked) = mpsc::channel(1);
    let control = listen(&loaded, ask)?;
    let heart = Arc::new(Heart::default());
    watchdog::start(heart.clone(), publisher.clone(), notifier.clone())?;
    let mut agent = Agent {
        options,
        file,
        loaded,
        publisher,
        supervisor,
        notifier,
        progress: Progress::default(),
        started: Instant::now(),
    };
    agent.notifier.ready();
    let ended = agent.work(&mut signals, &mut asked, &heart).await;
    if let Some(control) = control {
        control.abort();
        let _ = control.await;
    }
    ended?;
    tokio::select! {
        code = agent.stop() => Ok(code),
        _ = signals.terminate.recv() => anyhow::bail!("interrupted before everything was delivered"),
        _ = signals.interrupt.recv() => anyhow::bail!("interrupted before everything was delivered"),
    }
}

/// The control socket. One that was asked for must be there; without the usual one the agent goes on.
fn listen(loaded: &Loaded, ask: mpsc::Sender<Asked>) -> anyhow::Result<Option<JoinHandle<()>>> {
    let configured = loaded.settings.control.socket.as_deref();
    let bound = match (configured, control::usual_path()) {
        (Some(path), _) => {
            let bound = Control::bind(path);
            Some(bound.with_context(|| format!("no control socket at {}", path.display()))?)
        }
        (None, Some(path)) => unless_in_vain(&path),
        (None, None) => None,
    };
    Ok(bound.map(|control| tokio::spawn(control.serve(ask))))
}

fn unless_in_vain(path: &Path) -> Option<Control> {
    let bound = Control::bind(path);
    let path = path.display();
    bound
        .inspect_err(|error| {
            tracing::warn!(%path, %error, "no control socket; `thinglog-edge status` will not work");
        })
        .ok()
}

impl Agent {
    /// Until a signal to end, or the publisher's end.
    async fn work(
        &mut self,
        signals: &mut Signals,
        asked: &mut mpsc::Receiver<Asked>,
        heart: &Heart,
    ) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return Ok(()),
                _ = signals.interrupt.recv() => return Ok(()),
                _ = signals.hangup.recv() => self.reload().await,
                _ = signals.user1.recv() => drop(self.upload()),
                Some((request, reply)) = asked.recv() => {
                    // Whoever asked may be gone.
                    let _ = reply.send(self.answer(request));
                }
                () = heart.asked() => {
                    if self.publisher.has_ended() {
                        watchdog::again();
                    }
                    heart.beat();
                    let line = self.summary();
                    self.notifier.status(&line);
                }
            }
        }
    }

    fn answer(&mut self, request: Request) -> String {
        match request {
            Request::Status => {
                let report = self.report();
                serde_json::to_string(&report).unwrap_or_default()
            }
            Request::Upload => {
                let held = self.upload();
                serde_json::json!({ "events": held }).to_string()
            }
        }
    }

    fn report(&mut self) -> Report {
        let sources = self.supervisor.report();
        let uptime = self.started.elapsed();
        Report::gather(
            &self.loaded,
            &self.publisher,
            sources,
            uptime,
            &mut self.progress,
        )
    }

    fn summary(&mut self) -> String {
        let report = self.report();
        let state = report.problem.unwrap_or_else(|| "connected".to_owned());
        let (acknowledged, held) = (report.totals.acknowledged, report.held.events);
        format!("{state}; {acknowledged} events acknowledged, {held} held")
    }

    /// Sends what is held without waiting for more; how many events that are.
    fn upload(&self) -> u64 {
        self.publisher.upload_now();
        self.publisher.counters().queued_events
    }

    /// Reads the configuration again. What cannot be used changes nothing, and is explained.
    async fn reload(&mut self) {
        self.notifier.reloading();
        match config::load(self.file.as_deref(), self.options.given()) {
            Err(problems) => {
                for problem in problems {
                    tracing::error!(%problem, "the configuration cannot be used; the old one goes on");
                }
            }
            Ok(loaded) => self.change(loaded).await,
        }
        self.notifier.ready();
    }

    async fn change(&mut self, loaded: Loaded) {
        let sources = match setup::sources(&loaded) {
            Ok(sources) => sources,
            Err(error) => {
                tracing::error!(%error, "the configuration cannot be used; the old one goes on");
                return;
            }
        };
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        match self.supervisor.apply(sources).await {
            Err(error) => {
                tracing::error!(%error, "the configuration cannot be used; the old one goes on");
                return;
            }
            Ok(changes) => tracing::info!(?changes, "the configuration was read again"),
        }
        let fixed = self
            .loaded
            .settings
            .differs_in_what_is_fixed(&loaded.settings);
        if !fixed.is_empty() {
            let keys = fixed.join(", ");
            tracing::warn!(
                keys,
                "changed in the file, but in force only after a restart"
            );
        }
        self.loaded = loaded;
    }

    /// Ends the sources, then sends what is left.
    async fn stop(&mut self) -> ExitCode {
        self.notifier.stopping();
        let timeout = self.loaded.settings.flush_timeout.0;
        let began = Instant::now();
        self.supervisor.stop().await;
        let left = timeout.saturating_sub(began.elapsed()).max(FAREWELL);
        let durable = self.publisher.close(left).await;
        let lost = undelivered(&self.publisher, self.loaded.spool().is_some());
        match durable && !lost {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(crate::UNDELIVERED),
        }
    }
}

/// Asks the running agent, and shows what it says.
pub(crate) fn ask(loaded: &Loaded, request: Request, json: bool) -> ExitCode {
    let configured = loaded.settings.control.socket.clone();
    let Some(path) = configured.or_else(control::usual_path) else {
        complain("there is no usual place for the control socket; set control.socket");
        return ExitCode::FAILURE;
    };
    let answer = match control::ask(&path, request) {
        Ok(answer) => answer,
        Err(error) => {
            let path = path.display();
            complain(&format!(
                "no agent answers at {path}: {error}; is `thinglog-edge start` running?"
            ));
            return ExitCode::FAILURE;
        }
    };
    let report = match request {
        Request::Upload => return shown(&answer),
        Request::Status => serde_json::from_str::<Report>(&answer),
    };
    match report {
        Ok(report) => {
            let text = if json { answer } else { report.text() };
            let code = shown(&text);
            match report.problem {
                Some(_) if code == ExitCode::SUCCESS => ExitCode::from(crate::UNDELIVERED),
                _ => code,
            }
        }
        Err(error) => {
            complain(&format!("the agent's answer cannot be read: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn shown(text: &str) -> ExitCode {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
