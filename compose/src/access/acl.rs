//! `thinglog acl test`: which rule decides.

use std::{fmt::Write as _, path::Path, process::ExitCode};

use anyhow::{anyhow, bail};
use serde_json::json;
use thinglog_broker::access::{self, Because, Explained, Grant, Who};
use thinglog_schemas::{Topics, topic::valid_filter};

use super::{
    cli::{AclTest, Action},
    configured,
};
use crate::say;

/// Not allowed.
const DENIED: u8 = 3;

pub(crate) fn test(config: Option<&Path>, args: &AclTest) -> anyhow::Result<ExitCode> {
    let broker = configured(config)?.config.broker;
    let mut auth = broker.auth;
    if let Some(file) = &args.file {
        auth.acl = Some(file.clone());
    }
    let action = action(args)?;
    if !auth.is_on() {
        bail!(
            "nothing in [broker.auth] is configured: everybody who reaches the broker may do everything"
        );
    }
    let grant = args
        .role
        .map(|role| Grant::new(Some(role), args.group.clone()));
    let who = Who {
        user: args.user.clone(),
        client_id: args.client_id.clone(),
        grant: grant.transpose().map_err(|reason| anyhow!("{reason}"))?,
    };
    let topics = Topics::new(&broker.root)?;
    let asked = match action {
        Action::Read => access::Action::Read,
        Action::Write => access::Action::Write,
        Action::Subscribe => access::Action::Subscribe,
    };
    let explained = access::explain(&auth, &topics, &who, asked, &args.topic)?;
    say(&if args.json {
        format!("{}\n", as_json(args, action, &explained))
    } else {
        in_words(args, action, &explained)
    });
    Ok(match explained.decision.allowed {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(DENIED),
    })
}

fn action(args: &AclTest) -> anyhow::Result<Action> {
    let topic = &args.topic;
    if !valid_filter(topic) {
        bail!("{topic:?} is neither a topic nor a topic filter");
    }
    let wild = topic.contains(['+', '#']);
    match args.action {
        Some(Action::Read | Action::Write) if wild => {
            bail!(
                "{topic:?} is a filter; messages have topics without wildcards, so use --action subscribe"
            )
        }
        Some(action) => Ok(action),
        None if wild => Ok(Action::Subscribe),
        None => Ok(Action::Read),
    }
}

fn verb(action: Action) -> &'static str {
    match action {
        Action::Read => "read",
        Action::Write => "write",
        Action::Subscribe => "subscribe",
    }
}

fn in_words(args: &AclTest, action: Action, explained: &Explained) -> String {
    let who = match &args.user {
        None => "a client without a name".to_owned(),
        Some(user) if explained.grant.role.is_some() => format!("{user} ({})", explained.grant),
        Some(user) => format!("{user} (no role)"),
    };
    let to = match action {
        Action::Subscribe => "subscribe to",
        other => verb(other),
    };
    let may = match explained.decision.allowed {
        true => "allowed",
        false => "not allowed",
    };
    let topic = &args.topic;
    let mut text = format!(
        "{may}: {who}, {to} {topic}\n  {}\n",
        explained.decision.because
    );
    if let Some(user) = args.user.as_ref().filter(|_| !explained.is_known) {
        let _ = writeln!(
            text,
            "  {user:?} is not among the users and devices of the files: it can log in by a certificate or \
             a JWT only, and its role is then that of those (see --role)"
        );
    }
    text
}

fn as_json(args: &AclTest, action: Action, explained: &Explained) -> serde_json::Value {
    let (file, line, rule) = match &explained.decision.because {
        Because::NoRule | Because::Own(_) => (None, None, None),
        Because::Role { rule, .. } => (None, None, Some(rule)),
        Because::Line { file, line, rule } => {
            (Some(file.display().to_string()), Some(line), Some(rule))
        }
    };
    json!({
        "allowed": explained.decision.allowed,
        "user": args.user,
        "known": explained.is_known,
        "role": explained.grant.role.map(|role| role.word()),
        "groups": explained.grant.groups,
        "action": verb(action),
        "topic": args.topic,
        "file": file,
        "line": line,
        "rule": rule,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn asked(line: &str) -> AclTest {
        let words = ["thinglog", "acl", "test"]
            .into_iter()
            .chain(line.split(' '));
        match Cli::try_parse_from(words).unwrap().command {
            Command::Acl(super::super::cli::Acl::Test(test)) => test,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_filter_is_subscribed_to_and_a_topic_read_unless_said_otherwise() {
        assert_eq!(action(&asked("--topic a/b")).unwrap(), Action::Read);
        assert_eq!(action(&asked("--topic a/#")).unwrap(), Action::Subscribe);
        assert_eq!(
            action(&asked("--topic a --action write")).unwrap(),
            Action::Write
        );
        assert!(action(&asked("--topic a/# --action write")).is_err());
        assert!(action(&asked("--topic a#")).is_err());
    }
}
