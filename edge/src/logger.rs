//! A logger for the `log` crate: what an application logs becomes events of a publisher.

use std::{sync::Arc, time::Duration};

use log::{
    Level, LevelFilter, Log, Metadata, SetLoggerError,
    kv::{Error, Key, Value as Logged, VisitSource, VisitValue},
};
use serde_json::Value;
use thinglog_schemas::{Attributes, Severity};

use crate::{
    Publisher, Record,
    own::{Inside, is_own},
};

/// Publishes `log` records: the text as the message, key-values as attributes, the target (the
/// module's path unless given) as attribute `target`, the level mapped to a severity. What is below
/// the publisher's level is left out, and so are the logs of the crates that carry logs.
///
/// ```no_run
/// use thinglog_edge::{Logger, Publisher};
///
/// let publisher = Publisher::builder("lamp-7").start()?;
/// Logger::new(publisher.clone()).with_source("lampd").init()?;
/// log::warn!(celsius = 91; "bulb is hot");
/// log::logger().flush();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Logger {
    publisher: Publisher,
    source: Arc<str>,
    flush_within: Duration,
}

impl Logger {
    /// Events become those of source `app`; a flush takes at most a second.
    pub fn new(publisher: Publisher) -> Logger {
        Logger {
            publisher,
            source: "app".into(),
            flush_within: Duration::from_secs(1),
        }
    }

    /// Names the source.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Arc<str>>) -> Logger {
        self.source = source.into();
        self
    }

    /// How long [`Log::flush`] may wait. Default a second.
    #[must_use]
    pub fn with_flush_deadline(mut self, within: Duration) -> Logger {
        self.flush_within = within;
        self
    }

    /// Makes it the logger of this process. `log`'s own greatest level follows the publisher's from
    /// now on, remote changes included, so that what nobody takes costs one comparison.
    ///
    /// # Errors
    /// When the process has a logger already.
    pub fn init(self) -> Result<(), SetLoggerError> {
        let publisher = self.publisher.clone();
        log::set_boxed_logger(Box::new(self))?;
        publisher.follow_gate(|gate| log::set_max_level(most_verbose(gate)));
        Ok(())
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.publisher.enabled(severity(metadata.level())) && !is_own(metadata.target())
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let Some(_inside) = Inside::enter() else {
            return;
        };
        let mut attributes = Attributes::new();
        // Values that cannot be visited are left out; the others and the message still go.
        let _ = record.key_values().visit(&mut Pairs(&mut attributes));
        attributes.insert("target".into(), record.target().into());
        let message = match record.args().as_str() {
            Some(text) => text.to_owned(),
            None => record.args().to_string(),
        };
        self.publisher.emit(Record {
            attributes,
            ..Record::new(self.source.clone(), severity(record.level()), message)
        });
    }

    /// Waits until everything is durable, at most as long as
    /// [`with_flush_deadline`](Logger::with_flush_deadline) says.
    fn flush(&self) {
        self.publisher.flush_blocking(self.flush_within);
    }
}

fn severity(level: Level) -> Severity {
    match level {
        Level::Error => Severity::ERROR,
        Level::Warn => Severity::WARN,
        Level::Info => Severity::INFO,
        Level::Debug => Severity::DEBUG,
        Level::Trace => Severity::TRACE,
    }
}

/// The greatest level of which anything passes.
fn most_verbose(gate: u8) -> LevelFilter {
    let levels = [
        Level::Trace,
        Level::Debug,
        Level::Info,
        Level::Warn,
        Level::Error,
    ];
    let passes = |level: &Level| severity(*level).number() >= gate;
    let most_verbose = levels.into_iter().find(passes);
    most_verbose.map_or(LevelFilter::Off, |level| level.to_level_filter())
}

/// Key-values into attributes.
struct Pairs<'a>(&'a mut Attributes);

impl<'kvs> VisitSource<'kvs> for Pairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Logged<'kvs>) -> Result<(), Error> {
        let mut json = Json(Value::Null);
        value.visit(&mut json)?;
        self.0.insert(key.as_str().to_owned(), json.0);
        Ok(())
    }
}

/// One value as JSON; what JSON has no number for is text.
struct Json(Value);

impl<'v> VisitValue<'v> for Json {
    fn visit_any(&mut self, value: Logged<'_>) -> Result<(), Error> {
        self.0 = value.to_string().into();
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        self.0 = Value::Null;
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_str(&mut self, value: &str) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_level_is_the_one_that_still_passes() {
        let gates = [
            (0, LevelFilter::Trace),
            (Severity::DEBUG.number(), LevelFilter::Debug),
            (Severity::INFO.number(), LevelFilter::Info),
            (Severity::WARN.number(), LevelFilter::Warn),
            (Severity::ERROR.number(), LevelFilter::Error),
            (u8::MAX, LevelFilter::Off),
        ];
        for (gate, expected) in gates {
            assert_eq!(most_verbose(gate), expected, "{gate}");
        }
    }

    #[test]
    fn key_values_keep_their_types() {
        let pairs: [(&str, Logged<'_>); 7] = [
            ("count", 7u64.into()),
            ("depth", (-3i64).into()),
            ("share", 0.5f64.into()),
            ("on", true.into()),
            ("unit", "C".into()),
            ("huge", Logged::from(&u128::MAX)),
            ("some", Logged::from_debug(&Some(1))),
        ];
        let mut attributes = Attributes::new();
        log::kv::Source::visit(&&pairs[..], &mut Pairs(&mut attributes)).unwrap();
        let expected = serde_json::json!({
            "count": 7, "depth": -3, "share": 0.5, "on": true, "unit": "C",
            "huge": u128::MAX.to_string(), "some": "Some(1)",
        });
        assert_eq!(Value::Object(attributes), expected);
    }
}
