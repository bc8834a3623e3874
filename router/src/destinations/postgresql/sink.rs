//! Inserts a request, and reads the server's answer.

use std::error::Error as _;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::{BufMut, BytesMut};
use parking_lot::Mutex;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::types::{Format, IsNull, ToSql, Type};
use tokio_postgres::{Client, Error};

use super::connection::{Connection, Database};
use super::encode::{self, COLUMNS, RowEncoder};
use super::table;
use crate::config::PostgresqlConfig;
use crate::deliver::remote::Sink;
use crate::deliver::remote::request::Request;
use crate::deliver::remote::verdict::{ItemVerdict, Verdict};

/// Most characters of a reason.
const LONGEST: usize = 400;

/// Inserts into one table.
pub(crate) struct PostgresqlSink {
    database: Database,
    /// Quoted.
    table: String,
    insert: String,
    create: bool,
    hypertable: bool,
    within: std::time::Duration,
    /// Connections that nobody uses; never more than requests are under way at once.
    idle: Mutex<Vec<Connection>>,
    /// Whether the table has been seen. Held while it is made, so that it is made once.
    is_there: tokio::sync::Mutex<bool>,
    /// It has taken rows.
    takes: AtomicBool,
}

impl PostgresqlSink {
    /// Reads every file once, to see that it can be; the error names key and reason.
    pub(super) fn new(config: &PostgresqlConfig, name: String) -> Result<PostgresqlSink, String> {
        let table = config.quoted_table();
        let table = table.map_err(|reason| format!("table: {reason}"))?;
        Ok(PostgresqlSink {
            database: Database::new(config, name)?,
            insert: table::insert(&table),
            table,
            create: config.create,
            hypertable: config.hypertable,
            within: std::time::Duration::from_millis(config.timeout_ms),
            idle: Mutex::default(),
            is_there: tokio::sync::Mutex::default(),
            takes: AtomicBool::new(false),
        })
    }

    /// A connection to a database that has the table.
    async fn connection(&self) -> Result<Connection, String> {
        let idle = {
            let mut idle = self.idle.lock();
            idle.retain(|connection| !connection.client.is_closed());
            idle.pop()
        };
        let connection = match idle {
            Some(connection) => connection,
            None => self.database.connect().await?,
        };
        let mut is_there = self.is_there.lock().await;
        if self.create && !*is_there {
            let making = self.make_table(&connection.client);
            match tokio::time::timeout(self.within, making).await {
                Ok(made) => made.map_err(|reason| format!("create: {reason}"))?,
                Err(_) => {
                    self.end(&connection);
                    return Err("create: the table is not made in time".into());
                }
            }
            *is_there = true;
        }
        Ok(connection)
    }

    async fn make_table(&self, client: &Client) -> Result<(), String> {
        let wrong = |error| explain(&error);
        let there = table::is_there(&self.table);
        let there = client.query_typed(&there, &[]).await.map_err(wrong)?;
        if !there.is_empty() {
            return Ok(());
        }
        let has_hypertables = client.query_typed(table::HAS_HYPERTABLES, &[]).await;
        if self.hypertable && has_hypertables.map_err(wrong)?.is_empty() {
            return Err(
                "the database has no extension timescaledb: run CREATE EXTENSION timescaledb \
                 there, or remove hypertable"
                    .into(),
            );
        }
        let create = table::create(&self.table, self.hypertable);
        client.batch_execute(&create).await.map_err(wrong)?;
        tracing::info!(table = self.table, "created");
        Ok(())
    }

    /// Ends what a connection does.
    fn end(&self, connection: &Connection) {
        let token = connection.client.cancel_token();
        tokio::spawn(self.database.clone().cancel(token));
    }

    async fn insert(&self, connection: &Connection, body: &[u8]) -> Result<u64, Error> {
        let arrays: Vec<Raw<'_>> = encode::arrays(body).map(Raw).collect();
        let params: Vec<(&(dyn ToSql + Sync), Type)> = arrays
            .iter()
            .zip(&COLUMNS)
            .map(|(array, (_, _, kind))| (array as &(dyn ToSql + Sync), kind.clone()))
            .collect();
        connection.client.execute_typed(&self.insert, &params).await
    }
}

impl Sink for PostgresqlSink {
    type Encoder = RowEncoder;

    async fn send(&self, request: &Request, body: Vec<u8>) -> Verdict {
        let connection = match self.connection().await {
            Ok(connection) => connection,
            Err(reason) => return Verdict::retry(reason),
        };
        let inserting = self.insert(&connection, &body);
        let (verdict, is_good) = match tokio::time::timeout(self.within, inserting).await {
            Ok(Ok(new)) => {
                self.takes.store(true, Relaxed);
                (accepted(new, request.len()), true)
            }
            Ok(Err(error)) => {
                if error.code() == Some(&SqlState::UNDEFINED_TABLE) {
                    *self.is_there.lock().await = false;
                }
                failed(&error, self.takes.load(Relaxed))
            }
            Err(_) => {
                self.end(&connection);
                let within = self.within.as_millis();
                let reason = format!("no answer to an INSERT within {within} ms");
                (Verdict::retry(reason), false)
            }
        };
        if is_good {
            self.idle.lock().push(connection);
        }
        verdict
    }
}

/// A value that has its binary form already.
#[derive(Debug)]
struct Raw<'a>(&'a [u8]);

impl ToSql for Raw<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.put_slice(self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.to_sql(kind, out)
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Binary
    }
}

/// What a number of new rows means. Which ones were there before is not said; for the books their
/// number is enough.
pub(super) fn accepted(new: u64, sent: usize) -> Verdict {
    match usize::try_from(new) {
        Ok(new) if new < sent => {
            let mut items = vec![ItemVerdict::Duplicate; sent - new];
            items.resize(sent, ItemVerdict::Accepted);
            Verdict::Items(items)
        }
        _ => Verdict::Accepted,
    }
}

/// What an error means, and whether the connection is of use still. A table that `takes` other rows lacks
/// nothing for every row: a column that is computed of what an event has is empty for this one.
fn failed(error: &Error, takes: bool) -> (Verdict, bool) {
    let reason = explain(error);
    if let Some(column) = error.as_db_error().and_then(lacking).filter(|_| !takes) {
        let reason = format!(
            "{reason}; no event has anything for the column {column:?}: give it a default, or take its \
             NOT NULL away"
        );
        return (Verdict::retry(reason), true);
    }
    match is_refusal(error.code()) {
        true => (Verdict::Refused { reason }, true),
        false => (Verdict::retry(reason), false),
    }
}

/// The column that must not be empty and that is none of ours: every row would be refused, so it is the
/// table that is to be mended.
fn lacking(said: &DbError) -> Option<&str> {
    let column = said.column()?;
    let is_ours = COLUMNS.iter().any(|(name, ..)| *name == column);
    (*said.code() == SqlState::NOT_NULL_VIOLATION && !is_ours).then_some(column)
}

/// Whether an error lies with the rows.
pub(super) fn is_refusal(code: Option<&SqlState>) -> bool {
    let class = code.and_then(|code| code.code().get(..2));
    matches!(class, Some("22" | "23" | "44" | "54" | "P0"))
}

/// An error in a line: what the server said, or what became of the connection.
pub(super) fn explain(error: &Error) -> String {
    let text = match error.as_db_error() {
        Some(said) => explain_answer(said),
        None => match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    };
    let text: String = text.chars().take(LONGEST).collect();
    text.replace(|c: char| c.is_control(), " ")
}

fn explain_answer(said: &DbError) -> String {
    let mut text = format!("{} {}", said.code().code(), said.message());
    for more in [said.detail(), said.hint()].into_iter().flatten() {
        text.push_str("; ");
        text.push_str(more);
    }
    text
}
