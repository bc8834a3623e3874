//! Lists, page by page: `limit` (1–1,000, 100 unless told) and `cursor`, which is what the page before
//! said as `next`. A page without `next` is the last; one before it may be short, even empty, when much
//! had to be looked at for little.

use std::ops::ControlFlow;

use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ok;
use crate::registry::{Refusal, Registry, View};

/// Entries of a page unless told.
const USUAL: usize = 100;
/// Most entries of a page.
const MOST: usize = 1000;
/// Entries looked at under one lock.
const AT_ONCE: usize = 2000;
/// To show an entry takes as long as to look at so many.
const ITEM: usize = 20;
/// Entries that have to be offered under one lock: with so many a walk is always told to break.
pub(super) const PIECE: usize = AT_ONCE / ITEM + 1;
/// Entries looked at for one page.
const FOR_A_PAGE: usize = 200_000;

/// What every list can be asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    pub(super) limit: Option<String>,
    pub(super) cursor: Option<String>,
}

/// A page as it fills.
pub(super) struct Found {
    items: Vec<Value>,
    limit: usize,
    budget: usize,
    /// The entry looked at last.
    last: Option<String>,
    more: bool,
}

impl Found {
    /// Looks at an entry by its place in the list's order; it belongs to the list if it has a value.
    pub(super) fn look(&mut self, place: &str, item: Option<Value>) -> ControlFlow<()> {
        let cost = if item.is_some() { ITEM } else { 1 };
        self.items.extend(item);
        self.last = Some(place.to_owned());
        self.budget = self.budget.saturating_sub(cost);
        self.more = self.items.len() >= self.limit || self.budget == 0;
        match self.more {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// How many entries a page may have.
pub(super) fn limit(text: Option<&str>) -> Result<usize, Refusal> {
    let Some(text) = text else { return Ok(USUAL) };
    match text.parse() {
        Ok(limit) if (1..=MOST).contains(&limit) => Ok(limit),
        _ => Err(Refusal::invalid(format!(
            "limit is {:?}, it must be 1 to {MOST}",
            text.chars().take(40).collect::<String>()
        ))),
    }
}

/// A page of a list.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) items: Vec<Value>,
    /// The cursor of the next page.
    pub(super) next: Option<String>,
}

/// Answers a page.
pub(super) async fn list(
    registry: &Registry,
    page: Page,
    walk: impl Fn(&View<'_>, Option<&str>, &mut Found),
) -> Result<Response, Refusal> {
    listed(registry, page, walk).await.map(answered)
}

/// The answer that a page is.
pub(super) fn answered(Listed { items, next }: Listed) -> Response {
    ok(&match next {
        Some(next) => json!({"items": items, "next": next}),
        None => json!({"items": items}),
    })
}

/// Collects a page. `walk` goes through the list behind a place (from the beginning without one) and
/// shows every entry to [`Found::look`], until that says to break.
pub(super) async fn listed(
    registry: &Registry,
    page: Page,
    walk: impl Fn(&View<'_>, Option<&str>, &mut Found),
) -> Result<Listed, Refusal> {
    let mut found = Found {
        items: Vec::new(),
        limit: limit(page.limit.as_deref())?,
        budget: 0,
        last: page.cursor,
        more: true,
    };
    let mut looked_at = 0;
    while found.more && found.items.len() < found.limit && looked_at < FOR_A_PAGE {
        found.budget = AT_ONCE;
        found.more = false;
        let after = found.last.clone();
        registry.read(|view| walk(&view, after.as_deref(), &mut found))?;
        looked_at += AT_ONCE;
        tokio::task::yield_now().await;
    }
    Ok(Listed {
        next: found.last.filter(|_| found.more),
        items: found.items,
    })
}
