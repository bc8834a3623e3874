//! Devices, groups, levels and changes: the objects of the HTTP API, read back into types.

use async_graphql::{ComplexObject, Context, Enum, Json, SimpleObject};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::count::Count;
use super::limits;
use super::logs::{LogConditions, LogCounts, LogEvents, LogOrder};
use super::query::Resolved;
use crate::api::list::Listed;
use crate::registry::{Code, Refusal};

/// A log level. DISABLED lets nothing pass; no event has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Level {
    Debug,
    Info,
    Warn,
    Error,
    Disabled,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Warn => "WARN",
            Level::Error => "ERROR",
            Level::Disabled => "DISABLED",
        }
    }
}

type Object = Json<Map<String, Value>>;

/// A device, by whatever it is known.
#[derive(Debug, Deserialize, SimpleObject)]
#[graphql(complex)]
pub(super) struct Node {
    /// Its name.
    #[serde(rename = "device")]
    pub(super) name: String,
    /// Whether it is connected; unknown before the broker or the device said so.
    online: Option<bool>,
    /// When it was last heard of, RFC 3339.
    last_contact: Option<String>,
    /// Its level.
    level: Level,
    /// Why, in a sentence.
    why: String,
    /// Its temporary level, if one runs.
    #[serde(rename = "override")]
    running: Option<Object>,
    /// The groups it is in, ancestors and dynamic groups included.
    groups: Vec<String>,
    /// Its type.
    #[serde(rename = "type")]
    #[graphql(name = "type")]
    kind: Option<String>,
    /// What operators say of it.
    attributes: Option<Object>,
    /// What it says of itself.
    reported_attributes: Option<Object>,
    /// Of its program.
    version: Option<String>,
    /// Of the configuration that it should have.
    desired_revision: String,
    /// Of the configuration that it has taken up.
    revision: Option<String>,
    /// As whom it is connected.
    principal: Option<String>,
    /// From where.
    address: Option<String>,
    /// Since when, RFC 3339.
    connected_since: Option<String>,
    /// Events that wait on the device.
    spool_events: Option<Count>,
    /// Bytes of them.
    spool_bytes: Option<Count>,
    /// Events that it gave up.
    dropped: Option<Count>,
    /// The same by level and reason.
    dropped_by: Option<Object>,
    /// Its mode of upload.
    upload: Option<String>,
    /// Whether it writes events to its disk.
    persistent: Option<bool>,
    /// Whether it knows the time.
    clock_synced: Option<bool>,
}

#[ComplexObject]
impl Node {
    /// What it logged; newest first unless told.
    #[graphql(complexity = "limits::search(limit, child_complexity)")]
    async fn list_log_events(
        &self,
        context: &Context<'_>,
        #[graphql(name = "where")] conditions: Option<LogConditions>,
        order: Option<LogOrder>,
        limit: Option<i32>,
        cursor: Option<String>,
    ) -> Resolved<LogEvents> {
        let devices = Some(vec![self.name.clone()]);
        super::query::events(context, conditions, devices, (order, limit, cursor)).await
    }

    /// How much it logged over time.
    #[graphql(complexity = "limits::counts(1, child_complexity)")]
    async fn log_counts(
        &self,
        context: &Context<'_>,
        #[graphql(name = "where")] conditions: Option<LogConditions>,
        step: Option<String>,
    ) -> Resolved<LogCounts> {
        let devices = Some(vec![self.name.clone()]);
        super::query::counts(context, conditions, devices, step).await
    }
}

/// A page of devices.
#[derive(Debug, SimpleObject)]
pub(super) struct Nodes {
    items: Vec<Node>,
    /// The cursor of the next page; a page without one is the last.
    next: Option<String>,
}

/// A thing group.
#[derive(Debug, Deserialize, SimpleObject)]
pub(super) struct Group {
    /// Its name.
    name: String,
    /// The group it is in.
    parent: Option<String>,
    /// All groups it is in, the nearest first.
    ancestors: Vec<String>,
    /// The groups in it.
    children: Vec<String>,
    /// Devices in itself.
    members: Count,
    /// Of a dynamic group: which devices are in it.
    query: Option<String>,
    /// What it is for.
    description: Option<String>,
    /// What operators say of it.
    attributes: Option<Object>,
    /// Its level, if it has one.
    level: Option<Level>,
    /// Levels of sources.
    sources: Option<Object>,
    /// Its temporary level, if one runs.
    #[serde(rename = "override")]
    running: Option<Object>,
    /// Why it does not act as it reads.
    problem: Option<String>,
    /// Who changed it last.
    by: Option<String>,
    /// When, RFC 3339.
    at: Option<String>,
}

/// A page of groups.
#[derive(Debug, SimpleObject)]
pub(super) struct Groups {
    items: Vec<Group>,
    /// The cursor of the next page; a page without one is the last.
    next: Option<String>,
}

/// A level, and every rule that spoke or could have.
#[derive(Debug, Deserialize, SimpleObject)]
pub(super) struct Explanation {
    /// Whose.
    device: String,
    /// Of which source; without, of every source that nobody names.
    source: Option<String>,
    /// When the event happened, RFC 3339.
    time: String,
    /// The level.
    level: Level,
    /// Why, in a sentence.
    why: String,
    /// Every rule, in the order in which they are asked.
    rules: Json<Vec<Value>>,
}

/// A change of a configuration document.
#[derive(Debug, Deserialize, SimpleObject)]
pub(super) struct HistoryEntry {
    /// When, RFC 3339.
    at: String,
    /// Who.
    by: Option<String>,
    /// Of what: default, group:eu, device:lamp-7 and so on.
    subject: String,
    /// What became of it.
    change: String,
    /// The document, without the root.
    topic: String,
    /// What it says since.
    document: Option<Object>,
}

/// A page of changes.
#[derive(Debug, SimpleObject)]
pub(super) struct History {
    items: Vec<HistoryEntry>,
    /// The cursor of the next page; a page without one is the last.
    next: Option<String>,
}

impl Nodes {
    pub(super) fn of(page: Listed) -> Result<Nodes, Refusal> {
        let (items, next) = entries(page)?;
        Ok(Nodes { items, next })
    }
}

impl Groups {
    pub(super) fn of(page: Listed) -> Result<Groups, Refusal> {
        let (items, next) = entries(page)?;
        Ok(Groups { items, next })
    }
}

impl History {
    pub(super) fn of(page: Listed) -> Result<History, Refusal> {
        let (items, next) = entries(page)?;
        Ok(History { items, next })
    }
}

fn entries<T: DeserializeOwned>(page: Listed) -> Result<(Vec<T>, Option<String>), Refusal> {
    let items = page
        .items
        .into_iter()
        .map(typed)
        .collect::<Result<_, _>>()?;
    Ok((items, page.next))
}

/// An object of the HTTP API as a type.
pub(super) fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Refusal> {
    serde_json::from_value(value)
        .map_err(|error| Refusal::new(Code::ServiceUnavailable, format!("an answer: {error}")))
}
