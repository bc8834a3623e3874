//! Why an event passes or does not: every rule that spoke or could have, in the order in which they
//! are asked, and what became of it. For people (`why`) and for programs (the other fields).

use serde::{Deserialize, Serialize};

use crate::Level;

/// The level of one source of one device at one time, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Whose.
    pub device: String,
    /// Of which source; without, of every source that nobody names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Who published, where rules for principals were asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// From where, where rules for addresses were asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// When the event happened, RFC 3339.
    pub time: String,
    /// The answer.
    pub level: Level,
    /// The answer in a sentence.
    pub why: String,
    /// Every rule, in the order in which they are asked.
    pub rules: Vec<Rule>,
}

/// A rule that spoke, or could have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Which.
    pub kind: RuleKind,
    /// Its document, without the root: `config/group/eu`; none where there cannot be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Groups: the first group of the hierarchy that is asked, one that the device is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hierarchy: Option<String>,
    /// What it says of this source, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// The level comes from the document's `sources`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_source: bool,
    /// Overrides: the end, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Who wrote the document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When it was written, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// The same in a sentence.
    pub why: String,
}

/// The rules, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleKind {
    /// `disabled` in `config/default`.
    Disabled,
    /// `config/override/device/<device>`
    OverrideDevice,
    /// `config/override/group/<group>`
    OverrideGroup,
    /// `config/override/default`
    OverrideDefault,
    /// `config/device/<device>`
    Device,
    /// `config/principal/<principal>`
    Principal,
    /// `config/source-ip/<ip>`
    SourceIp,
    /// `config/group/<group>`
    Group,
    /// `config/source/<source>`
    Source,
    /// `config/default`
    Default,
    /// INFO, when nothing speaks.
    BuiltIn,
}

/// What became of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It decides.
    Won,
    /// It speaks, and a rule that is asked before it decides.
    Outranked,
    /// A group that speaks, and one nearer to the device in the same hierarchy does too.
    Farther,
    /// The nearest of its hierarchy, and another hierarchy's says a more verbose level.
    LessVerbose,
    /// An override that had ended when the event happened.
    Ended,
    /// A document that says nothing of this source.
    Silent,
    /// There is no such document.
    Absent,
    /// There is a document, but it cannot stand, see [`super::Problem`].
    Displaced,
    /// Who published is not known, so the rule could not be asked.
    Unknown,
}
