//! What fuzzers reach of the access room: files that people write, and tokens that strangers send.

use std::{path::Path, sync::Arc};

use thinglog_schemas::Topics;

use super::{
    acl::Acl,
    config::Jwt,
    jwt::Issuer,
    keys,
    password::Passwords,
    rights::{Reach, Rights, Rules},
    roles::Grant,
    token::Tokens,
};

/// Parses an ACL file and asks what follows from it.
pub(crate) fn acl(path: &Path, text: &str, topics: &Topics) {
    let Ok(acl) = Acl::parse(path, text) else {
        return;
    };
    let rules = Arc::new(Rules::new(topics, acl, None));
    for name in [None, Some("lamp"), Some("a/b"), Some("+")] {
        let principal: Option<Arc<str>> = name.map(Arc::from);
        let rights = Rights::new(rules.clone(), principal, "lamp", &Grant::default());
        for topic in ["a", "a/b", "thinglog/logs/lamp/app", "$SYS/x", "", "/"] {
            let reads = rights.may_read(topic);
            rights.may_write(topic);
            // A topic is a filter too: what is out of its reach is not read.
            if matches!(rights.reach(topic), Reach::Nothing) {
                assert!(!reads, "{name:?} reads {topic:?} that it cannot reach");
            }
        }
        rights.reach("#");
        rights.reach("+/b/#");
    }
}

/// Parses a file as each kind there is, and as a token.
pub(crate) fn credentials(path: &Path, text: &str) {
    let _ = Passwords::parse(path, text);
    if let Ok(tokens) = Tokens::parse(path, text) {
        assert!(tokens.verify("nobody at all", text).is_none());
    }
    let keys = keys::parse(path, text).unwrap_or_default();
    let issuer = Issuer {
        keys,
        config: Jwt::default(),
    };
    let verified = issuer.verify(text, 1_000_000_000);
    assert!(verified.is_err(), "nobody signed this");
}
