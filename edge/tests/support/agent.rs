//! One source of the agent in a thread of its own, into a publisher for the test's broker.

#![allow(dead_code, clippy::unwrap_used)]

use std::{net::SocketAddr, thread, time::Duration};

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
}
