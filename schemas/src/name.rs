//! Device, group and source names: 1–128 characters of `A-Z a-z 0-9 . _ : -`. A publisher
//! percent-encodes anything else, so `%` with two hex digits stands in a valid name as well.

use std::borrow::Cow;

/// Longest name, characters.
pub const MAX_NAME: usize = 128;

/// Whether `name` may stand in a topic as it is.
pub fn is_valid(name: &str) -> bool {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > MAX_NAME {
        return false;
    }
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            byte if is_plain(byte) => at += 1,
            b'%' if bytes[at + 1..]
                .iter()
                .take(2)
                .filter(|b| b.is_ascii_hexdigit())
                .count()
                == 2 =>
            {
                at += 3
            }
            _ => return false,
        }
    }
    true
}

/// The name itself when valid, otherwise its UTF-8 bytes percent-encoded where needed and cut to
/// 128 characters (between characters of the original). Empty becomes `-`. This is what a publisher
/// does; a router only checks [`is_valid`].
pub fn encode(name: &str) -> Cow<'_, str> {
    if is_valid(name) {
        return Cow::Borrowed(name);
    }
    if name.is_empty() {
        return Cow::Borrowed("-");
    }
    let mut encoded = String::with_capacity(MAX_NAME);
    for character in name.chars() {
        let plain = u8::try_from(character).is_ok_and(is_plain);
        let width = if plain { 1 } else { 3 * character.len_utf8() };
        if encoded.len() + width > MAX_NAME {
            break;
        }
        if plain {
            encoded.push(character);
        } else {
            push_escaped(character, &mut encoded);
        }
    }
    Cow::Owned(encoded)
}

fn push_escaped(character: char, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in character.encode_utf8(&mut [0; 4]).bytes() {
        out.push('%');
        out.push(char::from(HEX[usize::from(byte >> 4)]));
        out.push(char::from(HEX[usize::from(byte & 15)]));
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_alphabet_and_the_length_are_enforced() {
        for name in [
            "a",
            "lamp-7",
            "eu:west_1.x",
            "fe80::1",
            "a%20b",
            &"x".repeat(128),
        ] {
            assert!(is_valid(name), "{name}");
        }
        for name in [
            "",
            "a b",
            "a/b",
            "+",
            "#",
            "ä",
            "a%2",
            "a%",
            "%zz",
            "a\0",
            &"x".repeat(129),
        ] {
            assert!(!is_valid(name), "{name}");
        }
    }

    #[test]
    fn what_is_not_allowed_is_percent_encoded() {
        assert_eq!(encode("lamp-7"), "lamp-7");
        assert_eq!(encode("my app/ä%"), "my%20app%2F%C3%A4%25");
        assert_eq!(encode(""), "-");
        assert_eq!(encode(&"x".repeat(200)), "x".repeat(128));
        assert_eq!(encode(&"ä".repeat(200)), "%C3%A4".repeat(21));
    }

    proptest! {
        #[test]
        fn an_encoded_name_is_valid_and_stays(name in any::<String>()) {
            let encoded = encode(&name).into_owned();
            prop_assert!(is_valid(&encoded));
            prop_assert_eq!(encode(&encoded), encoded.as_str());
        }
    }
}
