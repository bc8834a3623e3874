//! Panics of an application as events: the last thing a program has to say is worth carrying.

use std::{
    panic::{self, PanicHookInfo},
    sync::Arc,
    thread,
    time::Duration,
};

use thinglog_schemas::Severity;

use crate::{Publisher, Record};

impl Publisher {
    /// From now on a panic of any thread is an ERROR event of `source` (attributes `thread` and
    /// `location`), and the panicking thread waits up to `within` until it is durable: what comes
    /// next may be the end of the process. Then the hook that was there before has its turn.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # let publisher = thinglog_edge::Publisher::builder("lamp-7").start()?;
    /// publisher.log_panics("app", Duration::from_secs(2));
    /// # Ok::<(), thinglog_edge::BuildError>(())
    /// ```
    pub fn log_panics(&self, source: impl Into<Arc<str>>, within: Duration) {
        let (publisher, source) = (self.clone(), source.into());
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            publisher.emit(event(source.clone(), info));
            publisher.flush_blocking(within);
            before(info);
        }));
    }
}

fn event(source: Arc<str>, info: &PanicHookInfo<'_>) -> Record {
    let payload = info.payload();
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no text)");
    let record = Record::new(source, Severity::ERROR, format!("panic: {text}"));
    let thread = thread::current();
    let record = record.with("thread", thread.name().unwrap_or("(unnamed)"));
    match info.location() {
        Some(location) => record.with("location", location.to_string()),
        None => record,
    }
}
