//! What can be typed about who may connect and who may do what.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use thinglog_broker::access::{Grant, Role};

pub(crate) const PASSWD_HELP: &str = "\
Examples:
  thinglog passwd alice --role operator  ask for alice's password and let her watch and configure
  thinglog passwd alice --role operator --group eu
                                         let her watch the devices of group eu only
  pwgen 20 1 | thinglog passwd robot     take the first line of standard input
  thinglog passwd press-4 --role operator --no-password
                                         a role for who shows a certificate of that name
  thinglog passwd alice --delete

The file is broker.auth.passwords, or --file. Without a role only the ACL file's rules count. A
running broker takes changes up on SIGHUP.

Exit codes: 0 done, 1 failed, 2 wrong usage.";

pub(crate) const DEVICE_HELP: &str = "\
Examples:
  thinglog device add lamp-7             make a token, print it once, and how to connect with it
  thinglog device add lamp-7 --replace   make another one; the old one ends
  thinglog device list
  thinglog device remove lamp-7

The file is broker.auth.tokens, or --file. A running broker takes changes up on SIGHUP.

Exit codes: 0 done, 1 failed, 2 wrong usage.";

pub(crate) const KEY_HELP: &str = "\
Examples:
  thinglog key add robot --role admin    make an access key, and show its secret once
  thinglog key add alice --role operator --group eu
                                         one that reaches group eu and its devices only
  thinglog key list
  thinglog key remove TLOGJ4QX7W2ZN5KM3RTV

AWS's command line and SDKs sign requests with it: aws iot ... --endpoint-url http://127.0.0.1:8080.
The file is router.http.access_keys, or --file; it holds the secrets themselves, so keep it to its
owner. A running router takes changes up on SIGHUP.

Exit codes: 0 done, 1 failed, 2 wrong usage.";

pub(crate) const ACL_HELP: &str = "\
Examples:
  thinglog acl test --user alice --topic thinglog/config/default --action write
  thinglog acl test --user lamp-7 --role device --topic 'thinglog/#'
                                         may a device of that name subscribe?
  thinglog acl test --topic weather/x    a client without a name
  thinglog acl test --file new-acl --user alice --topic a/b
                                         by a file that is not in use yet

The files are those of [broker.auth]. Says which rule decides, with its line.

Exit codes: 0 allowed, 3 not allowed, 1 failed, 2 wrong usage.";

/// Options of `thinglog passwd`.
#[derive(Args, Debug)]
pub(crate) struct Passwd {
    /// Name of the user
    pub(crate) user: String,
    /// Role: device, operator, router or admin [default: as before, else none]
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Option<Role>,
    /// Limit an operator to this group (may be repeated)
    #[arg(long, value_name = "GROUP", requires = "role")]
    pub(crate) group: Vec<String>,
    /// Remove the user
    #[arg(long, conflicts_with_all = ["role", "group", "no_password", "keep_password"])]
    pub(crate) delete: bool,
    /// Let nobody log in as this user by a password; the name comes from a certificate
    #[arg(long, conflicts_with = "keep_password")]
    pub(crate) no_password: bool,
    /// Ask for no password: the user keeps theirs
    #[arg(long)]
    pub(crate) keep_password: bool,
    /// The password file [default: broker.auth.passwords]
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Say what was done as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Passwd {
    /// Role and groups, if given.
    pub(crate) fn grant(&self) -> Result<Option<Grant>, String> {
        self.role
            .map(|role| Grant::new(Some(role), self.group.clone()))
            .transpose()
    }
}

/// `thinglog device`.
#[derive(Debug, Subcommand)]
pub(crate) enum Device {
    /// Make a device's token and print it once
    #[command(after_help = DEVICE_HELP)]
    Add {
        /// Name of the device, as it stands in topics
        name: String,
        /// The device has a token: make another one and end the old one
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Print the names of devices that have a token
    #[command(after_help = DEVICE_HELP)]
    List {
        #[command(flatten)]
        common: Common,
    },
    /// End a device's token
    #[command(after_help = DEVICE_HELP)]
    Remove {
        /// Name of the device
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

/// `thinglog key`.
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make an access key and show its secret once
    #[command(after_help = KEY_HELP)]
    Add {
        /// Whom it stands for: what is changed with it is changed in this name
        user: String,
        /// Role: admin or operator
        #[arg(long, value_name = "ROLE")]
        role: Role,
        /// Limit an operator to this group (may be repeated)
        #[arg(long, value_name = "GROUP")]
        group: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Print ids, users and roles; no secrets
    #[command(after_help = KEY_HELP)]
    List {
        #[command(flatten)]
        common: Common,
    },
    /// End an access key
    #[command(after_help = KEY_HELP)]
    Remove {
        /// Id of the key
        id: String,
        #[command(flatten)]
        common: Common,
    },
}

/// Options of every `thinglog device` and `thinglog key` command.
#[derive(Args, Debug)]
pub(crate) struct Common {
    /// The file [default: broker.auth.tokens of devices, router.http.access_keys of keys]
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `thinglog acl`.
#[derive(Debug, Subcommand)]
pub(crate) enum Acl {
    /// Say whether a client may do something, and which rule decides
    #[command(after_help = ACL_HELP)]
    Test(AclTest),
}

/// Options of `thinglog acl test`.
#[derive(Args, Debug)]
pub(crate) struct AclTest {
    /// Name of the user or device [default: a client without a name]
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Client id
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: Option<String>,
    /// Role: device, operator, router or admin [default: what the files say]
    #[arg(long, value_name = "ROLE", requires = "user")]
    pub(crate) role: Option<Role>,
    /// Group of the operator (may be repeated)
    #[arg(long, value_name = "GROUP", requires = "role")]
    pub(crate) group: Vec<String>,
    /// The topic, or the filter to subscribe to
    #[arg(long, value_name = "TOPIC")]
    pub(crate) topic: String,
    /// What is to be done with it [default: read a topic, subscribe to a filter with wildcards]
    #[arg(long, value_enum)]
    pub(crate) action: Option<Action>,
    /// The ACL file [default: broker.auth.acl]
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is to be done with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Action {
    /// Receive a message
    Read,
    /// Publish
    Write,
    /// Subscribe to the filter
    Subscribe,
}
