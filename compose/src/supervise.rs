//! Who runs, who may end, and in which order all of it stops.
//!
//! Tasks are declared with their stage and with what their end means. A signal, or the end of a task
//! that must not end, stops the stages one after the other, each with a deadline of its own:
//! first what produces (the demo's devices), then the router, then the broker that both need. A
//! second signal ends the process at once.

use std::{future::Future, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::{Id, JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

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
pub(crate) const BROKER: Kind = Kind { name: "broker", stage: Stage::Broker, ending: Ending::Fatal };
/// The router.
pub(crate) const ROUTER: Kind = Kind { name: "router", stage: Stage::Router, ending: Ending::Fatal };
/// One source of the demo's devices, or what prints their events.
pub(crate) const DEMO: Kind = Kind { name: "demo", stage: Stage::Demo, ending: Ending::Fine };

/// Runs tasks until it is over.
pub(crate) struct Supervisor {
    tasks: JoinSet<()>,
    running: Vec<(Id, Kind)>,
    tokens: [CancellationToken; 3],
    terminate: Signal,
    interrupt: Signal,
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
        Ok(Supervisor {
            tasks: JoinSet::new(),
            running: Vec::new(),
            tokens: Default::default(),
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Cancelled when the stage is to stop.
    pub(crate) fn token(&self, stage: Stage) -> CancellationToken {
        self.tokens[stage as usize].clone()
    }

    /// Starts a task; it ends soon after its stage's token is cancelled.
    pub(crate) fn spawn(&mut self, kind: Kind, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tasks.spawn(task);
        self.running.push((handle.id(), kind));
    }

    /// Runs until a signal or a fatal end, then stops everything in order.
    pub(crate) async fn run(mut self) -> Outcome {
        let asked = self.wait().await;
        let stopping = async {
            let mut clean = asked;
            for stage in Stage::ALL {
                clean &= stop(stage, &mut self.tasks, &mut self.running, &self.tokens).await;
            }
            clean
        };
        let clean = tokio::select! {
            clean = stopping => clean,
            () = either(&mut self.terminate, &mut self.interrupt) => {
                warn!("second signal: ending at once");
                false
            }
        };
        if clean { Outcome::Clean } else { Outcome::Failed }
    }

    /// Whether the end was asked for.
    async fn wait(&mut self) -> bool {
        loop {
            tokio::select! {
                () = either(&mut self.terminate, &mut self.interrupt) => {
                    info!("stopping; a second signal ends at once");
                    return true;
                }
                Some(ended) = self.tasks.join_next_with_id() => {
                    let Some(kind) = forget(&mut self.running, &ended) else { continue };
                    report(kind, &ended);
                    if kind.ending == Ending::Fatal {
                        error!(task = kind.name, "ended by itself; stopping everything");
                        return false;
                    }
                }
            }
        }
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Stops one stage; whether it did in time.
async fn stop(
    stage: Stage,
    tasks: &mut JoinSet<()>,
    running: &mut Vec<(Id, Kind)>,
    tokens: &[CancellationToken; 3],
) -> bool {
    tokens[stage as usize].cancel();
    let of_stage = |running: &[(Id, Kind)]| running.iter().any(|(_, kind)| kind.stage == stage);
    let ended = async {
        while of_stage(running) {
            let Some(ended) = tasks.join_next_with_id().await else { break };
            if let Some(kind) = forget(running, &ended) {
                report(kind, &ended);
            }
        }
    };
    let in_time = timeout(stage.deadline(), ended).await.is_ok();
    if !in_time {
        let names = running.iter().filter(|(_, kind)| kind.stage == stage);
        for (_, kind) in names {
            error!(task = kind.name, "did not stop within {:?}; left behind", stage.deadline());
        }
    }
    in_time
}

type Ended = Result<(Id, ()), JoinError>;

fn forget(running: &mut Vec<(Id, Kind)>, ended: &Ended) -> Option<Kind> {
    let id = match ended {
        Ok((id, ())) => *id,
        Err(error) => error.id(),
    };
    let at = running.iter().position(|(running, _)| *running == id)?;
    Some(running.swap_remove(at).1)
}

fn report(kind: Kind, ended: &Ended) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(task = kind.name, %error, "panicked");
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
        supervisor.spawn(Kind { name: "doomed", ..ROUTER }, async {});
        assert_eq!(supervisor.run().await, Outcome::Failed);
        assert_eq!(*order.lock().unwrap(), [Stage::Demo, Stage::Router, Stage::Broker]);
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
            let still_running = timeout(Duration::from_millis(50), token.cancelled()).await.is_err();
            done.send(still_running).unwrap();
        });
        assert_eq!(supervisor.run().await, Outcome::Failed, "the router ended by itself");
        assert_eq!(ended.await, Ok(true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stage_that_does_not_stop_is_left_behind() {
        let mut supervisor = Supervisor::new().unwrap();
        supervisor.spawn(ROUTER, std::future::pending());
        supervisor.spawn(Kind { name: "doomed", ..BROKER }, async {});
        assert_eq!(supervisor.run().await, Outcome::Failed);
    }
}
