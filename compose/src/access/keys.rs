//! The file of access keys, for requests that are signed as AWS's clients sign them.
//!
//! ```text
//! # id secret grant user
//! TLOGJ4QX7W2ZN5KM3RTV 0mVh… role=operator,group=eu alice
//! ```
//!
//! Verifying a signature takes the secret itself, so the file holds it: it belongs to its owner only.

use std::{collections::HashMap, path::Path};

use anyhow::anyhow;
use thinglog_broker::access::{
    FileError, Grant,
    file::{self, lines},
};

/// What makes a file of keys.
pub(crate) const ADVICE: &str = "make it with: thinglog key add USER --role ROLE";
/// How an id begins, so that it is recognised as one of ours, by people and by scanners for leaks.
const PREFIX: &str = "TLOG";
/// Letters of an id behind the prefix, and of a secret: as AWS's.
const ID_LETTERS: usize = 16;
const SECRET_LETTERS: usize = 40;
const OF_ID: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const OF_SECRET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Most keys of a file.
const MOST: usize = 10_000;

/// One access key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) secret: String,
    pub(crate) grant: Grant,
    pub(crate) user: String,
}

/// All keys of a file, by id.
#[derive(Default)]
pub(crate) struct Keys(HashMap<String, Key>);

impl Keys {
    /// Reads the file (blocking).
    pub(crate) fn read(path: &Path) -> Result<Keys, FileError> {
        Keys::parse(path, &file::read_secret(path, ADVICE)?)
    }

    /// Reads a file's text; `path` is for complaints, which hold no secrets.
    fn parse(path: &Path, text: &str) -> Result<Keys, FileError> {
        let mut keys = HashMap::new();
        for (number, line) in lines(text) {
            let wrong = |reason: String| FileError::at(path, number, reason);
            let (id, key) = parse_line(line).map_err(wrong)?;
            if keys.len() >= MOST {
                return Err(wrong(format!("more than {MOST} keys; remove some")));
            }
            if keys.insert(id.to_owned(), key).is_some() {
                return Err(wrong(format!(
                    "key {id} is here twice; remove one of the lines"
                )));
            }
        }
        Ok(Keys(keys))
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Key> {
        self.0.get(id)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Ids, users and grants, by user.
    pub(crate) fn list(&self) -> Vec<(&str, &Key)> {
        let mut all: Vec<_> = self.0.iter().map(|(id, key)| (id.as_str(), key)).collect();
        all.sort_by(|a, b| (&a.1.user, a.0).cmp(&(&b.1.user, b.0)));
        all
    }
}

fn parse_line(line: &str) -> Result<(&str, Key), String> {
    let mut words = line.splitn(4, ' ');
    let mut word = || words.next().filter(|word| !word.is_empty());
    let (Some(id), Some(secret), Some(grant), Some(user)) = (word(), word(), word(), word()) else {
        return Err(
            "is not ID SECRET role=… USER; make it with: thinglog key add USER --role ROLE".into(),
        );
    };
    let grant: Grant = grant.parse()?;
    if grant.role.is_none() {
        return Err("the key has no role; write role=admin or role=operator".into());
    }
    let key = Key {
        secret: secret.to_owned(),
        grant,
        user: user.to_owned(),
    };
    Ok((id, key))
}

/// A new key: its id and its secret of 240 random bits.
fn generate() -> anyhow::Result<(String, String)> {
    let mut random = [0; ID_LETTERS + SECRET_LETTERS];
    getrandom::fill(&mut random).map_err(|error| anyhow!("no key can be made: {error}"))?;
    let (of_id, of_secret) = random.split_at(ID_LETTERS);
    let id = of_id
        .iter()
        .map(|byte| char::from(OF_ID[usize::from(byte % 32)]));
    let secret = of_secret
        .iter()
        .map(|byte| char::from(OF_SECRET[usize::from(byte % 64)]));
    Ok((
        format!("{PREFIX}{}", id.collect::<String>()),
        secret.collect(),
    ))
}

/// Adds a key for `user` to the text of a file; gives the text, the id and the secret.
pub(crate) fn add(
    text: &str,
    user: &str,
    grant: &Grant,
) -> anyhow::Result<(String, String, String)> {
    let is_name = !user.is_empty()
        && user.len() <= 128
        && user.trim() == user
        && !user.starts_with(['$', '#'])
        && !user.chars().any(char::is_control);
    if !is_name {
        return Err(anyhow!(
            "{user:?} is no user name: 1-128 characters, none of them a control character, no space at \
             its ends, no $ or # at its beginning"
        ));
    }
    let (id, secret) = generate()?;
    let gap = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let text = format!("{text}{gap}{id} {secret} {grant} {user}\n");
    Ok((text, id, secret))
}

/// Removes a key from the text of a file; `None` when it is not there.
pub(crate) fn remove(text: &str, id: &str) -> Option<String> {
    let of = |line: &&str| line.trim().split(' ').next() == Some(id);
    text.lines().any(|line| of(&line)).then(|| {
        let kept = text.lines().filter(|line| !of(line));
        kept.flat_map(|line| [line, "\n"]).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Keys, FileError> {
        Keys::parse(Path::new("keys"), text)
    }

    fn grant(text: &str) -> Grant {
        text.parse().unwrap()
    }

    #[test]
    fn a_key_is_read_as_it_was_made() {
        let made = add(
            "# keys",
            "alice of the north",
            &grant("role=operator,group=us:east"),
        )
        .unwrap();
        let (text, id, secret) = made;
        let (text, other, _) = add(&text, "robot", &grant("role=admin")).unwrap();
        assert!(text.starts_with("# keys\n") && id != other);
        assert_eq!((id.len(), secret.len()), (20, 40));
        let keys = parse(&text).unwrap();
        let key = keys.get(&id).unwrap();
        assert_eq!((&*key.user, &*key.secret), ("alice of the north", &*secret));
        assert_eq!(key.grant, grant("role=operator,group=us:east"));
        let rest = remove(&text, &id).unwrap();
        assert!(parse(&rest).unwrap().get(&id).is_none() && rest.contains(&other));
        assert_eq!(remove(&rest, &id), None);
    }

    #[test]
    fn a_bad_line_is_named_and_no_secret_is_shown() {
        let (line, ..) = add("", "alice", &grant("role=admin")).unwrap();
        for (text, said) in [
            ("TLOGX hush".to_owned(), "keys:1: is not ID SECRET"),
            (
                "TLOGX hush role=boss alice".to_owned(),
                "keys:1: \"boss\" is no role",
            ),
            (
                "TLOGX hush group=a alice".to_owned(),
                "keys:1: only the role operator",
            ),
            (
                "\nTLOGX hush , alice".to_owned(),
                "keys:2: the key has no role",
            ),
            (format!("{line}{line}"), "is here twice"),
        ] {
            let error = parse(&text).map(drop).unwrap_err().to_string();
            assert!(
                error.contains(said) && !error.contains("hush"),
                "{text:?}: {error}"
            );
        }
        for user in ["", " a", "$a", "#a", "a\nb"] {
            assert!(add("", user, &grant("role=admin")).is_err(), "{user:?}");
        }
    }
}
