//! Sessions of browsers: who signed in once and shows a token since. Pure: times and tokens are given.
//!
//! A session is found by the SHA-256 of its token, so that neither memory nor the time of a search tells
//! a token. It ends when it was not used for [`IDLE_NS`], when it is ended, or to make room: of one name
//! there are at most [`MOST_OF_NAME`], of all [`MOST`], and the one that was unused for longest goes.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use sha2::{Digest, Sha256};

use super::authenticate::Still;

/// A session that was not used for so long has ended.
const IDLE_NS: u64 = 12 * 60 * 60 * 1_000_000_000;
/// Most sessions.
const MOST: usize = 1000;
/// Most sessions of one name.
const MOST_OF_NAME: usize = 16;

/// What a browser shows: 256 random bits.
pub(super) struct Token(pub(super) [u8; 32]);

type Key = [u8; 32];

struct Session {
    name: Arc<str>,
    still: Still,
    /// Last use, ns since the epoch.
    used: u64,
}

/// The sessions that run.
#[derive(Default)]
pub(super) struct Sessions(HashMap<Key, Session>);

impl Token {
    /// As it stands in a cookie.
    pub(super) fn encode(&self) -> String {
        BASE64.encode(self.0)
    }

    pub(super) fn decode(text: &str) -> Option<Token> {
        let bytes = BASE64.decode(text).ok()?;
        Some(Token(bytes.try_into().ok()?))
    }

    fn key(&self) -> Key {
        Sha256::digest(self.0).into()
    }
}

impl Sessions {
    /// Begins a session of `name`.
    pub(super) fn begin(&mut self, token: &Token, name: Arc<str>, still: Still, now: u64) {
        self.0.retain(|_, session| session.is_running(now));
        let of_name = self.0.values().filter(|session| session.name == name);
        if of_name.count() >= MOST_OF_NAME {
            self.make_room(|session| session.name == name);
        } else if self.0.len() >= MOST {
            self.make_room(|_| true);
        }
        let used = now;
        self.0.insert(token.key(), Session { name, still, used });
    }

    /// What tells whose session it is, which is used now.
    pub(super) fn find(&mut self, token: &Token, now: u64) -> Option<Still> {
        let session = self.0.get_mut(&token.key())?;
        if !session.is_running(now) {
            self.end(token);
            return None;
        }
        session.used = now;
        Some(Arc::clone(&session.still))
    }

    /// Ends a session, if there is one.
    pub(super) fn end(&mut self, token: &Token) {
        self.0.remove(&token.key());
    }

    /// Ends one of these, unused for longest.
    fn make_room(&mut self, of: impl Fn(&Session) -> bool) {
        let those = self.0.iter().filter(|(_, session)| of(session));
        let oldest = those.min_by_key(|(_, session)| session.used);
        if let Some(key) = oldest.map(|(key, _)| *key) {
            self.0.remove(&key);
        }
    }
}

impl Session {
    fn is_running(&self, now: u64) -> bool {
        now.saturating_sub(self.used) < IDLE_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Caller;

    fn token(n: usize) -> Token {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        Token(bytes)
    }

    fn begin(sessions: &mut Sessions, n: usize, name: &str, now: u64) {
        let caller = Caller {
            name: name.into(),
            ..Caller::anonymous()
        };
        let still: Still = Arc::new(move || Some(caller.clone()));
        sessions.begin(&token(n), name.into(), still, now);
    }

    fn name_of(sessions: &mut Sessions, n: usize, now: u64) -> Option<String> {
        let caller = sessions.find(&token(n), now)?()?;
        Some(caller.name.to_string())
    }

    #[test]
    fn a_token_is_read_as_it_was_written_and_nothing_else_is_one() {
        let text = token(5).encode();
        assert_eq!(text.len(), 43);
        assert_eq!(Token::decode(&text).unwrap().0, token(5).0);
        for text in ["", "AAAA", &format!("{text}="), &text[1..], "\u{e4}"] {
            assert!(Token::decode(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_session_ends_when_it_is_not_used_and_goes_on_while_it_is() {
        let mut sessions = Sessions::default();
        begin(&mut sessions, 1, "ann", 0);
        assert_eq!(
            name_of(&mut sessions, 1, IDLE_NS - 1).as_deref(),
            Some("ann")
        );
        assert_eq!(
            name_of(&mut sessions, 1, 2 * IDLE_NS - 2).as_deref(),
            Some("ann")
        );
        assert_eq!(name_of(&mut sessions, 1, 3 * IDLE_NS), None);
        assert_eq!(
            name_of(&mut sessions, 1, 3 * IDLE_NS - 1),
            None,
            "it is gone"
        );
        assert!(sessions.0.is_empty());
    }

    #[test]
    fn a_session_that_was_ended_is_no_more() {
        let mut sessions = Sessions::default();
        begin(&mut sessions, 1, "ann", 0);
        begin(&mut sessions, 2, "ann", 0);
        sessions.end(&token(1));
        assert_eq!(name_of(&mut sessions, 1, 1), None);
        assert_eq!(name_of(&mut sessions, 2, 1).as_deref(), Some("ann"));
        assert_eq!(name_of(&mut sessions, 3, 1), None);
    }

    #[test]
    fn one_name_has_so_many_and_loses_the_one_unused_for_longest() {
        let mut sessions = Sessions::default();
        begin(&mut sessions, 999, "bob", 0);
        for n in 0..MOST_OF_NAME {
            begin(&mut sessions, n, "ann", n as u64 + 1);
        }
        assert!(name_of(&mut sessions, 0, 100).is_some());
        begin(&mut sessions, 500, "ann", 101);
        assert_eq!(sessions.0.len(), MOST_OF_NAME + 1);
        assert!(name_of(&mut sessions, 1, 102).is_none());
        for n in [0, 2, 500, 999] {
            assert!(name_of(&mut sessions, n, 102).is_some(), "{n}");
        }
    }

    #[test]
    fn all_names_have_so_many_and_those_that_ended_count_for_nothing() {
        let mut sessions = Sessions::default();
        for n in 0..MOST {
            begin(&mut sessions, n, &format!("name-{n}"), n as u64);
        }
        begin(&mut sessions, MOST, "late", 5000);
        assert_eq!(sessions.0.len(), MOST);
        assert!(name_of(&mut sessions, 0, 5001).is_none());
        assert!(name_of(&mut sessions, 1, 5001).is_some());
        begin(&mut sessions, MOST + 1, "later", 5002 + IDLE_NS);
        assert_eq!(sessions.0.len(), 1);
    }
}
