//! History of containers: what their engine still has of a span, of all of them in the order of its
//! times.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use thinglog_schemas::name;
use tokio::sync::mpsc;

use super::{
    DockerOptions,
    engine::{Container, Engine, EngineError},
    follow::wants,
    frames::Entries,
    line::Joiner,
    place::Place,
};
use crate::{
    agent::{
        SourceError,
        history::{Block, Covers, History, Past, Reading, Span},
    },
    clock,
};

/// Records given at a time.
const BLOCK: usize = 256;
/// Containers that are read at once; each costs a connection.
const MAX_CONTAINERS: usize = 256;

/// The containers of one configured source.
#[derive(Clone, Debug)]
pub(crate) struct DockerHistory {
    options: Arc<DockerOptions>,
}

impl DockerHistory {
    /// Of what these options carry.
    pub(crate) fn new(options: DockerOptions) -> DockerHistory {
        DockerHistory {
            options: Arc::new(options),
        }
    }
}

impl History for DockerHistory {
    fn sources(&self) -> Vec<String> {
        let fixed = self.options.source.iter();
        fixed
            .map(|source| name::encode(source).into_owned())
            .collect()
    }

    fn covers(&self, source: &str) -> Covers {
        match &self.options.source {
            None => Covers::Maybe,
            Some(fixed) if name::encode(fixed) == source => Covers::Yes,
            Some(_) => Covers::No,
        }
    }

    fn read(&self, span: Span, out: mpsc::Sender<Block>) -> Reading<'_> {
        Box::pin(read(&self.options, span, out))
    }
}

/// One container's log on its way.
struct Log {
    body: Option<Incoming>,
    entries: Entries,
    joiner: Joiner,
    ready: VecDeque<Past>,
    /// Lines since they were counted last.
    lines: u64,
}

async fn read(
    options: &DockerOptions,
    span: Span,
    out: mpsc::Sender<Block>,
) -> Result<(), SourceError> {
    let engine = Engine {
        socket: options.socket.clone(),
    };
    let failed = |error: EngineError| SourceError::Ended(error.to_string());
    let (mut logs, mut missing) = (Vec::new(), None);
    let listed = engine.list().await.map_err(failed)?;
    let ids: HashSet<String> = listed.into_iter().map(|listed| listed.id).collect();
    for id in ids {
        match open(&engine, options, &id, &span).await {
            Ok(log) => logs.extend(log),
            // Removed meanwhile.
            Err(error) if error.is_gone() => {}
            Err(error) => missing = missing.or(Some(error)),
        }
        if logs.len() == MAX_CONTAINERS {
            break;
        }
    }
    let mut block = Block::default();
    loop {
        for log in &mut logs {
            if let Err(error) = log.fill(&span).await {
                missing = missing.or(Some(error));
            }
            block.lines += std::mem::take(&mut log.lines);
        }
        let next = logs.iter_mut().filter(|log| !log.ready.is_empty());
        let next = next.min_by_key(|log| log.ready.front().and_then(|past| past.record.time));
        let over = next.is_none();
        block
            .records
            .extend(next.and_then(|log| log.ready.pop_front()));
        let due = over || block.records.len() >= BLOCK;
        if due && out.send(std::mem::take(&mut block)).await.is_err() {
            return Ok(());
        }
        if over {
            return missing.map_or(Ok(()), |error| Err(failed(error)));
        }
    }
}

async fn open(
    engine: &Engine,
    options: &DockerOptions,
    id: &str,
    span: &Span,
) -> Result<Option<Log>, EngineError> {
    let container: Container = engine.inspect(id).await?;
    let joiner = Joiner::new(options, &container, Place::default());
    if !wants(options, &container) || !span.wants(joiner.source()) {
        return Ok(None);
    }
    Ok(Some(Log {
        body: Some(engine.past(id, span.from, span.to).await?),
        entries: Entries::new(container.config.tty),
        joiner,
        ready: VecDeque::new(),
        lines: 0,
    }))
}

impl Log {
    /// Reads until there is something, or the end.
    async fn fill(&mut self, span: &Span) -> Result<(), EngineError> {
        while self.ready.is_empty()
            && let Some(body) = &mut self.body
        {
            let mut records = Vec::new();
            let now = clock::mono();
            match body.frame().await {
                Some(Ok(frame)) => {
                    let Ok(bytes) = frame.into_data() else {
                        continue;
                    };
                    let (joiner, lines) = (&mut self.joiner, &mut self.lines);
                    let fed = self.entries.feed(&bytes, |entry| {
                        *lines += u64::from(entry.ends);
                        joiner.take(entry, now, &mut records);
                    });
                    if let Err(error) = fed {
                        self.body = None;
                        return Err(EngineError::Unread(error.to_string()));
                    }
                }
                Some(Err(error)) => {
                    self.body = None;
                    return Err(error.into());
                }
                None => {
                    self.body = None;
                    self.joiner.finish(now, &mut records);
                }
            }
            self.ready
                .extend(records.into_iter().map(|(mut record, _)| {
                    let estimated = record.time.is_none();
                    record.time.get_or_insert(span.to);
                    Past { record, estimated }
                }));
        }
        Ok(())
    }
}
