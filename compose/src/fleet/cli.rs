//! What can be typed about levels, groups and devices.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::target::Target;
use super::words::{Assignment, SourceLevel, Word, assignment, rfc3339, source_level, span, word};

pub(crate) const LEVEL_HELP: &str = "\
Examples:
  thinglog level list                                every level of the fleet
  thinglog level set default WARN
  thinglog level set group:eu DEBUG --for 15m        ends by itself, on the devices too
  thinglog level set device:lamp-7 ERROR --source nginx=INFO
  thinglog level set group:eu THINGLOG_UPLOAD_MODE=interval THINGLOG_UPLOAD_EVERY=1h
  thinglog level explain lamp-7 nginx                which rule decides, and why no other does
  thinglog level delete device:lamp-7

Targets: default, group:NAME, device:NAME, source:NAME, principal:NAME, ip:ADDRESS.
Levels: DISABLED, ERROR, WARN, INFO, DEBUG; each passes what those before it pass, and more.

Exit codes: 0 done, 1 failed or refused, 2 wrong usage.";

const SET_HELP: &str = "\
Examples:
  thinglog level set default WARN
  thinglog level set group:eu DEBUG --for 15m        a temporary level; the lasting one stays
  thinglog level set default DEBUG --until 2026-01-02T18:00:00Z
  thinglog level set device:lamp-7 ERROR --source nginx=INFO --source sshd=WARN
  thinglog level set source:nginx WARN               nginx on every device
  thinglog level set principal:press-4 ERROR         whoever logs in so
  thinglog level set ip:192.0.2.7 DEBUG              whoever connects from there
  thinglog level set group:eu THINGLOG_UPLOAD_MODE=schedule THINGLOG_UPLOAD_AT=02:00,14:00
  thinglog level set default limits.persistent=true  the same settings by the names of documents

What is not named stays as it is. Settings are those that a device reads from its environment; they
make up a device's configuration one by one: the device's own, else its nearest group's, else the
default's.

Exit codes: 0 done, 1 failed or refused, 2 wrong usage.";

const DELETE_HELP: &str = "\
Examples:
  thinglog level delete group:eu                     level, sources and settings; the group stays
  thinglog level delete group:eu --source nginx      only what it says of nginx
  thinglog level delete default --setting THINGLOG_UPLOAD_MODE
  thinglog level delete group:eu --override          end a temporary level now

Exit codes: 0 done, 1 failed or refused, 2 wrong usage.";

const EXPLAIN_HELP: &str = "\
Examples:
  thinglog level explain lamp-7                      the level of sources that no rule names
  thinglog level explain lamp-7 nginx
  thinglog level explain lamp-7 --at 2026-01-02T03:04:05Z
                                                     for events that happened then
  thinglog level explain lamp-7 --principal press-4 --address 192.0.2.7

Rules stand in the order in which they are asked; the first that speaks decides.

Exit codes: 0 explained, 1 failed, 2 wrong usage.";

pub(crate) const GROUP_HELP: &str = "\
Examples:
  thinglog group create eu --description 'all of Europe'
  thinglog group create eu-lab --parent eu
  thinglog group create old --query 'version < \"2.0\" and model = \"x1\"'
                                                     whoever matches is a member
  thinglog group add eu lamp-7 lamp-8
  thinglog group members eu --recursive
  thinglog group list

Groups nest 7 deep; a device is in at most 10, of one hierarchy in one. A parent is for ever.

Exit codes: 0 done, 1 failed or refused, 2 wrong usage.";

const DEVICE_LIST_HELP: &str = "\
Examples:
  thinglog device list                               level, groups, last contact
  thinglog device list --offline --group eu
  thinglog device list --query 'model = \"x1\" and version < \"2.0\"'
  thinglog device list --json | jq -r .device

Names of devices that have a token: thinglog device tokens.

Exit codes: 0 done, 1 failed, 2 wrong usage.";

const DEVICE_SHOW_HELP: &str = "\
Example:
  thinglog device show lamp-7                        what it is, what it should do and what it does

Exit codes: 0 done, 1 failed, 2 wrong usage.";

const DEVICE_TAG_HELP: &str = "\
Examples:
  thinglog device tag lamp-7 model=x1 room=attic     for queries of groups, and for people
  thinglog device tag lamp-7 room=                   without a value: taken away
  thinglog device tag lamp-9 --type lamp             also for a device that was never seen

Exit codes: 0 done, 1 failed or refused, 2 wrong usage.";

const DEVICE_DELETE_HELP: &str = "\
Example:
  thinglog device delete lamp-7                      attributes, levels, memberships and its report

It is listed again as soon as it publishes. Its token stays: thinglog device remove ends that.

Exit codes: 0 done, 1 failed or refused, 2 wrong usage.";

pub(crate) const HISTORY_HELP: &str = "\
Examples:
  thinglog history                                   who changed what, newest first
  thinglog history group:eu --limit 10
  thinglog history --json | jq -r .subject

Exit codes: 0 done, 1 failed, 2 wrong usage.";

pub(crate) const PROBLEMS_HELP: &str = "\
Examples:
  thinglog problems                                  documents that cannot stand, and why
  thinglog problems --json

Such a document counts as absent until it is mended or removed. The same is told on alerts/config
when it arrives.

Exit codes: 0 there is none, 1 there are some, or failed, 2 wrong usage.";

/// How a command reaches the router's HTTP interface, and how its answer looks.
#[derive(Args, Clone, Debug)]
pub(crate) struct Api {
    /// The router's HTTP interface, http://HOST:PORT or https://HOST [default: where
    /// router.http.address says]
    #[arg(long, value_name = "URL", env = "THINGLOG_URL", hide_env_values = true)]
    pub(crate) url: Option<String>,
    /// User name
    #[arg(
        long,
        value_name = "NAME",
        env = "THINGLOG_USERNAME",
        hide_env_values = true
    )]
    pub(crate) username: Option<String>,
    /// File with the password [env: THINGLOG_PASSWORD_FILE, or the password itself in
    /// THINGLOG_PASSWORD]
    #[arg(long, value_name = "FILE", requires = "username")]
    pub(crate) password_file: Option<PathBuf>,
    /// File with a token of an issuer (JWT), instead of name and password [env: THINGLOG_TOKEN_FILE, or the
    /// token itself in THINGLOG_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Print JSON: one object, or of lists one a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// `thinglog level`.
#[derive(Debug, Subcommand)]
pub(crate) enum Level {
    /// List every level, temporary ones first
    #[command(after_help = "\
Example:
  thinglog level list --json | jq -r 'select(.level == \"DEBUG\").target'")]
    List {
        #[command(flatten)]
        api: Api,
    },
    /// Show what stands at one target
    #[command(after_help = "\
Example:
  thinglog level get group:eu")]
    Get {
        /// default, group:NAME, device:NAME, source:NAME, principal:NAME or ip:ADDRESS
        #[arg(value_name = "TARGET")]
        target: Target,
        #[command(flatten)]
        api: Api,
    },
    /// Set a level, for good or for a time, and settings
    #[command(after_help = SET_HELP)]
    Set(Set),
    /// Delete a level, a part of it, or a temporary level
    #[command(after_help = DELETE_HELP)]
    Delete(Delete),
    /// Switch all logs off, whatever levels say; these stay stored
    #[command(after_help = "\
Example:
  thinglog level disable                             until: thinglog level enable")]
    Disable {
        #[command(flatten)]
        api: Api,
    },
    /// Switch logs on again after `disable`
    #[command(after_help = "\
Example:
  thinglog level enable")]
    Enable {
        #[command(flatten)]
        api: Api,
    },
    /// Explain which level holds for a device, and why
    #[command(after_help = EXPLAIN_HELP)]
    Explain(Explain),
}

/// Options of `thinglog level set`.
#[derive(Args, Debug)]
pub(crate) struct Set {
    /// default, group:NAME, device:NAME, source:NAME, principal:NAME or ip:ADDRESS
    #[arg(value_name = "TARGET")]
    pub(crate) target: Target,
    /// DISABLED, ERROR, WARN, INFO or DEBUG; and settings, as THINGLOG_UPLOAD_MODE=interval
    #[arg(value_name = "LEVEL or KEY=VALUE", value_parser = word)]
    pub(crate) words: Vec<Word>,
    /// The level of one source, as nginx=WARN (may be repeated)
    #[arg(long, short, value_name = "NAME=LEVEL", value_parser = source_level)]
    pub(crate) source: Vec<SourceLevel>,
    /// Only for so long: 30s, 15m, 2h, 1d
    #[arg(long = "for", value_name = "TIME", value_parser = span, conflicts_with = "until")]
    pub(crate) seconds: Option<u64>,
    /// Only until this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = rfc3339)]
    pub(crate) until: Option<String>,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// Options of `thinglog level delete`.
#[derive(Args, Debug)]
pub(crate) struct Delete {
    /// default, group:NAME, device:NAME, source:NAME, principal:NAME or ip:ADDRESS
    #[arg(value_name = "TARGET")]
    pub(crate) target: Target,
    /// Only the level itself, not what is said of sources and settings
    #[arg(long)]
    pub(crate) level: bool,
    /// Only what is said of this source (may be repeated)
    #[arg(long, short, value_name = "NAME")]
    pub(crate) source: Vec<String>,
    /// Only this setting (may be repeated)
    #[arg(long, value_name = "KEY")]
    pub(crate) setting: Vec<String>,
    /// Only the temporary level, which ends now
    #[arg(long = "override", conflicts_with_all = ["level", "source", "setting"])]
    pub(crate) temporary: bool,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// Options of `thinglog level explain`.
#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// Whose level
    #[arg(value_name = "DEVICE")]
    pub(crate) device: String,
    /// Of which source [default: of those that no rule names]
    #[arg(value_name = "SOURCE")]
    pub(crate) source: Option<String>,
    /// Published by whoever logged in so [default: who is connected as the device]
    #[arg(long, value_name = "NAME")]
    pub(crate) principal: Option<String>,
    /// Published from this IP address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Option<String>,
    /// For events that happened then (RFC 3339) [default: now]
    #[arg(long, value_name = "TIME", value_parser = rfc3339)]
    pub(crate) at: Option<String>,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// `thinglog group`.
#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// List groups, as the tree they are
    #[command(after_help = GROUP_HELP)]
    List {
        #[command(flatten)]
        api: Api,
    },
    /// Make a group
    #[command(after_help = GROUP_HELP)]
    Create {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// The group it is in, for ever
        #[arg(long, value_name = "GROUP", conflicts_with = "query")]
        parent: Option<String>,
        /// Its members are the devices that match, and no others
        #[arg(long, value_name = "QUERY")]
        query: Option<String>,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// For people and programs, as site=berlin (may be repeated)
        #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
        attribute: Vec<Assignment>,
        #[command(flatten)]
        api: Api,
    },
    /// Show a group: members, level, where it stands
    #[command(after_help = GROUP_HELP)]
    Describe {
        /// Its name
        #[arg(value_name = "GROUP")]
        name: String,
        #[command(flatten)]
        api: Api,
    },
    /// Change what a group says of itself
    #[command(after_help = "\
Examples:
  thinglog group update eu --description 'Europe' --attribute site=
                                                     without a value: taken away
  thinglog group update old --query 'version < \"2.1\"'")]
    Update {
        /// Its name
        #[arg(value_name = "GROUP")]
        name: String,
        /// Another query, of a dynamic group
        #[arg(long, value_name = "QUERY")]
        query: Option<String>,
        /// What it is for; empty takes it away
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// An attribute, as site=berlin (may be repeated)
        #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
        attribute: Vec<Assignment>,
        #[command(flatten)]
        api: Api,
    },
    /// Delete a group with its level and memberships; not one that has groups in it
    #[command(after_help = GROUP_HELP)]
    Delete {
        /// Its name
        #[arg(value_name = "GROUP")]
        name: String,
        #[command(flatten)]
        api: Api,
    },
    /// Put devices into a group
    #[command(after_help = GROUP_HELP)]
    Add {
        /// The group
        #[arg(value_name = "GROUP")]
        name: String,
        /// The devices
        #[arg(value_name = "DEVICE", required = true)]
        devices: Vec<String>,
        #[command(flatten)]
        api: Api,
    },
    /// Take devices out of a group
    #[command(after_help = GROUP_HELP)]
    Remove {
        /// The group
        #[arg(value_name = "GROUP")]
        name: String,
        /// The devices
        #[arg(value_name = "DEVICE", required = true)]
        devices: Vec<String>,
        #[command(flatten)]
        api: Api,
    },
    /// List the devices of a group
    #[command(after_help = GROUP_HELP)]
    Members {
        /// The group
        #[arg(value_name = "GROUP")]
        name: String,
        /// Those of the groups in it as well
        #[arg(long, short)]
        recursive: bool,
        #[command(flatten)]
        api: Api,
    },
}

/// What the router knows of devices, behind `thinglog device`.
#[derive(Args, Debug)]
#[command(after_help = DEVICE_LIST_HELP)]
pub(crate) struct DeviceList {
    /// Only devices of this group and the groups in it
    #[arg(long, short, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Only devices that match
    #[arg(long, short, value_name = "QUERY")]
    pub(crate) query: Option<String>,
    /// Only devices that are connected
    #[arg(long, conflicts_with = "offline")]
    pub(crate) online: bool,
    /// Only devices that are not
    #[arg(long)]
    pub(crate) offline: bool,
    /// List the names in this token file, as `thinglog device tokens` does
    #[arg(long, value_name = "FILE", hide = true,
          conflicts_with_all = ["group", "query", "online", "offline"])]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// `thinglog device show`.
#[derive(Args, Debug)]
#[command(after_help = DEVICE_SHOW_HELP)]
pub(crate) struct DeviceShow {
    /// Its name
    #[arg(value_name = "DEVICE")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// `thinglog device tag`.
#[derive(Args, Debug)]
#[command(after_help = DEVICE_TAG_HELP)]
pub(crate) struct DeviceTag {
    /// Its name
    #[arg(value_name = "DEVICE")]
    pub(crate) name: String,
    /// What to say of it; KEY= takes one away
    #[arg(value_name = "KEY=VALUE", value_parser = assignment, required_unless_present = "kind")]
    pub(crate) attributes: Vec<Assignment>,
    /// Its type; empty takes it away
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<String>,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// `thinglog device delete`.
#[derive(Args, Debug)]
#[command(after_help = DEVICE_DELETE_HELP)]
pub(crate) struct DeviceDelete {
    /// Its name
    #[arg(value_name = "DEVICE")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// `thinglog history`.
#[derive(Args, Debug)]
pub(crate) struct History {
    /// Only what was done to this: a target, as group:eu
    #[arg(value_name = "TARGET")]
    pub(crate) subject: Option<Target>,
    /// The newest so many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// `thinglog problems`.
#[derive(Args, Debug)]
pub(crate) struct Problems {
    #[command(flatten)]
    pub(crate) api: Api,
}
