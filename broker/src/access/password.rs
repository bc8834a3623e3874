//! The password file: who may log in with a password that people choose, and as what.
//!
//! ```text
//! # name:argon2id hash in PHC form[:role=…[,group=…]]
//! alice:$argon2id$v=19$m=19456,t=2,p=1$…$…:role=operator,group=eu
//! press-4:*:role=operator
//! ```
//!
//! `*` stands for no password: the name comes from a client certificate and is only given a role
//! here. Without a role only the ACL file's rules count.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::Path,
};

use argon2::{
    Argon2, PasswordHash, PasswordVerifier,
    password_hash::{PasswordHasher, SaltString},
};
use sha2::{Digest, Sha256};

use super::{
    file::{self, FileError},
    roles::Grant,
    token,
};

/// What makes a password file.
pub(crate) const ADVICE: &str = "make it with: thinglog passwd USER";
/// The dearest hash that is verified: memory in KiB, passes, lanes.
const MOST: (u32, u32, u32) = (256 << 10, 16, 16);
/// Longest password, bytes.
const MAX_PASSWORD: usize = 1024;

/// Why a user cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The name.
    #[error(
        "{0:?} is no user name: 1-128 characters, none of them a control character, no space at its \
         ends, no $ at its beginning, neither :$ nor :* within"
    )]
    Name(String),
    /// The password.
    #[error("{0}")]
    Password(&'static str),
    /// The system gives no randomness, or too little memory.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

/// What the file says of one user.
#[derive(Debug)]
pub(crate) struct User {
    /// The hash in PHC form; `None` when there is no password to log in with.
    pub(crate) hash: Option<Box<str>>,
    pub(crate) grant: Grant,
}

/// All users of a password file.
#[derive(Debug, Default)]
pub(crate) struct Passwords {
    users: HashMap<String, User>,
    /// What the password of an unknown user is compared with, so that it takes as long.
    stand_in: Box<str>,
}

impl Passwords {
    /// Reads a file's text; `path` is for complaints.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Passwords, FileError> {
        let mut passwords = Passwords::default();
        for (number, line) in file::lines(text) {
            let wrong = |reason: String| FileError::at(path, number, reason);
            let (name, user) = parse_line(line).map_err(wrong)?;
            if passwords.stand_in.is_empty()
                && let Some(hash) = &user.hash
            {
                passwords.stand_in = hash.clone();
            }
            match passwords.users.entry(name.to_owned()) {
                Entry::Vacant(place) => drop(place.insert(user)),
                Entry::Occupied(_) => {
                    return Err(wrong(format!(
                        "user {name:?} is here twice; remove one of the lines"
                    )));
                }
            }
        }
        Ok(passwords)
    }

    pub(crate) fn get(&self, user: &str) -> Option<&User> {
        self.users.get(user)
    }

    /// The hash to verify a user's password against, of somebody else when there is none, and whether
    /// it is the user's.
    pub(crate) fn hash_of(&self, user: &str) -> (&str, bool) {
        match self.get(user).and_then(|user| user.hash.as_deref()) {
            Some(hash) => (hash, true),
            None => (&self.stand_in, false),
        }
    }
}

/// Stands for a hash in memory, so that a login is known to be by this very password.
pub(crate) fn fingerprint(hash: &str) -> [u8; 32] {
    Sha256::digest(hash).into()
}

/// Where the name ends: names may hold colons, as addresses do.
fn name_end(line: &str) -> Option<usize> {
    let ends = |at: &usize| line[at + 1..].starts_with(['$', '*']);
    line.match_indices(':').map(|(at, _)| at).find(ends)
}

fn parse_line(line: &str) -> Result<(&str, User), String> {
    let Some(end) = name_end(line) else {
        return Err("is not NAME:HASH; make it with: thinglog passwd NAME".into());
    };
    let (name, rest) = (&line[..end], &line[end + 1..]);
    if !valid_name(name) {
        return Err(PasswordError::Name(name.to_owned()).to_string());
    }
    let (hash, grant) = rest.split_once(':').unwrap_or((rest, ""));
    let grant: Grant = grant.parse()?;
    let hash = match hash {
        "*" => None,
        hash => {
            check_hash(hash).map_err(|reason| {
                format!("{reason}; set the password again: thinglog passwd {name}")
            })?;
            Some(hash.into())
        }
    };
    Ok((name, User { hash, grant }))
}

/// Whether a name can be a user's, whatever proves it.
pub(crate) fn valid_name(name: &str) -> bool {
    (1..=128).contains(&name.chars().count())
        && !name.chars().any(char::is_control)
        && name.trim() == name
        && !name.starts_with(['$', '#'])
        && !name.contains(":$")
        && !name.contains(":*")
}

fn check_hash(hash: &str) -> Result<(), String> {
    let parsed = PasswordHash::new(hash)
        .map_err(|_| "the hash is not in PHC form ($argon2id$…)".to_owned())?;
    if parsed.algorithm.as_str() != "argon2id" {
        return Err(format!("hashes are argon2id, not {}", parsed.algorithm));
    }
    if parsed.hash.is_none() || parsed.salt.is_none() {
        return Err("the hash is cut short".into());
    }
    let costs = argon2::Params::try_from(&parsed).map_err(|error| error.to_string())?;
    if costs.m_cost() > MOST.0 || costs.t_cost() > MOST.1 || costs.p_cost() > MOST.2 {
        return Err("the hash costs more than 256 MiB, 16 passes or 16 lanes to verify".into());
    }
    Ok(())
}

/// Verifies a password, in some ten milliseconds and 19 MiB by the usual costs.
pub(crate) fn verify(hash: &str, password: &[u8]) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

/// Hashes a password with a salt of its own, by argon2id and the costs that OWASP recommends (19 MiB,
/// two passes). Blocking.
pub fn hash(password: &[u8]) -> Result<String, PasswordError> {
    if password.is_empty() {
        return Err(PasswordError::Password("the password is empty"));
    }
    if password.len() > MAX_PASSWORD {
        return Err(PasswordError::Password(
            "the password is longer than 1024 bytes",
        ));
    }
    if std::str::from_utf8(password).is_ok_and(token::is_token) {
        return Err(PasswordError::Password(
            "the password looks like a device token, and would be taken for one; choose another",
        ));
    }
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| PasswordError::Hash(error.to_string()))?;
    let salt =
        SaltString::encode_b64(&salt).map_err(|error| PasswordError::Hash(error.to_string()))?;
    let hash = Argon2::default()
        .hash_password(password, &salt)
        .map_err(|error| PasswordError::Hash(error.to_string()))?;
    Ok(hash.to_string())
}

/// How a user logs in.
#[derive(Clone, Debug)]
pub enum Secret {
    /// By the password of this hash.
    Hash(String),
    /// Not by a password.
    None,
    /// As before; a new user, not by a password.
    Keep,
}

/// Sets a user in the text of a password file; what is not said stays as it was. Every other line
/// stays as it is.
pub fn set(
    text: &str,
    name: &str,
    secret: Secret,
    grant: Option<&Grant>,
) -> Result<String, PasswordError> {
    if !valid_name(name) {
        return Err(PasswordError::Name(name.to_owned()));
    }
    let of = |line: &str| name_end(line.trim()).is_some_and(|end| line.trim()[..end] == *name);
    let old = text.lines().find(|line| of(line));
    let (old_hash, old_grant) = old
        .and_then(|line| line.trim().get(name.len() + 1..))
        .map(|rest| rest.split_once(':').unwrap_or((rest, "")))
        .unwrap_or(("*", ""));
    let hash = match &secret {
        Secret::Hash(hash) => hash.as_str(),
        Secret::None => "*",
        Secret::Keep => old_hash,
    };
    let grant = grant.map_or(old_grant.to_owned(), Grant::to_string);
    let mut new = format!("{name}:{hash}");
    if !grant.is_empty() {
        new = format!("{new}:{grant}");
    }
    let mut lines: Vec<&str> = text.lines().collect();
    match lines.iter().position(|line| of(line)) {
        Some(at) => lines[at] = &new,
        None => lines.push(&new),
    }
    Ok(lines.join("\n") + "\n")
}

/// Removes a user from the text of a password file; `None` when there is no such user.
pub fn remove(text: &str, name: &str) -> Option<String> {
    let of = |line: &&str| name_end(line.trim()).is_some_and(|end| line.trim()[..end] == *name);
    text.lines().any(|line| of(&line)).then(|| {
        let kept = text.lines().filter(|line| !of(line));
        kept.flat_map(|line| [line, "\n"]).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Passwords, FileError> {
        Passwords::parse(Path::new("passwords"), text)
    }

    #[test]
    fn a_password_is_known_again_and_no_other_is() {
        let first = hash(b"secret \xFF").unwrap();
        assert!(verify(&first, b"secret \xFF"));
        assert!(!verify(&first, b"secret") && !verify(&first, b""));
        assert_ne!(hash(b"secret \xFF").unwrap(), first, "salts differ");
    }

    #[test]
    fn a_user_that_was_set_is_read_back_and_other_lines_stay() {
        let before = "# people\n\n  bob:*:role=admin\n";
        let grant: Grant = "role=operator,group=eu".parse().unwrap();
        let secret = Secret::Hash(hash(b"x").unwrap());
        let text = set(before, "a:b c", secret, Some(&grant)).unwrap();
        assert!(text.starts_with(before));
        let users = parse(&text).unwrap();
        assert_eq!(users.get("a:b c").unwrap().grant, grant);
        assert!(users.get("bob").unwrap().hash.is_none());
        assert!(verify(users.hash_of("a:b c").0, b"x"));
        let text = set(&text, "a:b c", Secret::Hash(hash(b"y").unwrap()), None).unwrap();
        let users = parse(&text).unwrap();
        assert_eq!(users.get("a:b c").unwrap().grant, grant, "the role stays");
        assert!(verify(users.hash_of("a:b c").0, b"y"));
        let text = set(&text, "a:b c", Secret::Keep, Some(&Grant::default())).unwrap();
        let users = parse(&text).unwrap();
        assert_eq!(users.get("a:b c").unwrap().grant, Grant::default());
        assert!(verify(users.hash_of("a:b c").0, b"y"), "the password stays");
        assert_eq!(remove(&text, "a:b c").as_deref(), Some(before));
        assert_eq!(remove(&text, "carol"), None);
    }

    #[test]
    fn an_unknown_user_costs_what_a_known_one_does() {
        let text = set("", "a", Secret::Hash(hash(b"x").unwrap()), None).unwrap();
        let users = parse(&text).unwrap();
        assert_eq!(users.hash_of("a"), (users.hash_of("b").0, true));
        assert!(!users.hash_of("b").1);
    }

    #[test]
    fn a_bad_line_is_named_with_what_would_be_right() {
        let cheap = "$argon2id$v=19$m=999999,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA";
        for (text, said) in [
            ("alice", "passwords:1: is not NAME:HASH"),
            ("\nalice:$7$101$x$y", "passwords:2: "),
            ("alice:$argon2id$v=19$m=8,t=1,p=1", "cut short"),
            (
                "alice:$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
                "argon2id, not argon2i",
            ),
            (&format!("alice:{cheap}"), "costs more than"),
            ("alice:*:role=boss", "no role"),
            (
                "alice:*\nalice:*",
                "passwords:2: user \"alice\" is here twice",
            ),
            ("$x:*", "no user name"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_a_password_or_a_name_is_refused() {
        assert!(hash(b"").is_err() && hash(&[b'x'; 2000]).is_err());
        assert!(hash(token::generate().unwrap().as_bytes()).is_err());
        for name in ["", "a\nb", "$own", "a:$b", "a:*", " a", "#a"] {
            assert!(set("", name, Secret::None, None).is_err(), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_name_is_taken_is_read_back(name in ".{1,20}", other in "[a-z]{1,5}") {
            let before = format!("{other}:*\n");
            if let Ok(text) = set(&before, &name, Secret::None, None) {
                let users = parse(&text).unwrap();
                prop_assert!(users.get(&name).is_some() && users.get(&other).is_some());
            }
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "([a-z:*$,=\\n]|argon2id|role|.){0,60}") {
            let _ = parse(&text);
            let _ = set(&text, "a", Secret::Keep, None);
            let _ = remove(&text, "a");
        }
    }
}
