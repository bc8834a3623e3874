//! thinglog's own log: on standard error, text on a terminal and JSON otherwise, filtered by
//! `THINGLOG_LOG` (default `info`).

use std::io::{IsTerminal, stderr};

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, fmt, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt,
};

/// The variable with the filter: `debug`, `thinglog_broker=trace`, …
const VARIABLE: &str = "THINGLOG_LOG";

/// Starts logging, once per process. `extra` sees the same lines.
pub(crate) fn init<L>(extra: Option<L>) -> anyhow::Result<()>
where
    L: Layer<tracing_subscriber::layer::Layered<EnvFilter, tracing_subscriber::Registry>>
        + Send
        + Sync,
{
    let words = std::env::var(VARIABLE).unwrap_or_default();
    let words = if words.trim().is_empty() {
        "info"
    } else {
        &words
    };
    let filter = EnvFilter::try_new(words)
        .map_err(|error| anyhow::anyhow!("{VARIABLE}: {words:?} is no log filter: {error}"))?;
    let registry = tracing_subscriber::registry().with(filter).with(extra);
    let terminal = stderr().is_terminal();
    registry
        .with(terminal.then(text))
        .with((!terminal).then(json))
        .try_init()
        .map_err(|error| anyhow::anyhow!("logging cannot start: {error}"))
}

fn text<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    fmt::layer()
        .with_writer(stderr)
        .with_ansi(colour)
        .with_target(false)
}

fn json<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    fmt::layer().json().flatten_event(true).with_writer(stderr)
}
