//! AWS Signature Version 4: the texts that are signed, and the signature. Pure.
//!
//! The rules are AWS's ("Create a signed AWS API request", IAM User Guide): HMAC-SHA256, by a key
//! derived from secret, date, region and service, over a text that holds date, scope and the hash of
//! the canonical request. Who verifies and who signs share this; what must be signed is theirs.

use std::fmt::Write as _;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// How a signed request's `Authorization` begins.
pub(crate) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// When it was signed.
pub(crate) const DATE: &str = "x-amz-date";
/// A session token of credentials that are not for ever.
pub(crate) const TOKEN: &str = "x-amz-security-token";

/// Day, region, service, `aws4_request`.
pub(crate) type Scope<'a> = [&'a str; 4];

/// A request as it is signed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Canonical<'a> {
    pub(crate) method: &'a str,
    /// By [`canonical_path`].
    pub(crate) path: &'a str,
    /// By [`canonical_query`].
    pub(crate) query: &'a str,
    /// Names in lower case and sorted; values by [`canonical_value`].
    pub(crate) headers: &'a [(&'a str, String)],
    /// By [`hash`], or what stands for it.
    pub(crate) body_hash: &'a str,
}

impl Canonical<'_> {
    /// Names of the headers, `;` in between.
    pub(crate) fn signed_headers(&self) -> String {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        names.join(";")
    }

    /// The signature of the holder of `secret` at `date`, `YYYYMMDDTHHMMSSZ`.
    pub(crate) fn signature(&self, secret: &str, scope: &Scope<'_>, date: &str) -> String {
        let hash = hash(self.text().as_bytes());
        let text = format!("{ALGORITHM}\n{date}\n{}\n{hash}", scope.join("/"));
        hex(&mac(&signing_key(secret, scope), text.as_bytes()))
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.method, self.path, self.query);
        for (name, value) in self.headers {
            let _ = writeln!(text, "{name}:{value}");
        }
        let _ = write!(text, "\n{}\n{}", self.signed_headers(), self.body_hash);
        text
    }
}

fn signing_key(secret: &str, scope: &Scope<'_>) -> [u8; 32] {
    let first = mac(format!("AWS4{secret}").as_bytes(), scope[0].as_bytes());
    let rest = scope[1..].iter();
    rest.fold(first, |key, part| mac(&key, part.as_bytes()))
}

/// SHA-256 in hex.
pub(crate) fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Without `.`, `..` and empty segments, and each encoded once more than it arrived: as for every
/// service but S3.
pub(crate) fn canonical_path(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let mut text = String::from("/");
    text.push_str(
        &segments
            .iter()
            .map(|s| encode(s.as_bytes()))
            .collect::<Vec<_>>()
            .join("/"),
    );
    if text.len() > 1 && path.ends_with('/') {
        text.push('/');
    }
    text
}

/// Names and values encoded anew, sorted by name, then by value.
pub(crate) fn canonical_query(query: &str) -> String {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(String, String)> = pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (encode(&decode(name)), encode(&decode(value)))
        })
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

/// The values of one header: spaces trimmed and single.
pub(crate) fn canonical_value<'a>(values: impl Iterator<Item = &'a [u8]>) -> String {
    let values: Vec<String> = values
        .map(|value| {
            let text = String::from_utf8_lossy(value);
            let words = text.split(' ').filter(|word| !word.is_empty());
            words.collect::<Vec<_>>().join(" ")
        })
        .collect();
    values.join(",")
}

/// RFC 3986's unreserved characters as they are, all others as `%XX`.
fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(*byte));
            }
            byte => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

/// `%XX` as bytes; what is none stays as it is.
pub(crate) fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| {
            after
                .get(at)
                .and_then(|byte| char::from(*byte).to_digit(16))
        };
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

fn mac(key: &[u8], text: &[u8]) -> [u8; 32] {
    // As RFC 2104 has it: a key is padded to a block, and hashed first if it is longer.
    let mut block = [0; 64];
    match block.get_mut(..key.len()) {
        Some(start) => start.copy_from_slice(key),
        None => block[..32].copy_from_slice(&Sha256::digest(key)),
    }
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(text);
    mac.finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(decode(&encode(&bytes)), bytes);
        }
    }
}
