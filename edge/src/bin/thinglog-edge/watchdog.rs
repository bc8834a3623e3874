//! Sees to it that the pipeline moves: the loop of the agent and the worker of its publisher must both
//! have gone round since they were last asked. While they do, systemd is told so; when they do not
//! for too long, systemd ends the process, and without systemd the agent starts itself anew.

use std::{
    os::unix::process::CommandExt,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use thinglog_edge::Publisher;
use tokio::sync::Notify;

use crate::notify::{self, Notifier};

/// How often the parts are asked, unless systemd wants to know more often.
const ASK_EVERY: Duration = Duration::from_secs(15);
/// How long they may be silent where systemd does not say.
const PATIENCE: Duration = Duration::from_secs(180);
/// Memory for the watchdog's thread; it does next to nothing.
const STACK: usize = 64 << 10;

/// The heart of the agent's loop, which the watchdog listens to.
#[derive(Debug, Default)]
pub(crate) struct Heart {
    asked: Notify,
    beats: AtomicU64,
}

impl Heart {
    /// Waits to be asked.
    pub(crate) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Answers.
    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Relaxed);
    }

    /// The beats so far; asks for another.
    fn listen(&self) -> u64 {
        self.asked.notify_one();
        self.beats.load(Relaxed)
    }
}

/// Decides whether both parts still move. Pure: the time is an argument.
#[derive(Debug)]
struct Vigil {
    beats: u64,
    asked_at: Instant,
    well_at: Instant,
}

impl Vigil {
    fn new(beats: u64, now: Instant) -> Vigil {
        Vigil {
            beats,
            asked_at: now,
            well_at: now,
        }
    }

    /// Whether the loop has beaten and the worker, `silent` for so long, has shown itself since both
    /// were asked last; else how long it is since they did.
    fn look(&mut self, beats: u64, silent: Duration, now: Instant) -> Result<(), Duration> {
        let asked = now.saturating_duration_since(self.asked_at);
        let both = beats != self.beats && silent < asked;
        self.asked_at = now;
        if both {
            self.beats = beats;
            self.well_at = now;
            return Ok(());
        }
        Err(now.saturating_duration_since(self.well_at))
    }
}

/// Watches from a thread of its own, which nothing can hold up, as long as the process lives.
pub(crate) fn start(
    heart: Arc<Heart>,
    publisher: Publisher,
    notifier: Arc<Notifier>,
) -> std::io::Result<()> {
    let wanted = notify::watchdog();
    let every = wanted.map_or(ASK_EVERY, |wanted| (wanted / 4).min(ASK_EVERY));
    let watch = move || {
        let mut vigil = Vigil::new(heart.listen(), Instant::now());
        publisher.pulse();
        loop {
            thread::sleep(every);
            let silent = publisher.pulse();
            match vigil.look(heart.listen(), silent, Instant::now()) {
                Ok(()) => notifier.alive(),
                Err(silent) if wanted.is_none() && silent >= PATIENCE => {
                    tracing::error!(
                        ?silent,
                        "nothing moves any more; the agent starts itself anew"
                    );
                    again();
                }
                Err(silent) => tracing::debug!(?silent, "waiting for a sign of life"),
            }
        }
    };
    let thread = thread::Builder::new().name("watchdog".into());
    thread.stack_size(STACK).spawn(watch).map(drop)
}

/// Replaces this process by a new run of the same program with the same arguments: whatever was held
/// up is gone, and what is on disk is taken up where it was. Returns only if that fails.
pub(crate) fn again() {
    let program = std::env::current_exe();
    let error = program.map_or_else(
        |error| error,
        |program| {
            Command::new(program)
                .args(std::env::args_os().skip(1))
                .exec()
        },
    );
    tracing::error!(%error, "the agent could not start itself anew");
    std::process::exit(i32::from(crate::STALLED));
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn all_is_well_while_both_parts_move() {
        let start = Instant::now();
        let mut vigil = Vigil::new(0, start);
        for n in 1..10u32 {
            assert_eq!(vigil.look(n.into(), SECOND / 2, start + n * SECOND), Ok(()));
        }
    }

    #[test]
    fn one_part_that_moves_does_not_hide_one_that_is_stuck() {
        let start = Instant::now();
        let mut vigil = Vigil::new(0, start);
        for n in 1..10u32 {
            let looked = vigil.look(0, SECOND / 2, start + n * SECOND);
            assert_eq!(looked, Err(n * SECOND));
        }
        let mut vigil = Vigil::new(0, start);
        for n in 1..10u32 {
            let looked = vigil.look(n.into(), n * SECOND, start + n * SECOND);
            assert_eq!(looked, Err(n * SECOND));
        }
        assert_eq!(vigil.look(10, SECOND / 2, start + 10 * SECOND), Ok(()));
    }
}
