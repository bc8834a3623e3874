//! The rules for one device, ready to be asked once per event: the documents that concern it, in
//! the order in which they speak. Documents are shared, not copied, and so is all that devices of
//! the same groups have in common.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Fleet, forest::Name};
use crate::{
    Level, Severity,
    config::{LevelDocument, Limits, Override, Upload, UploadMode},
};

/// An override with its end in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Window {
    pub(super) document: Override,
    /// The end, ns since the Unix epoch.
    pub(super) until: u64,
}

impl Window {
    pub(super) fn level(&self, source: &str) -> Level {
        let named = self.document.sources.get(source).copied();
        named.unwrap_or(self.document.level)
    }

    pub(super) fn runs(&self, time: u64) -> bool {
        time < self.until
    }
}

/// What a document says of a source, if anything.
pub(super) fn says(document: &LevelDocument, source: &str) -> Option<Level> {
    document.sources.get(source).copied().or(document.level)
}

/// What all devices of one set of groups have in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shared {
    disabled: bool,
    /// Overrides: one chain per group of the device, nearest first.
    group_windows: Vec<Vec<Arc<Window>>>,
    default_window: Option<Arc<Window>>,
    /// One chain per group of the device, nearest first; only documents that say a level.
    groups: Vec<Vec<Arc<LevelDocument>>>,
    sources: Arc<BTreeMap<String, Level>>,
    default: Option<Arc<LevelDocument>>,
    /// Settings of groups and default.
    pub(super) upload: Upload,
    pub(super) limits: Limits,
}

impl Shared {
    /// Whether what comes from a device although it is below its level was asked for: mode of upload
    /// `on-error`.
    pub(super) fn sends_ring(&self, device: Option<&LevelDocument>) -> bool {
        let own = device.filter(|document| document.has_settings());
        let own = own.and_then(|document| document.settings().0.mode);
        own.or(self.upload.mode) == Some(UploadMode::OnError)
    }
}

impl Fleet {
    /// What devices that are in these groups have in common.
    pub(super) fn shared(&self, groups: &[Name]) -> Shared {
        let mut shared = Shared {
            disabled: self
                .default
                .as_ref()
                .is_some_and(|default| default.disabled),
            default_window: self.default_window.clone(),
            sources: self.sources.clone(),
            default: self.default.clone(),
            ..Shared::default()
        };
        let (mut upload, mut limits) = (Upload::default(), Limits::default());
        let mut set = |document: &LevelDocument| {
            if document.has_settings() {
                let (more, most) = document.settings();
                upload.fill_from(&more);
                limits.fill_from(&most);
            }
        };
        for group in groups {
            let mut windows = Vec::new();
            let mut documents = Vec::new();
            for of in self.forest.chain(group) {
                windows.extend(self.group_windows.get(of).cloned());
                if let Some(document) = self.forest.document(of) {
                    set(document);
                    documents.extend(Some(document.clone()).filter(|it| it.says_level()));
                }
            }
            shared
                .group_windows
                .extend(Some(windows).filter(|it| !it.is_empty()));
            shared
                .groups
                .extend(Some(documents).filter(|it| !it.is_empty()));
        }
        self.default.iter().for_each(|default| set(default));
        (shared.upload, shared.limits) = (upload, limits);
        shared
    }
}

/// The answer for one device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolved {
    /// The device's own override.
    pub(super) window: Option<Arc<Window>>,
    /// Device, principal and source IP, those that say a level, in this order.
    pub(super) targets: Vec<Arc<LevelDocument>>,
    pub(super) shared: Arc<Shared>,
    /// What comes although it is below its level was asked for.
    pub(super) sends_ring: bool,
}

impl Resolved {
    /// Level for an event of `source` that happened at `time` (ns).
    pub fn level(&self, source: &str, time: u64) -> Level {
        if self.disabled() {
            return Level::Disabled;
        }
        let windows = self.deciding(time).map(|window| window.level(source));
        windows.max().unwrap_or_else(|| self.lasting(source))
    }

    /// Whether an event passes.
    pub fn passes(&self, source: &str, time: u64, severity: Severity) -> bool {
        let level = self.level(source, time);
        level.passes(severity) || (self.sends_ring && level != Level::Disabled)
    }

    /// Events at or after this time (ns) are judged by no override; so a consumer may ask once
    /// for many events of one source. 0 without overrides.
    pub fn overrides_end(&self) -> u64 {
        let shared = &self.shared;
        let groups = shared.group_windows.iter().flatten();
        let windows = self
            .window
            .iter()
            .chain(groups)
            .chain(&shared.default_window);
        windows.map(|window| window.until).max().unwrap_or(0)
    }

    pub(super) fn disabled(&self) -> bool {
        self.shared.disabled
    }

    /// Overrides that decide at `time`: the device's, else the nearest of each hierarchy, else the
    /// default's.
    pub(super) fn deciding(&self, time: u64) -> impl Iterator<Item = &Window> {
        let running = move |window: &&Window| window.runs(time);
        let device = self.window.as_deref().filter(running);
        let chains = self.shared.group_windows.iter();
        let mut groups = chains
            .filter_map(move |chain| chain.iter().map(|window| &**window).find(running))
            .filter(move |_| device.is_none())
            .peekable();
        let others = device.is_none() && groups.peek().is_none();
        let default = self.shared.default_window.as_deref().filter(running);
        let default = default.filter(|_| others);
        device.into_iter().chain(groups).chain(default)
    }

    /// The level outside of overrides.
    pub(super) fn lasting(&self, source: &str) -> Level {
        self.said(source).unwrap_or(Level::Info)
    }

    /// The same; `None` when nothing says a level.
    pub(super) fn said(&self, source: &str) -> Option<Level> {
        if self.disabled() {
            return Some(Level::Disabled);
        }
        let shared = &self.shared;
        let mut targets = self.targets.iter();
        targets
            .find_map(|document| says(document, source))
            .or_else(|| self.groups_level(source))
            .or_else(|| shared.sources.get(source).copied())
            .or_else(|| says(shared.default.as_deref()?, source))
    }

    /// The nearest of each hierarchy, of these the most verbose.
    fn groups_level(&self, source: &str) -> Option<Level> {
        let nearest = |chain: &Vec<Arc<LevelDocument>>| {
            chain.iter().find_map(|document| says(document, source))
        };
        self.shared.groups.iter().filter_map(nearest).max()
    }

    /// Every source that any rule names.
    pub(super) fn named_sources(&self) -> BTreeSet<&str> {
        let groups = self.shared.groups.iter().flatten();
        let documents = self
            .targets
            .iter()
            .chain(groups)
            .chain(&self.shared.default);
        let in_documents = documents.flat_map(|document| document.sources.keys());
        let named = in_documents.chain(self.shared.sources.keys());
        named.map(String::as_str).collect()
    }
}
