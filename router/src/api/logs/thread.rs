//! Threads for searches. What delivers goes first: a search takes what is left of the processors, and a
//! little more, so that it ends on a busy machine too. All searches together take half of them at most
//! ([`Share`]): priority decides who computes, not whose data fills the caches.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// How far below all others. One thread at this next to one of the others gets a sixteenth.
const BELOW: i32 = 12;

/// Runs work on a thread of its own.
pub(super) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, done) = oneshot::channel();
    let thread = std::thread::Builder::new().name("search".into());
    thread.spawn(move || {
        step_back();
        // Nobody may wait any more.
        let _ = sender.send(work());
    })?;
    done.await
        .map_err(|_| io::Error::other("a search ended early; the log says why"))
}

/// Lowers the priority of this thread. To Linux each thread has its own (sched(7)); elsewhere it is the
/// whole process's, which stays as it is.
fn step_back() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(BELOW) {
        tracing::debug!(%error, "a search runs at the priority of all others");
    }
}

/// As many searches as compute at a moment: half of the processors, one at least. Those that are under way
/// take turns, a block each.
#[derive(Clone, Debug)]
pub(super) struct Share(Arc<Semaphore>);

impl Share {
    pub(super) fn new() -> Share {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Share::of((processors / 2).max(1))
    }

    fn of(places: usize) -> Share {
        Share(Arc::new(Semaphore::new(places)))
    }

    /// For one search that is about to begin on a thread of its own.
    pub(super) fn seat(&self) -> Seat {
        Seat {
            share: self.clone(),
            runtime: Handle::current(),
            held: RefCell::default(),
        }
    }
}

/// A search's place among those that compute, once it has one.
pub(super) struct Seat {
    share: Share,
    runtime: Handle,
    held: RefCell<Option<OwnedSemaphorePermit>>,
}

impl Seat {
    /// Lets all others that wait go first, and waits for the next place. For threads that are not the
    /// runtime's.
    pub(super) fn pass(&self) {
        let mut held = self.held.borrow_mut();
        *held = None;
        let place = Arc::clone(&self.share.0).acquire_owned();
        // Nobody closes the semaphore; a search without a place would do no harm.
        *held = self.runtime.block_on(place).ok();
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// The priority of this thread (proc(5), `stat`, field 19).
    fn priority() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let behind_name = stat.rsplit(") ").next().unwrap();
        behind_name.split(' ').nth(16).unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn a_search_steps_back_and_nobody_else() {
        let before = priority();
        let during = run(priority).await.unwrap();
        assert_eq!((during, priority()), ((before + BELOW).min(19), before));
    }

    #[tokio::test]
    async fn a_search_that_panics_is_an_error() {
        assert!(run(|| -> u8 { panic!("on purpose") }).await.is_err());
    }

    #[tokio::test]
    async fn no_more_searches_compute_than_there_are_places_and_all_end() {
        let (share, computing) = (Share::of(1), Arc::new(AtomicUsize::new(0)));
        let searches = [0; 3].map(|_| {
            let (seat, computing) = (share.seat(), Arc::clone(&computing));
            tokio::spawn(run(move || {
                for _ in 0..200 {
                    seat.pass();
                    assert_eq!(computing.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    computing.fetch_sub(1, Ordering::SeqCst);
                }
            }))
        });
        for search in searches {
            search.await.unwrap().unwrap();
        }
    }
}
