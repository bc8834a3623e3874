//! The rules for one device, ready to be asked once per event: the documents that concern it, in
//! the order in which they speak. Documents are shared, not copied.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    Level, Severity,
    config::{LevelDocument, Override},
};

/// An override with its end in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Window {
    pub(super) document: Override,
    /// The end, ns since the Unix epoch.
    pub(super) until: u64,
}

impl Window {
    fn level(&self, source: &str) -> Level {
        self.document
            .sources
            .get(source)
            .copied()
            .unwrap_or(self.document.level)
    }

    pub(super) fn runs(&self, time: u64) -> bool {
        time < self.until
    }
}

/// What a document says of a source, if anything.
fn says(document: &LevelDocument, source: &str) -> Option<Level> {
    document.sources.get(source).copied().or(document.level)
}

/// Overrides that concern a device.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Windows {
    pub(super) device: Option<Arc<Window>>,
    /// One chain per group of the device, nearest first.
    pub(super) groups: Vec<Vec<Arc<Window>>>,
    pub(super) default: Option<Arc<Window>>,
}

impl Windows {
    /// Those that decide at `time`: the device's, else the nearest of each hierarchy, else the
    /// default's.
    pub(super) fn deciding(&self, time: u64) -> impl Iterator<Item = &Window> {
        let device = self.device.as_deref().filter(|window| window.runs(time));
        let nearest =
            move |chain: &'_ Vec<Arc<Window>>| chain.iter().position(|window| window.runs(time));
        let mut groups = self
            .groups
            .iter()
            .filter_map(move |chain| nearest(chain).map(|at| &*chain[at]))
            .filter(move |_| device.is_none())
            .peekable();
        let others = device.is_none() && groups.peek().is_none();
        let default = self
            .default
            .as_deref()
            .filter(|window| others && window.runs(time));
        device.into_iter().chain(groups).chain(default)
    }

    fn level(&self, source: &str, time: u64) -> Option<Level> {
        self.deciding(time).map(|window| window.level(source)).max()
    }
}

/// The answer for one device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolved {
    pub(super) disabled: bool,
    pub(super) windows: Windows,
    /// Device, principal and source IP, those that there are, in this order.
    pub(super) targets: Vec<Arc<LevelDocument>>,
    /// One chain per group of the device, nearest first; only documents that say a level.
    pub(super) groups: Vec<Vec<Arc<LevelDocument>>>,
    pub(super) sources: Arc<BTreeMap<String, Level>>,
    pub(super) default: Option<Arc<LevelDocument>>,
    /// Mode of upload `on-error`: what comes although it is below its level was asked for.
    pub(super) sends_ring: bool,
}

impl Resolved {
    /// Level for an event of `source` that happened at `time` (ns).
    pub fn level(&self, source: &str, time: u64) -> Level {
        if self.disabled {
            return Level::Disabled;
        }
        self.windows
            .level(source, time)
            .unwrap_or_else(|| self.lasting(source))
    }

    /// Whether an event passes.
    pub fn passes(&self, source: &str, time: u64, severity: Severity) -> bool {
        let level = self.level(source, time);
        level.passes(severity) || (self.sends_ring && level != Level::Disabled)
    }

    /// Events at or after this time (ns) are judged by no override; so a consumer may ask once
    /// for many events of one source. 0 without overrides.
    pub fn overrides_end(&self) -> u64 {
        let Windows {
            device,
            groups,
            default,
        } = &self.windows;
        let windows = device.iter().chain(groups.iter().flatten()).chain(default);
        windows.map(|window| window.until).max().unwrap_or(0)
    }

    /// The level outside of overrides.
    pub(super) fn lasting(&self, source: &str) -> Level {
        if self.disabled {
            return Level::Disabled;
        }
        self.targets
            .iter()
            .find_map(|document| says(document, source))
            .or_else(|| self.groups_level(source))
            .or_else(|| self.sources.get(source).copied())
            .or_else(|| says(self.default.as_deref()?, source))
            .unwrap_or(Level::Info)
    }

    /// The nearest of each hierarchy, of these the most verbose.
    fn groups_level(&self, source: &str) -> Option<Level> {
        let nearest = |chain: &Vec<Arc<LevelDocument>>| {
            chain.iter().find_map(|document| says(document, source))
        };
        self.groups.iter().filter_map(nearest).max()
    }

    /// Every source that any rule names.
    pub(super) fn named_sources(&self) -> BTreeSet<&str> {
        let documents = self
            .targets
            .iter()
            .chain(self.groups.iter().flatten())
            .chain(&self.default);
        let in_documents = documents.flat_map(|document| document.sources.keys());
        in_documents
            .chain(self.sources.keys())
            .map(String::as_str)
            .collect()
    }
}
