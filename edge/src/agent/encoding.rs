//! How text is encoded that is not UTF-8: by name in the configuration, or by a byte order mark.

use std::{borrow::Cow, fmt};

use encoding_rs::{REPLACEMENT, UTF_8, UTF_16BE, UTF_16LE};
use serde::{Deserialize, Serialize};

use super::lines::Newline;

/// The longest byte order mark.
pub(crate) const LONGEST_MARK: usize = 3;

/// An encoding by one of its names in the WHATWG Encoding Standard: `utf-8` (the default), `utf-16le`,
/// `utf-16be`, `latin1`, `windows-1252`, `shift_jis`, `gbk` and so on. A byte order mark at the
/// beginning says more than a name.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "&'static str")]
pub struct Encoding(&'static encoding_rs::Encoding);

/// A name that no encoding has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no encoding; known are utf-8, utf-16le, utf-16be, latin1, windows-1252, shift_jis, gbk and the other names of the WHATWG Encoding Standard"
)]
pub struct UnknownEncoding(String);

impl Default for Encoding {
    fn default() -> Encoding {
        Encoding(UTF_8)
    }
}

impl fmt::Debug for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl std::str::FromStr for Encoding {
    type Err = UnknownEncoding;

    fn from_str(name: &str) -> Result<Encoding, UnknownEncoding> {
        encoding_rs::Encoding::for_label(name.as_bytes())
            .filter(|encoding| *encoding != REPLACEMENT)
            .map(Encoding)
            .ok_or_else(|| UnknownEncoding(name.to_owned()))
    }
}

impl TryFrom<String> for Encoding {
    type Error = UnknownEncoding;

    fn try_from(name: String) -> Result<Encoding, UnknownEncoding> {
        name.parse()
    }
}

impl From<Encoding> for &'static str {
    fn from(encoding: Encoding) -> &'static str {
        encoding.0.name()
    }
}

impl Encoding {
    pub(crate) fn newline(self) -> Newline {
        match self.0 {
            other if other == UTF_16LE => Newline::Little,
            other if other == UTF_16BE => Newline::Big,
            _ => Newline::Byte,
        }
    }

    /// A line in UTF-8; what is no text in this encoding becomes U+FFFD. UTF-8 is left as it is, bad
    /// bytes included.
    pub(crate) fn decode(self, line: &[u8]) -> Cow<'_, [u8]> {
        if self.0 == UTF_8 {
            return Cow::Borrowed(line);
        }
        match self.0.decode_without_bom_handling(line).0 {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        }
    }
}

/// The encoding that a byte order mark names, and the length of the mark.
pub(crate) fn by_mark(beginning: &[u8]) -> Option<(Encoding, usize)> {
    encoding_rs::Encoding::for_bom(beginning).map(|(encoding, length)| (Encoding(encoding), length))
}

/// Whether more bytes could make this a byte order mark.
pub(crate) fn may_become_mark(beginning: &[u8]) -> bool {
    matches!(beginning, [] | [0xEF | 0xFE | 0xFF] | [0xEF, 0xBB])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_known_by_their_common_names() {
        for name in [
            "utf-8",
            "latin1",
            "ISO-8859-1",
            "windows-1252",
            "UTF-16LE",
            "utf-16be",
            "sjis",
        ] {
            assert!(name.parse::<Encoding>().is_ok(), "{name}");
        }
        let error = "klingon".parse::<Encoding>().unwrap_err().to_string();
        assert!(
            error.contains("klingon") && error.contains("windows-1252"),
            "{error}"
        );
        // What the standard knows only to refuse it.
        assert!("iso-2022-kr".parse::<Encoding>().is_err());
    }

    #[test]
    fn text_becomes_utf_8_and_what_is_no_text_stays_visible() {
        let decode = |name: &str, bytes: &[u8]| {
            let decoded = name.parse::<Encoding>().unwrap().decode(bytes).into_owned();
            String::from_utf8(decoded).unwrap()
        };
        assert_eq!(decode("latin1", b"gr\xfc\xdfe"), "grüße");
        assert_eq!(decode("windows-1252", b"5 \x80"), "5 €");
        assert_eq!(decode("utf-16le", b"h\0\xe9\0"), "hé");
        assert_eq!(decode("utf-16be", b"\0h\xd8\x00"), "h\u{fffd}");
        assert_eq!(decode("shift_jis", b"\x83\x65\x83\x58\x83\x67"), "テスト");
    }
}
