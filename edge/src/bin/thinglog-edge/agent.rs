//! `start`: every configured source at once, until a signal ends it.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use parking_lot::Mutex;
use thinglog_edge::{
    Publisher, Requests,
    agent::{
        Board, Catalogue, HttpError, HttpOptions, HttpServer, SourceError, Status, Supervisor,
        run_requests, source::Surroundings,
    },
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    TOGETHER,
    cli::Options,
    complain,
    config::{self, Loaded},
    control::{self, Answers, Control, Request},
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
    publisher: Publisher,
    supervisor: Supervisor,
    notifier: Arc<Notifier>,
    teller: Arc<Teller>,
    http: Option<Http>,
}

/// Knows how the agent fares, whoever asks.
struct Teller {
    loaded: Mutex<Arc<Loaded>>,
    publisher: Publisher,
    board: Board,
    progress: Mutex<Progress>,
    started: Instant,
}

impl Teller {
    fn loaded(&self) -> Arc<Loaded> {
        self.loaded.lock().clone()
    }

    fn report(&self) -> Report {
        let uptime = self.started.elapsed();
        let mut progress = self.progress.lock();
        let sources = self.board.report();
        Report::gather(
            &self.loaded(),
            &self.publisher,
            sources,
            uptime,
            &mut progress,
        )
    }

    /// One line.
    fn summary(&self) -> String {
        let report = self.report();
        let state = report.problem.unwrap_or_else(|| "connected".to_owned());
        let (acknowledged, held) = (report.totals.acknowledged, report.held.events);
        format!("{state}; {acknowledged} events acknowledged, {held} held")
    }

    fn answer(&self, request: Request) -> String {
        match request {
            Request::Status => serde_json::to_string(&self.report()).unwrap_or_default(),
            Request::Upload => {
                self.publisher.upload_now();
                let held = self.publisher.counters().queued_events;
                serde_json::json!({ "events": held }).to_string()
            }
        }
    }
}

/// The local HTTP interface while it serves.
struct Http {
    options: HttpOptions,
    cancel: CancellationToken,
    task: JoinHandle<Result<(), SourceError>>,
}

impl Http {
    async fn start(options: &HttpOptions) -> Result<Http, HttpError> {
        let server = HttpServer::bind(options).await?;
        let cancel = CancellationToken::new();
        Ok(Http {
            options: options.clone(),
            task: tokio::spawn(server.run(cancel.clone())),
            cancel,
        })
    }

    async fn stop(self) {
        self.cancel.cancel();
        let _ = self.task.await;
    }
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

    /// One more that says to end, after those that came with the first.
    async fn insist(&mut self) {
        let first = Instant::now();
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            if first.elapsed() >= TOGETHER {
                return;
            }
        }
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
    let builder = setup::publisher(&loaded);
    let (builder, requests) = match loaded.settings.requests.enabled {
        true => {
            let (builder, requests) = builder.requests();
            (builder, Some(requests))
        }
        false => (builder, None),
    };
    let publisher = builder.start()?;
    let mut supervisor = Supervisor::new(publisher.clone(), around);
    supervisor.apply(sources).await?;
    let http = match &loaded.settings.http {
        Some(options) => Some(Http::start(options).await?),
        None => None,
    };
    let loaded = Arc::new(loaded);
    let teller = Arc::new(Teller {
        loaded: Mutex::new(loaded.clone()),
        publisher: publisher.clone(),
        board: supervisor.board(),
        progress: Mutex::default(),
        started: Instant::now(),
    });
    let control = listen(&loaded, &teller)?;
    let catalogue = supervisor.catalogue();
    let desk =
        requests.map(|requests| answer_requests(&loaded, &publisher, requests, catalogue, &teller));
    let heart = Arc::new(Heart::default());
    watchdog::start(heart.clone(), publisher.clone(), notifier.clone())?;
    let mut agent = Agent {
        options,
        file,
        publisher,
        supervisor,
        notifier,
        teller,
        http,
    };
    agent.notifier.ready();
    agent.work(&mut signals, &heart).await;
    if let Some(control) = control {
        control.abort();
        let _ = control.await;
    }
    if let Some(desk) = desk {
        desk.abort();
    }
    tokio::select! {
        code = agent.stop() => Ok(code),
        () = signals.insist() => anyhow::bail!("interrupted before everything was delivered"),
    }
}

/// Answers operators who ask over MQTT, as long as the publisher lives.
fn answer_requests(
    loaded: &Loaded,
    publisher: &Publisher,
    requests: Requests,
    catalogue: Catalogue,
    teller: &Arc<Teller>,
) -> JoinHandle<()> {
    let (publisher, options) = (publisher.clone(), loaded.settings.requests.clone());
    let teller = teller.clone();
    let status: Status =
        Arc::new(move || serde_json::to_value(teller.report()).unwrap_or_default());
    tokio::spawn(async move {
        let never = CancellationToken::new();
        run_requests(&publisher, requests, catalogue, options, status, never).await;
    })
}

/// The control socket. One that was asked for must be there; without the usual one the agent goes on.
fn listen(loaded: &Loaded, teller: &Arc<Teller>) -> anyhow::Result<Option<JoinHandle<()>>> {
    let configured = loaded.settings.control.socket.as_deref();
    let bound = match (configured, control::usual_path()) {
        (Some(path), _) => {
            let bound = Control::bind(path);
            Some(bound.with_context(|| format!("no control socket at {}", path.display()))?)
        }
        (None, Some(path)) => unless_in_vain(&path),
        (None, None) => None,
    };
    let teller = teller.clone();
    let answers: Answers = Arc::new(move |request| teller.answer(request));
    Ok(bound.map(|control| tokio::spawn(control.serve(answers))))
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
    /// Until a signal to end.
    async fn work(&mut self, signals: &mut Signals, heart: &Heart) {
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return,
                _ = signals.interrupt.recv() => return,
                _ = signals.hangup.recv() => self.reload().await,
                _ = signals.user1.recv() => self.publisher.upload_now(),
                () = heart.asked() => {
                    if self.publisher.has_ended() {
                        watchdog::again();
                    }
                    heart.beat();
                    self.notifier.status(&self.teller.summary());
                }
            }
        }
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
        self.change_http(&loaded).await;
        let old = self.teller.loaded();
        let fixed = old.settings.differs_in_what_is_fixed(&loaded.settings);
        if !fixed.is_empty() {
            let keys = fixed.join(", ");
            tracing::warn!(
                keys,
                "changed in the file, but in force only after a restart"
            );
        }
        *self.teller.loaded.lock() = Arc::new(loaded);
    }

    /// HTTP that cannot be served as it is wanted now is not served at all.
    async fn change_http(&mut self, loaded: &Loaded) {
        let wanted = loaded.settings.http.as_ref();
        if self.http.as_ref().map(|http| &http.options) == wanted {
            return;
        }
        if let Some(http) = self.http.take() {
            http.stop().await;
        }
        if let Some(options) = wanted {
            match Http::start(options).await {
                Ok(http) => self.http = Some(http),
                Err(error) => tracing::error!(%error, "no HTTP is served"),
            }
        }
    }

    /// Ends the sources, then sends what is left.
    async fn stop(&mut self) -> ExitCode {
        self.notifier.stopping();
        let loaded = self.teller.loaded();
        let timeout = loaded.settings.flush_timeout.0;
        let began = Instant::now();
        if let Some(http) = self.http.take() {
            http.stop().await;
        }
        self.supervisor.stop().await;
        let left = timeout.saturating_sub(began.elapsed()).max(FAREWELL);
        let durable = self.publisher.close(left).await;
        let lost = undelivered(&self.publisher, loaded.spool().is_some());
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
