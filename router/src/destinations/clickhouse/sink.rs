//! Inserts requests, and creates the table where it is missing.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use super::encode::RowEncoder;
use super::{REFUSED, table};
use crate::config::ClickhouseConfig;
use crate::deliver::remote::Sink;
use crate::deliver::remote::request::Request;
use crate::deliver::remote::verdict::Verdict;
use crate::destinations::http::{Answer, Connection, Head, HeaderMap, Method};

/// What holds for every insert: the answer says what became of it, and times are read as they are written.
const SETTINGS: &str = "async_insert=0&wait_end_of_query=1&date_time_input_format=best_effort";
const UNKNOWN_TABLE: u32 = 60;

/// Inserts into one table.
pub(crate) struct ClickhouseSink {
    connection: Connection,
    /// Up to the token of a request.
    insert: String,
    /// Nothing: the table is not ours to create.
    create: Option<String>,
    /// Whether the table has been seen to.
    is_there: AtomicBool,
}

impl ClickhouseSink {
    /// Reads the files that the configuration names; the error names key and reason.
    pub(super) fn new(config: &ClickhouseConfig) -> Result<ClickhouseSink, String> {
        let base = config.url.trim_end_matches('/');
        let insert = encoded(&table::insert(&config.database, &config.table));
        let create = table::create(&config.database, &config.table, &config.engine);
        let create = format!("{base}/?query={}", encoded(&create));
        Ok(ClickhouseSink {
            connection: Connection::new(&config.http, config.compression, "Bearer")?,
            insert: format!("{base}/?query={insert}&{SETTINGS}&insert_deduplication_token="),
            create: config.create.then_some(create),
            is_there: AtomicBool::new(false),
        })
    }

    /// Creates the table, if it is ours to and has not been seen to.
    async fn make_table(&self) -> Result<(), String> {
        let Some(url) = &self.create else {
            return Ok(());
        };
        if self.is_there.load(Ordering::Relaxed) {
            return Ok(());
        }
        let answer = self
            .connection
            .exchange(post(url.clone()), Vec::new())
            .await?;
        match code(&answer) {
            None if answer.status == 200 => {
                self.is_there.store(true, Ordering::Relaxed);
                Ok(())
            }
            _ => Err(answer.reason()),
        }
    }
}

impl Sink for ClickhouseSink {
    type Encoder = RowEncoder;

    async fn send(&self, request: &Request, body: Vec<u8>) -> Verdict {
        if let Err(reason) = self.make_table().await {
            return Verdict::retry(format!("create: {reason}"));
        }
        let url = format!("{}{}", self.insert, token(&body));
        let body = match self.connection.compress(body) {
            Ok(body) => body,
            Err(error) => return Verdict::retry(format!("cannot compress: {error}")),
        };
        let mut head = post(url);
        self.connection.say_encoding(&mut head);
        match self.connection.exchange(head, body).await {
            Ok(answer) => {
                if code(&answer) == Some(UNKNOWN_TABLE) {
                    self.is_there.store(false, Ordering::Relaxed);
                }
                verdict(request, &answer)
            }
            Err(reason) => Verdict::retry(reason),
        }
    }
}

fn post(url: String) -> Head {
    Head {
        method: Method::POST,
        url,
        headers: HeaderMap::new(),
    }
}

/// TOO_MANY_PARTS: of a table, or of one request.
const TOO_MANY_PARTS: u32 = 252;

/// The code of an exception.
fn code(answer: &Answer) -> Option<u32> {
    let header = answer.headers.get("x-clickhouse-exception-code")?;
    header.to_str().ok()?.trim().parse().ok()
}

/// What an answer means. Behind a proxy there may be no code, and the status counts.
pub(super) fn verdict(_request: &Request, answer: &Answer) -> Verdict {
    let reason = answer.reason();
    match code(answer) {
        Some(code) if REFUSED.contains(&code) => Verdict::Refused { reason },
        // Not too many parts but too many months in one request: a half has fewer, one event has one.
        Some(TOO_MANY_PARTS) if reason.contains("partitions for single INSERT") => {
            Verdict::Refused { reason }
        }
        Some(_) => Verdict::Retry {
            after: answer.retry_after(std::time::SystemTime::now()),
            reason,
        },
        // What lies with the rows has a code: without one it is somebody else who refuses.
        None => match answer.verdict() {
            Verdict::Refused { reason } if answer.status != 413 => Verdict::retry(reason),
            said => said,
        },
    }
}

/// What tells a request from all others: the rows, which hold the ids of their events.
pub(super) fn token(body: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(body) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Percent-encoded for a query (RFC 3986).
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}
