//! What can be asked.

use async_graphql::{Context, Object};

use super::fleet::{self, Explanation, Group, Groups, History, Node, Nodes};
use super::logs::{DeviceLogCounts, LogConditions, LogCounts, LogEvents, LogOrder};
use super::{Asking, limits, refused};
use crate::api::list::Page;
use crate::api::{devices, explain, groups, history};
use crate::registry::{Code, Refusal, Registry};

/// What fields resolve to: nothing where there is an error, so that others are answered all the same.
pub(super) type Resolved<T> = Option<async_graphql::Result<T>>;

/// What can be asked.
pub(super) struct Query;

impl Asking {
    fn registry(&self) -> &Registry {
        self.reading.library.registry()
    }
}

fn asking<'c>(context: &'c Context<'_>) -> Result<&'c Asking, Refusal> {
    let asking = context.data::<Asking>();
    asking.map_err(|error| Refusal::new(Code::ServiceUnavailable, error.message))
}

fn resolved<T>(result: Result<T, Refusal>) -> Resolved<T> {
    Some(result.map_err(refused))
}

/// How often the texts of an entry are in the answer: they may be asked for under any number of names.
fn copies(context: &Context<'_>) -> usize {
    let page = context.field();
    let mut of = [0, 0];
    for items in page.selection_set().filter(|it| it.name() == "items") {
        for field in items.selection_set() {
            match field.name() {
                "message" => of[0] += 1,
                "attributes" => of[1] += 1,
                _ => {}
            }
        }
    }
    of[0].max(of[1]).max(1)
}

/// A page of events.
pub(super) async fn events(
    context: &Context<'_>,
    conditions: Option<LogConditions>,
    devices: Option<Vec<String>>,
    (order, limit, cursor): (Option<LogOrder>, Option<i32>, Option<String>),
) -> Resolved<LogEvents> {
    let mut asked = LogConditions::of(conditions, devices);
    asked.order = order.map(|order| order.name().to_owned());
    asked.limit = limit.map(|limit| limit.to_string());
    asked.cursor = cursor;
    let found = async {
        let Asking { caller, reading } = asking(context)?;
        let page = reading.page(caller, &asked).await?;
        let (events, bytes) = LogEvents::of(&page)?;
        let bytes = bytes.saturating_mul(copies(context));
        reading.library.answered(bytes)?;
        Ok(events)
    };
    resolved(found.await)
}

/// Counts of all devices together.
pub(super) async fn counts(
    context: &Context<'_>,
    conditions: Option<LogConditions>,
    devices: Option<Vec<String>>,
    step: Option<String>,
) -> Resolved<LogCounts> {
    let mut asked = LogConditions::of(conditions, devices);
    asked.step = step;
    let counted = async {
        let Asking { caller, reading } = asking(context)?;
        let (asked, counts) = reading.counts(caller, &asked).await?;
        Ok(LogCounts::of(&asked, &counts))
    };
    resolved(counted.await)
}

#[Object]
impl Query {
    /// A device.
    async fn node(&self, context: &Context<'_>, name: String) -> Resolved<Node> {
        let asking = asking(context);
        let found = asking.and_then(|it| devices::seen(it.registry(), &it.caller, &name));
        resolved(found.and_then(fleet::typed))
    }

    /// Devices: of a group, subgroups included; that match a query, as dynamic groups have it; that are
    /// connected, or not.
    #[graphql(complexity = "limits::list(limit, child_complexity)")]
    async fn nodes(
        &self,
        context: &Context<'_>,
        group: Option<String>,
        query: Option<String>,
        online: Option<bool>,
        limit: Option<i32>,
        cursor: Option<String>,
    ) -> Resolved<Nodes> {
        let limit = limit.map(|limit| limit.to_string());
        let which = devices::Which {
            group,
            query,
            online,
            limit,
            cursor,
        };
        let page = async {
            let asking = asking(context)?;
            devices::page(asking.registry(), &asking.caller, which).await
        };
        resolved(page.await.and_then(Nodes::of))
    }

    /// A thing group.
    async fn group(&self, context: &Context<'_>, name: String) -> Resolved<Group> {
        let asking = asking(context);
        let found = asking.and_then(|it| groups::seen(it.registry(), &it.caller, &name));
        resolved(found.and_then(fleet::typed))
    }

    /// Thing groups.
    #[graphql(complexity = "limits::list(limit, child_complexity)")]
    async fn groups(
        &self,
        context: &Context<'_>,
        limit: Option<i32>,
        cursor: Option<String>,
    ) -> Resolved<Groups> {
        let limit = limit.map(|limit| limit.to_string());
        let page = Page { limit, cursor };
        let page = async {
            let asking = asking(context)?;
            groups::groups(asking.registry(), &asking.caller, page).await
        };
        resolved(page.await.and_then(Groups::of))
    }

    /// What the fleet logged, or these devices of it (at most 100); newest first unless told.
    #[graphql(complexity = "limits::search(limit, child_complexity)")]
    async fn log_events(
        &self,
        context: &Context<'_>,
        device: Option<Vec<String>>,
        #[graphql(name = "where")] conditions: Option<LogConditions>,
        order: Option<LogOrder>,
        limit: Option<i32>,
        cursor: Option<String>,
    ) -> Resolved<LogEvents> {
        events(context, conditions, device, (order, limit, cursor)).await
    }

    /// How much the fleet logged over time, or these devices of it together; in steps like 30s, 5m, 1h.
    #[graphql(complexity = "limits::counts(1, child_complexity)")]
    async fn log_counts(
        &self,
        context: &Context<'_>,
        device: Option<Vec<String>>,
        #[graphql(name = "where")] conditions: Option<LogConditions>,
        step: Option<String>,
    ) -> Resolved<LogCounts> {
        counts(context, conditions, device, step).await
    }

    /// The same for each of these devices (at most 100), in one search.
    #[graphql(complexity = "limits::counts(device.len(), child_complexity)")]
    async fn device_log_counts(
        &self,
        context: &Context<'_>,
        device: Vec<String>,
        #[graphql(name = "where")] conditions: Option<LogConditions>,
        step: Option<String>,
    ) -> Resolved<DeviceLogCounts> {
        let mut asked = LogConditions::of(conditions, Some(device));
        asked.step = step;
        asked.by = Some("device".into());
        let counted = async {
            let Asking { caller, reading } = asking(context)?;
            let (asked, counts) = reading.device_counts(caller, &asked).await?;
            Ok(DeviceLogCounts::of(&asked, &counts))
        };
        resolved(counted.await)
    }

    /// The level of a device, or of a source of it, and every rule that spoke or could have; now, or at a
    /// time (RFC 3339).
    async fn explain(
        &self,
        context: &Context<'_>,
        device: String,
        source: Option<String>,
        time: Option<String>,
    ) -> Resolved<Explanation> {
        let question = explain::Question {
            device,
            source,
            principal: None,
            address: None,
            time,
        };
        let asking = asking(context);
        let explained =
            asking.and_then(|it| explain::explained(it.registry(), &it.caller, &question));
        resolved(explained.and_then(fleet::typed))
    }

    /// Who changed what, newest first; of one subject alone as default, group:eu, device:lamp-7.
    #[graphql(complexity = "limits::list(limit, child_complexity)")]
    async fn history(
        &self,
        context: &Context<'_>,
        subject: Option<String>,
        limit: Option<i32>,
        cursor: Option<String>,
    ) -> Resolved<History> {
        let which = history::Which {
            subject,
            limit: limit.map(|limit| limit.to_string()),
            cursor,
        };
        let page = async {
            let asking = asking(context)?;
            history::page(asking.registry(), &asking.caller, which).await
        };
        resolved(page.await.and_then(History::of))
    }
}
