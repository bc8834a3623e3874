//! One request for logs: which sources, how many of their events, and on their way.

use std::time::{Duration, Instant};

use thinglog_schemas::request::{Deliver, Done, Progress, Request, State};
use tokio::sync::mpsc;

use super::{Office, Readable, chunks::Chunks, filter::Filter};
use crate::{
    agent::{
        SourceError,
        history::{Block, Covers, Past, Reading},
    },
    clock,
};

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// Notes of one answer, at most.
const MAX_NOTES: usize = 16;
/// How long events on the ordinary way may take to become durable.
const DURABLE_WITHIN: Duration = Duration::from_secs(60);

pub(super) struct Search<'a> {
    office: &'a Office,
    request: &'a Request,
    filter: Filter,
    /// Of each source, at most.
    lines: u64,
    chunks: Chunks,
    progress: Progress,
    told: Instant,
    limited: Option<&'static str>,
    notes: Vec<String>,
}

/// Whether there may be more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    More,
    Enough,
}

impl<'a> Search<'a> {
    pub(super) fn new(office: &'a Office, request: &'a Request, lines: u64) -> Search<'a> {
        Search {
            office,
            filter: Filter::new(request, clock::wall()),
            chunks: Chunks::new(&office.device, &request.id),
            request,
            lines,
            progress: Progress::default(),
            told: clock::mono(),
            limited: None,
            notes: Vec::new(),
        }
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    /// Reads and sends; the error is for who asked.
    pub(super) async fn run(&mut self, sources: &[Readable]) -> Result<Done, String> {
        let chosen = choose(sources, &self.request.sources)?;
        let mut failures = 0;
        for readable in &chosen {
            match self.source(readable).await {
                Ok(Sent::More) => {}
                Ok(Sent::Enough) => break,
                Err(Trouble::Source(error)) => {
                    failures += 1;
                    self.note(error.to_string());
                }
                Err(Trouble::Ended) => return Err("the publisher has ended".into()),
            }
        }
        if failures == chosen.len() && self.progress.sent == 0 {
            return Err(self.notes.join("; "));
        }
        self.finish().await
    }

    async fn finish(&mut self) -> Result<Done, String> {
        if let Some(chunk) = self.chunks.finish(clock::wall()) {
            self.send(chunk)
                .await
                .map_err(|_| "the publisher has ended".to_owned())?;
        }
        if self.request.deliver == Deliver::Logs
            && self.progress.sent > 0
            && !self.office.publisher.flush(DURABLE_WITHIN).await
        {
            self.note("not all of the events are known to have arrived".into());
        }
        Ok(Done {
            progress: self.progress,
            chunks: self.chunks.count(),
            limited: self.limited.map(str::to_owned),
            notes: std::mem::take(&mut self.notes),
            ..Done::default()
        })
    }

    /// One source: counts, then sends the newest.
    async fn source(&mut self, readable: &Readable) -> Result<Sent, Trouble> {
        let mut matched = 0;
        let mut pump = Pump::start(readable, &self.filter);
        while let Some(block) = pump.next().await {
            self.progress.lines += block.lines;
            for mut past in block.records {
                readable.sink.dress(&mut past.record);
                matched += u64::from(self.filter.matches(&past));
            }
            self.tell();
        }
        let counted = pump.end().await;
        self.progress.matched += matched;
        if matched == 0 {
            counted?;
            return Ok(Sent::More);
        }
        let mut skip = matched.saturating_sub(self.lines);
        if skip > 0 {
            self.limited = Some("lines");
        }
        let mut left = self.lines;
        let mut pump = Pump::start(readable, &self.filter);
        while let Some(block) = pump.next().await {
            for mut past in block.records {
                readable.sink.dress(&mut past.record);
                if !self.filter.matches(&past) {
                    continue;
                }
                if skip > 0 {
                    skip -= 1;
                    continue;
                }
                // What was logged since it was counted is none of what was asked for.
                if left == 0 {
                    continue;
                }
                left -= 1;
                if self.chunks.bytes() >= self.office.options.max_bytes {
                    self.limited = Some("bytes");
                    return Ok(Sent::Enough);
                }
                self.emit(readable, past).await?;
            }
            self.tell();
        }
        pump.end().await?;
        let expected = matched.min(self.lines);
        let sent = self.lines - left;
        if sent < expected {
            let gone = expected - sent;
            self.note(format!(
                "{gone} lines were removed before they could be sent: their source keeps no more"
            ));
        }
        Ok(Sent::More)
    }

    async fn emit(&mut self, readable: &Readable, past: Past) -> Result<(), Trouble> {
        match self.request.deliver {
            Deliver::Response => {
                if let Some(chunk) = self.chunks.add(past, clock::wall()) {
                    self.send(chunk).await?;
                }
            }
            Deliver::Logs => {
                let record = past.record.with("request", self.request.id.as_str());
                if !readable.sink.publisher().emit_waiting(record).await {
                    return Err(Trouble::Ended);
                }
            }
        }
        self.progress.sent += 1;
        Ok(())
    }

    async fn send(&self, chunk: Vec<u8>) -> Result<(), Trouble> {
        let id = &self.request.id;
        match self.office.publisher.answer_waiting(id, chunk).await {
            true => Ok(()),
            false => Err(Trouble::Ended),
        }
    }

    fn tell(&mut self) {
        let now = clock::mono();
        if now.saturating_duration_since(self.told) >= TELL_EVERY {
            self.told = now;
            let state = State::Executing(self.progress);
            self.office.tell(&self.request.id, &state);
        }
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(note);
        }
    }
}

/// Why a source could not be sent.
enum Trouble {
    /// It cannot be read.
    Source(SourceError),
    /// There is nobody to send it to any more.
    Ended,
}

impl From<SourceError> for Trouble {
    fn from(error: SourceError) -> Trouble {
        Trouble::Source(error)
    }
}

/// The sources that were asked for; every name must be that of one, or could be.
fn choose<'a>(sources: &'a [Readable], asked: &[String]) -> Result<Vec<&'a Readable>, String> {
    let known = || {
        let names: Vec<String> = sources.iter().flat_map(|s| s.history.sources()).collect();
        match names.is_empty() {
            true => "none of its sources can be read back".to_owned(),
            false => format!("there are: {}", names.join(", ")),
        }
    };
    if sources.is_empty() {
        return Err(format!("nothing to read on this device: {}", known()));
    }
    let mut taken = vec![asked.is_empty(); sources.len()];
    for name in asked {
        // Who may have it is asked only when nobody is known to.
        let covered = [Covers::Yes, Covers::Maybe].into_iter().any(|certainty| {
            let mut covered = false;
            for (source, taken) in sources.iter().zip(&mut taken) {
                let covers = source.history.covers(name) == certainty;
                *taken |= covers;
                covered |= covers;
            }
            covered
        });
        if !covered {
            return Err(format!("no source {name:?} can be read back; {}", known()));
        }
    }
    let chosen = sources.iter().zip(taken).filter(|(_, taken)| *taken);
    Ok(chosen.map(|(source, _)| source).collect())
}

/// A reading and what comes out of it.
struct Pump<'a> {
    reading: Option<Reading<'a>>,
    blocks: mpsc::Receiver<Block>,
    ended: Result<(), SourceError>,
}

impl<'a> Pump<'a> {
    fn start(readable: &'a Readable, filter: &Filter) -> Pump<'a> {
        let (sender, blocks) = mpsc::channel(2);
        Pump {
            reading: Some(readable.history.read(filter.span().clone(), sender)),
            blocks,
            ended: Ok(()),
        }
    }

    async fn next(&mut self) -> Option<Block> {
        loop {
            let Some(reading) = &mut self.reading else {
                return self.blocks.recv().await;
            };
            tokio::select! {
                block = self.blocks.recv() => return block,
                ended = reading => {
                    self.reading = None;
                    self.ended = ended;
                }
            }
        }
    }

    /// How the reading ended, after there was nothing more.
    async fn end(self) -> Result<(), SourceError> {
        match self.reading {
            Some(reading) => reading.await,
            None => self.ended,
        }
    }
}
