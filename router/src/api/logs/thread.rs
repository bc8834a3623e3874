//! Threads for searches. What delivers goes first: a search takes what is left of the processors, and a
//! little more, so that it ends on a busy machine too.

use std::io;

use tokio::sync::oneshot;

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

#[cfg(all(test, target_os = "linux"))]
mod tests {
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
}
