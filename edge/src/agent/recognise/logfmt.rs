//! logfmt: a line that is nothing but `key=value` pairs. It is JSON in another spelling, so it is
//! spelled as JSON here and read by the same rules.
//!
//! A value is a word, or a string in double quotes with JSON's escapes (brandur.org/logfmt; Go's
//! `log/slog`, logrus, go-kit). Words that are numbers or booleans in JSON's one way of writing them
//! become those. A key without a value, a key twice, or anything else between: no logfmt.

use std::fmt::Write as _;

/// Keys of the message, as for JSON objects.
const MESSAGE_KEYS: [&str; 3] = ["msg", "message", "log"];
/// More pairs than an event has attributes are no log line.
const MAX_PAIRS: usize = 128;

/// The JSON object that `line` spells; `None` when it is not logfmt through and through. With
/// `sure`, only for a line of at least two pairs of which one is the message.
pub(crate) fn to_json(line: &str, sure: bool) -> Option<String> {
    let mut rest = line.trim_ascii();
    let mut keys: Vec<&str> = Vec::new();
    let mut json = String::new();
    while !rest.is_empty() {
        let length = rest.bytes().take_while(|byte| is_key(*byte)).count();
        let (key, after) = rest.split_at(length);
        let value = after.strip_prefix('=')?;
        if key.is_empty() || keys.contains(&key) || keys.len() == MAX_PAIRS {
            return None;
        }
        let open = if keys.is_empty() { '{' } else { ',' };
        // Letters and signs: nothing to escape.
        write!(json, "{open}\"{key}\":").ok()?;
        keys.push(key);
        if json.capacity() < line.len() {
            json.reserve(line.len() + line.len() / 2);
        }
        rest = push_value(value, &mut json)?;
    }
    json.push('}');
    let says_message = keys.iter().any(|key| MESSAGE_KEYS.contains(key));
    let enough = if sure {
        keys.len() > 1 && says_message
    } else {
        !keys.is_empty()
    };
    enough.then_some(json)
}

fn is_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.-@/:".contains(&byte)
}

/// Appends a value and returns what follows it and its blanks.
fn push_value<'a>(text: &'a str, json: &mut String) -> Option<&'a str> {
    let (value, rest) = if text.starts_with('"') {
        let end = quoted_length(text)?;
        text.split_at(end)
    } else {
        let end = text.find([' ', '\t']).unwrap_or(text.len());
        text.split_at(end)
    };
    if value.starts_with('"') {
        if value.contains('\\') || value.bytes().any(|byte| byte < 0x20) {
            let text: String = serde_json::from_str(value).ok()?;
            json.push_str(&serde_json::to_string(&text).ok()?);
        } else {
            json.push_str(value);
        }
    } else if value.contains('"') {
        return None;
    } else if is_plain(value) {
        json.push_str(value);
    } else {
        json.push_str(&serde_json::to_string(value).ok()?);
    }
    let after = rest.trim_ascii_start();
    let separated = after.is_empty() || after.len() < rest.len();
    separated.then_some(after)
}

/// The length of the string in quotes that `text` begins with.
fn quoted_length(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Whether a word is a number or boolean that JSON writes the same way.
fn is_plain(word: &str) -> bool {
    if matches!(word, "true" | "false") {
        return true;
    }
    let numeric = |byte: u8| byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    if word.len() >= 20 || !word.bytes().all(numeric) {
        return false;
    }
    let whole = word.parse::<i64>().is_ok_and(|n| n.to_string() == word);
    whole || word.parse::<f64>().is_ok_and(|n| n.to_string() == word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn object(line: &str, sure: bool) -> Option<Value> {
        to_json(line, sure).map(|json| serde_json::from_str(&json).unwrap())
    }

    #[test]
    fn pairs_become_an_object() {
        let line = r#"time=2026-11-21T10:00:00Z level=WARN msg="hot \"bulb\"\n" celsius=91 rate=0.5 id=007 on=true who= url=http://x/?a=b"#;
        let expected = json!({
            "time": "2026-11-21T10:00:00Z", "level": "WARN", "msg": "hot \"bulb\"\n",
            "celsius": 91, "rate": 0.5, "id": "007", "on": true, "who": "", "url": "http://x/?a=b",
        });
        assert_eq!(object(line, true), Some(expected));
    }

    #[test]
    fn what_is_not_pairs_alone_is_no_logfmt() {
        for line in [
            "",
            "hello",
            "msg=hello and more",
            "msg=\"never closed",
            "msg=\"a\"b=c",
            "msg=a msg=b",
            "msg=a\"b\" level=info",
            "msg=\"bad \\escape\" level=info",
            "=a",
            "ключ=значение",
        ] {
            assert_eq!(object(line, false), None, "{line}");
        }
    }

    #[test]
    fn when_nobody_said_it_is_logfmt_it_has_to_have_a_message() {
        for line in [
            "PATH=/bin",
            "PATH=/bin HOME=/root",
            "msg=hello",
            "level=info x=1",
        ] {
            assert_eq!(object(line, true), None, "{line}");
            assert!(object(line, false).is_some(), "{line}");
        }
        assert!(object("level=info msg=hello", true).is_some());
    }

    proptest! {
        #[test]
        fn every_value_comes_back(
            pairs in proptest::collection::btree_map("[a-z][a-z0-9_.]{0,8}", any::<String>(), 1..8),
            odd in any::<String>(),
            like in "([a-z]{1,3}=(\"[a-z\\\\\" ]{0,5}\"|[a-z\\\\=0-9.]{0,5}) ?){0,4}",
        ) {
            let quoted = |(key, value): (&String, &String)| format!("{key}={}", serde_json::to_string(value).unwrap());
            let line = pairs.iter().map(quoted).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(object(&line, false), Some(json!(pairs)));
            object(&odd, false);
            object(&like, false);
        }
    }
}
