//! Device tokens: passwords that are made, not chosen. 192 random bits cannot be guessed, so a plain
//! SHA-256 keeps them safe in the file, and verifying one costs next to nothing.
//!
//! ```text
//! # device:$sha256$digest of the token
//! lamp-7:$sha256$5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8
//! ```
//!
//! The device logs in with its name as user name and the token as password; its role is `device`.

use std::{collections::HashMap, fmt::Write as _, path::Path};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thinglog_schemas::name;

use super::file::{self, FileError};

/// What makes a token file.
pub(crate) const ADVICE: &str = "make it with: thinglog device add NAME";
/// How a token begins, so that it is recognised as one, by us and by scanners for leaked secrets.
const PREFIX: &str = "thinglog_";
/// Random bytes of a token.
const BYTES: usize = 24;
const SCHEME: &str = "$sha256$";

/// Why a device cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The name.
    #[error(
        "{0:?} is no device name: 1-128 characters of A-Z a-z 0-9 . _ : - (others as %XX), as they stand in topics"
    )]
    Name(String),
    /// It has a token.
    #[error("device {0:?} has a token; --replace makes a new one and ends the old one")]
    Exists(String),
    /// The system gives no randomness.
    #[error("no token can be made: {0}")]
    Random(#[from] getrandom::Error),
}

/// All devices of a token file.
#[derive(Debug, Default)]
pub(crate) struct Tokens(HashMap<Box<str>, [u8; 32]>);

impl Tokens {
    /// Reads a file's text; `path` is for complaints.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Tokens, FileError> {
        let mut tokens = HashMap::new();
        for (number, line) in file::lines(text) {
            let (device, digest) = split(line).ok_or_else(|| {
                FileError::at(
                    path,
                    number,
                    "is not DEVICE:$sha256$DIGEST; make it with: thinglog device add DEVICE",
                )
            })?;
            if tokens.insert(device.into(), digest).is_some() {
                let reason = format!("device {device:?} is here twice; remove one of the lines");
                return Err(FileError::at(path, number, reason));
            }
        }
        Ok(Tokens(tokens))
    }

    /// The digest of the device's token if `token` is it. Takes as long for an unknown device.
    pub(crate) fn verify(&self, device: &str, token: &str) -> Option<[u8; 32]> {
        let given = digest(token);
        let kept = self.0.get(device).copied();
        let same = bool::from(given.ct_eq(&kept.unwrap_or_default()));
        kept.filter(|_| same)
    }

    /// Whether there is such a device.
    pub(crate) fn knows(&self, device: &str) -> bool {
        self.0.contains_key(device)
    }

    /// Whether the device still has the token of this digest.
    pub(crate) fn has(&self, device: &str, digest: &[u8; 32]) -> bool {
        self.0.get(device) == Some(digest)
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// Whether a password has the form of a token.
pub(crate) fn is_token(password: &str) -> bool {
    password.strip_prefix(PREFIX).is_some_and(|rest| {
        rest.len() == 2 * BYTES && rest.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The device and the digest of a line.
fn split(line: &str) -> Option<(&str, [u8; 32])> {
    let (device, rest) = line.split_once(&format!(":{SCHEME}"))?;
    if !name::is_valid(device)
        || rest.len() != 64
        || !rest.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&rest[at..at + 2], 16).ok()?;
    }
    Some((device, digest))
}

/// A new token.
pub(crate) fn generate() -> Result<String, getrandom::Error> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{PREFIX}{}", hex(&bytes)))
}

/// Adds a device to the text of a token file; gives the text and the device's token, which stands
/// nowhere else. A device that has one gets another only when it is to be replaced.
pub fn add(text: &str, device: &str, replace: bool) -> Result<(String, String), TokenError> {
    if !name::is_valid(device) {
        return Err(TokenError::Name(device.to_owned()));
    }
    let rest = match remove(text, device) {
        Some(_) if !replace => return Err(TokenError::Exists(device.to_owned())),
        Some(rest) => rest,
        None => text.to_owned(),
    };
    let token = generate()?;
    let line = format!("{device}:{SCHEME}{}\n", hex(&digest(&token)));
    let gap = if rest.is_empty() || rest.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    Ok((format!("{rest}{gap}{line}"), token))
}

/// Removes a device from the text of a token file; `None` when it is not there.
pub fn remove(text: &str, device: &str) -> Option<String> {
    let of = |line: &&str| split(line.trim()).is_some_and(|(name, _)| name == device);
    text.lines().any(|line| of(&line)).then(|| {
        let kept = text.lines().filter(|line| !of(line));
        kept.flat_map(|line| [line, "\n"]).collect()
    })
}

/// The devices of a token file, in their order.
pub fn list(path: &Path) -> Result<Vec<String>, FileError> {
    let text = file::read_secret(path, ADVICE)?;
    Tokens::parse(path, &text)?;
    let devices = file::lines(&text).filter_map(|(_, line)| split(line));
    Ok(devices.map(|(device, _)| device.to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Tokens, FileError> {
        Tokens::parse(Path::new("tokens"), text)
    }

    #[test]
    fn a_token_opens_for_its_device_only_and_the_file_does_not_hold_it() {
        let (text, first) = add("# devices\n", "lamp:7", false).unwrap();
        let (text, second) = add(&text, "lamp-8", false).unwrap();
        assert!(is_token(&first) && first != second);
        assert!(!text.contains(&first) && text.starts_with("# devices\n"));
        let tokens = parse(&text).unwrap();
        let digest = tokens.verify("lamp:7", &first).unwrap();
        assert!(tokens.has("lamp:7", &digest) && !tokens.has("lamp-8", &digest));
        for (device, token) in [
            ("lamp-8", &first),
            ("lamp:7", &second),
            ("other", &first),
            ("lamp:7", &String::new()),
        ] {
            assert_eq!(tokens.verify(device, token), None, "{device}");
        }
    }

    #[test]
    fn a_device_keeps_its_token_unless_it_is_replaced() {
        let (text, old) = add("", "lamp", false).unwrap();
        let refused = add(&text, "lamp", false).unwrap_err().to_string();
        assert!(refused.contains("--replace"), "{refused}");
        let (text, new) = add(&text, "lamp", true).unwrap();
        let tokens = parse(&text).unwrap();
        assert!(tokens.verify("lamp", &old).is_none() && tokens.verify("lamp", &new).is_some());
        assert_eq!(remove(&text, "lamp").as_deref(), Some(""));
        assert_eq!(remove(&text, "lamp-1"), None);
    }

    #[test]
    fn an_unknown_device_does_not_open_with_the_token_of_no_digest() {
        // An unknown device is compared with zeros, which must never count as its digest.
        assert_eq!(Tokens::default().verify("lamp", ""), None);
    }

    #[test]
    fn a_bad_line_is_named_with_what_would_be_right() {
        let line = add("", "lamp", false).unwrap().0;
        for (text, said) in [
            ("lamp", "tokens:1: is not DEVICE:$sha256$DIGEST"),
            (&line[..40], "tokens:1: is not"),
            (
                &format!("\n{}", line.replace("lamp", "la/mp")),
                "tokens:2: is not",
            ),
            (
                &format!("{line}{line}"),
                "tokens:2: device \"lamp\" is here twice",
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text:?}: {error}");
        }
        assert!(add("", "a/b", false).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(lamp:|\\$sha256\\$|[0-9a-f]{64}|\\n|.){0,10}") {
            let _ = parse(&text);
            let _ = add(&text, "lamp", true);
        }
    }
}
