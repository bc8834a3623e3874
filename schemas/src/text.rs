//! Numbers and JSON strings as bytes, without formatting machinery: the file destination writes
//! several of them for every event.

/// Pairs of decimal digits, 00 to 99.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    pairs
};

/// The decimal digits of `n`, 0–99, with a leading zero.
pub(crate) fn pair(n: u64) -> [u8; 2] {
    PAIRS[(n % 100) as usize]
}

/// Appends a decimal number.
pub(crate) fn push_number(mut n: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    while n >= 10 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&pair(n));
        n /= 100;
    }
    if n > 0 || at == digits.len() {
        at -= 1;
        digits[at] = b'0' + n as u8;
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends 16 lower-case hex digits.
pub(crate) fn push_hex(n: u64, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0u8; 16];
    for (place, digit) in digits.iter_mut().rev().enumerate() {
        *digit = HEX[(n >> (4 * place)) as usize & 15];
    }
    out.extend_from_slice(&digits);
}

/// A decimal number as [`push_number`] writes it: no sign, no leading zero.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with(['0', '+']);
    if canonical { text.parse().ok() } else { None }
}

/// A number as [`push_hex`] writes it.
pub(crate) fn parse_hex(text: &str) -> Option<u64> {
    let canonical =
        text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if canonical {
        u64::from_str_radix(text, 16).ok()
    } else {
        None
    }
}

/// For each byte what JSON (RFC 8259 section 7) wants of it in a string: 0 nothing, `u` the long
/// form `\u00XX`, else the letter after the backslash.
const ESCAPES: [u8; 256] = {
    let mut escapes = [0u8; 256];
    let mut control = 0;
    while control < 0x20 {
        escapes[control] = b'u';
        control += 1;
    }
    escapes[0x08] = b'b';
    escapes[0x09] = b't';
    escapes[0x0A] = b'n';
    escapes[0x0C] = b'f';
    escapes[0x0D] = b'r';
    escapes[b'"' as usize] = b'"';
    escapes[b'\\' as usize] = b'\\';
    escapes
};

/// Appends a JSON string with its quotes.
pub(crate) fn push_json_string(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    out.reserve(rest.len() + 2);
    out.push(b'"');
    loop {
        let (plain, tail) = rest.split_at(plain_length(rest));
        out.extend_from_slice(plain);
        let [byte, after @ ..] = tail else { break };
        push_escape(*byte, out);
        rest = after;
    }
    out.push(b'"');
}

fn push_escape(byte: u8, out: &mut Vec<u8>) {
    match ESCAPES[usize::from(byte)] {
        b'u' => {
            let digit = |n: u8| if n < 10 { b'0' + n } else { b'a' + n - 10 };
            let digits = [digit(byte >> 4), digit(byte & 15)];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&digits);
        }
        letter => out.extend_from_slice(&[b'\\', letter]),
    }
}

/// How many bytes from the start on stand for themselves. Eight at a time: almost every message
/// does so from beginning to end.
fn plain_length(bytes: &[u8]) -> usize {
    let (words, _) = bytes.as_chunks::<8>();
    let plain = words
        .iter()
        .take_while(|word| is_plain(u64::from_le_bytes(**word)))
        .count()
        * 8;
    let escape = |byte: &u8| ESCAPES[usize::from(*byte)] != 0;
    bytes[plain..]
        .iter()
        .position(escape)
        .map_or(bytes.len(), |at| plain + at)
}

/// Whether none of the eight bytes is a control character, a quote or a backslash. A byte's high bit
/// in `below(n)` is set if the byte is less than n, and in the lowest such byte for sure.
fn is_plain(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let below = |word: u64, n: u8| word.wrapping_sub(ONES * u64::from(n)) & !word & HIGH;
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    below(word, 0x20) | equal(b'"') | equal(b'\\') == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_are_written_as_the_standard_library_does(n in any::<u64>(), shift in 0u32..64) {
            let n = n >> shift;
            let mut out = Vec::new();
            push_number(n, &mut out);
            prop_assert_eq!(std::str::from_utf8(&out).unwrap(), n.to_string());
            prop_assert_eq!(parse_number(&n.to_string()), Some(n));
            out.clear();
            push_hex(n, &mut out);
            prop_assert_eq!(std::str::from_utf8(&out).unwrap(), format!("{n:016x}"));
            prop_assert_eq!(parse_hex(&format!("{n:016x}")), Some(n));
        }

        #[test]
        fn strings_are_json_on_one_line(text in any::<String>(), control in "[\\x00-\\x7f]{0,30}") {
            for text in [text, control] {
                let mut out = Vec::new();
                push_json_string(&text, &mut out);
                prop_assert!(!out.contains(&b'\n'));
                prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
            }
        }
    }

    #[test]
    fn every_byte_is_escaped_wherever_it_stands() {
        for byte in 0..128u8 {
            for at in 0..20 {
                let mut text = String::from("é0123456789abcdefghij");
                text.insert(at + 2, char::from(byte));
                let mut out = Vec::new();
                push_json_string(&text, &mut out);
                assert_eq!(out, serde_json::to_vec(&text).unwrap(), "{byte} at {at}");
            }
        }
    }

    #[test]
    fn numbers_have_one_form() {
        for text in ["", "00", "01", "+1", "-1", "1 ", "18446744073709551616"] {
            assert_eq!(parse_number(text), None, "{text}");
        }
        assert_eq!(parse_number("0"), Some(0));
        assert_eq!(parse_hex("00000000000000AB"), None);
    }
}
