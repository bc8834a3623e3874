//! Who runs, who may end, and in which order all of it stops.
//!
//! Tasks are declared with their stage and with what their end means. A signal, or the end of a task
//! that must not end, stops the stages one after the other, each with a deadline of its own:
//! first what produces (the demo's devices), then the router, then the broker that both need. A
//! second signal ends the process at once; not one that comes together with the first (`timeout` tells a
//! process and its group, a terminal and a service manager may both speak). SIGHUP has files read again, unless it says that the
//! terminal is gone: that is a wish to stop like any other.

use std::{
    future::Future,
    io::{IsTerminal, stdin},
    sync::Arc,
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::{Id, JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Reads files again; gives what could not be read.
type Reload = dyn Fn() -> Vec<String> + Send + Sync;

/// Signals so soon after the first are the same wish.
const TOGETHER: Duration = Duration::from_millis(500);

/// The order of stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Devices of the demo and what prints for people.
    Demo,
    /// Stops taking, delivers what it has, commits.
    Router,
    /// Lets clients go, writes everything down.
    Broker,
}

impl Stage {
    const ALL: [Stage; 3] = [Stage::Demo, Stage::Router, Stage::Broker];

    /// How long the stage may take to stop. Together below the 30 seconds after which service
    /// managers kill.
    const fn deadline(self) -> Duration {
        match self {
            Stage::Demo => Duration::from_secs(3),
            Stage::Router => Duration::from_secs(14),
            Stage::Broker => Duration::from_secs(8),
        }
    }
}

/// What it means when a task ends without having been asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The process cannot do its work: stop the rest and fail, for a service manager to start anew.
    Fatal,
    /// The rest goes on without it; a panic is logged.
    Fine,
}

/// A task as declared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) stage: Stage,
    pub(crate) ending: Ending,
}

/// The broker.
pub(crate) const BROKER: Kind = Kind {
    name: "broker",
    stage: Stage::Broker,
    ending: Ending::Fatal,
};
/// The router.
pub(crate) const ROUTER: Kind = Kind {
    name: "router",
    stage: Stage::Router,
    ending: Ending::Fatal,
};
/// Metrics of a broker that runs alone.
pub(crate) const MONITOR: Kind = Kind {
    name: "monitor",
    stage: Stage::Router,
    ending: Ending::Fine,
};
/// One source of the demo's devices, or what prints their events.
pub(crate) const DEMO: Kind = Kind {
    name: "demo",
    stage: Stage::Demo,
    ending: Ending::Fine,
};

/// Runs tasks until it is over.
pub(crate) struct Supervisor {
    tasks: Tasks,
    signals: Signals,
    /// What is done on SIGHUP.
    reload: Vec<Arc<Reload>>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Asked to, and everything stopped in time.
    Clean,
    /// A task that must not end did, or a stage did not stop in time.
    Failed,
}

impl Supervisor {
    /// Nothing runs yet; from here on signals are ours.
    pub(crate) fn new() -> std::io::Result<Supervisor> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let hangup = signal(SignalKind::hangup())?;
        Ok(Supervisor {
            tasks: Tasks::default(),
            signals: Signals {
                terminate,
                interrupt,
                hangup,
                has_terminal: stdin().is_terminal(),
            },
            reload: Vec::new(),
        })
    }

    /// What else to do on SIGHUP (it may block); gives what could not be done.
    pub(crate) fn reload_on_hangup(
        &mut self,
        reload: impl Fn() -> Vec<String> + Send + Sync + 'static,
    ) {
        self.reload.push(Arc::new(reload));
    }

    /// Cancelled when the stage is to stop.
    pub(crate) fn token(&self, stage: Stage) -> CancellationToken {
        self.tasks.tokens[stage as usize].clone()
    }

    /// Starts a task; it ends soon after its stage's token is cancelled.
    pub(crate) fn spawn(&mut self, kind: Kind, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tasks.set.spawn(task);
        self.tasks.running.push((handle.id(), kind));
    }

    /// Runs until a signal or a fatal end, then stops everything in order.
    pub(crate) async fn run(mut self) -> Outcome {
        let asked = loop {
            tokio::select! {
                wish = self.signals.next() => match wish {
                    Wish::Stop => {
                        info!("stopping; a second signal ends at once");
                        break true;
                    }
                    Wish::Reload => reload(self.reload.clone()).await,
                },
                kind = self.tasks.fatal_end() => {
                    error!(task = kind.name, "ended by itself; stopping everything");
                    break false;
                }
            }
        };
        let stopped = self.stop().await;
        if asked && stopped {
            Outcome::Clean
        } else {
            Outcome::Failed
        }
    }

    /// Stops everything in order; whether that went well and in time.
    pub(crate) async fn stop(mut self) -> bool {
        let tasks = &mut self.tasks;
        let stopping = async {
            let mut clean = true;
            for stage in Stage::ALL {
                clean &= tasks.stop(stage, stage.deadline()).await;
            }
            clean
        };
        tokio::select! {
            clean = stopping => clean,
            () = self.signals.second() => {
                warn!("second signal: ending at once");
                false
            }
        }
    }
}

/// Reads files again; what cannot be used stays as it was.
async fn reload(reload: Vec<Arc<Reload>>) {
    if reload.is_empty() {
        return info!("SIGHUP: there is nothing to read again");
    }
    let all = move || {
        reload
            .iter()
            .flat_map(|reload| reload())
            .collect::<Vec<_>>()
    };
    match tokio::task::spawn_blocking(all).await {
        Ok(errors) if errors.is_empty() => info!("files read again"),
        Ok(errors) => errors.iter().for_each(|error| error!("{error}")),
        Err(error) => error!(%error, "files could not be read again"),
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// It was there at the start.
    has_terminal: bool,
}

/// What a signal asks for.
enum Wish {
    Stop,
    Reload,
}

impl Signals {
    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => match self.has_terminal && !stdin().is_terminal() {
                true => Wish::Stop,
                false => Wish::Reload,
            },
        }
    }

    /// Waits for another wish to stop, once what comes together with the first is over.
    async fn second(&mut self) {
        let together = async {
            loop {
                self.stop().await;
            }
        };
        // Ends by the time alone.
        let _ = timeout(TOGETHER, together).await;
        self.stop().await;
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[derive(Default)]
struct Tasks {
    set: JoinSet<()>,
    running: Vec<(Id, Kind)>,
    tokens: [CancellationToken; 3],
}

impl Tasks {
    /// Waits for the end of a task that must not end.
    async fn fatal_end(&mut self) -> Kind {
        loop {
            match self.next_end().await {
                Some(kind) if kind.ending == Ending::Fatal => return kind,
                Some(_) => {}
                // Nothing runs any more, nothing can end.
                None => std::future::pending().await,
            }
        }
    }

    /// Stops one stage; whether it did in time.
    async fn stop(&mut self, stage: Stage, deadline: Duration) -> bool {
        self.tokens[stage as usize].cancel();
        let ended = async {
            while self.running.iter().any(|(_, kind)| kind.stage == stage) {
                if self.next_end().await.is_none() {
                    break;
                }
            }
        };
        let in_time = timeout(deadline, ended).await.is_ok();
        for (_, kind) in self.running.iter().filter(|(_, kind)| kind.stage == stage) {
            error!(
                task = kind.name,
                "did not stop within {deadline:?}; left behind"
            );
        }
        in_time
    }

    /// The next task that ends; a panic is logged.
    async fn next_end(&mut self) -> Option<Kind> {
        let ended = self.set.join_next_with_id().await?;
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let at = self
            .running
            .iter()
            .position(|(running, _)| *running == id)?;
        let (_, kind) = self.running.swap_remove(at);
        if let Err(error) = ended {
            error!(task = kind.name, %error, "did not end well");
        }
        Some(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    fn note(order: &Arc<Mutex<Vec<Stage>>>, stage: Stage) {
        order.lock().unwrap().push(stage);
    }

    #[tokio::test]
    async fn the_end_of_a_fatal_task_stops_all_in_order() {
        let mut supervisor = Supervisor::new().unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        for kind in [BROKER, ROUTER, DEMO] {
            let (token, order) = (supervisor.token(kind.stage), order.clone());
            supervisor.spawn(kind, async move {
                token.cancelled().await;
                note(&order, kind.stage);
            });
        }
        supervisor.spawn(
            Kind {
                name: "doomed",
                ..ROUTER
            },
            async {},
        );
        assert_eq!(supervisor.run().await, Outcome::Failed);
        assert_eq!(
            *order.lock().unwrap(),
            [Stage::Demo, Stage::Router, Stage::Broker]
        );
    }

    #[tokio::test]
    async fn a_panic_of_a_fatal_task_is_an_end() {
        let mut supervisor = Supervisor::new().unwrap();
        supervisor.spawn(ROUTER, async { panic!("as intended by this test") });
        assert_eq!(supervisor.run().await, Outcome::Failed);
    }

    #[tokio::test]
    async fn the_end_of_a_demo_task_changes_nothing() {
        let mut supervisor = Supervisor::new().unwrap();
        supervisor.spawn(DEMO, async { panic!("as intended by this test") });
        let (done, ended) = tokio::sync::oneshot::channel();
        let token = supervisor.token(Stage::Router);
        supervisor.spawn(ROUTER, async move {
            // Only after the demo's end could have been taken for the end of everything.
            let still_running = timeout(Duration::from_millis(50), token.cancelled())
                .await
                .is_err();
            done.send(still_running).unwrap();
        });
        assert_eq!(
            supervisor.run().await,
            Outcome::Failed,
            "the router ended by itself"
        );
        assert_eq!(ended.await, Ok(true));
    }

    #[tokio::test]
    async fn a_stage_that_does_not_stop_is_left_behind() {
        let mut supervisor = Supervisor::new().unwrap();
        supervisor.spawn(ROUTER, std::future::pending());
        assert!(
            !supervisor
                .tasks
                .stop(Stage::Router, Duration::from_millis(1))
                .await
        );
        assert!(
            supervisor
                .tasks
                .stop(Stage::Broker, Duration::from_secs(60))
                .await
        );
    }
}
