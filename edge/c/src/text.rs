//! Text of C: strings in, reasons out.

use std::{
    borrow::Cow,
    ffi::{CStr, c_char},
    sync::{Arc, LazyLock},
};

use thinglog_schemas::limits::MAX_MESSAGE;

/// `THINGLOG_NUL_TERMINATED` of the header.
pub(crate) const NUL_TERMINATED: usize = usize::MAX;
/// The attribute of an event whose text, source or attributes were not UTF-8.
pub(crate) const INVALID_UTF8: &str = "thinglog.invalid_utf8";
/// The source of events that name none.
static NO_SOURCE: LazyLock<Arc<str>> = LazyLock::new(|| "app".into());

/// A message as an event takes it.
pub(crate) struct Message {
    pub(crate) text: String,
    /// Longer than a message may be.
    pub(crate) truncated: bool,
    /// It was not UTF-8.
    pub(crate) lossy: bool,
}

/// A source's name.
pub(crate) struct Source {
    pub(crate) name: Arc<str>,
    pub(crate) lossy: bool,
}

/// The bytes at `start`: `length` of them, or up to the NUL. Empty for a length that no object has.
///
/// # Safety
/// `start` points to so many bytes, or to a string, that live as long as what is returned.
pub(crate) unsafe fn bytes<'a>(start: *const c_char, length: usize) -> &'a [u8] {
    if length == NUL_TERMINATED {
        // SAFETY: the caller promises a string.
        return unsafe { CStr::from_ptr(start) }.to_bytes();
    }
    if length > isize::MAX as usize {
        return &[];
    }
    // SAFETY: the caller promises so many bytes; more than any object has was turned away above.
    unsafe { std::slice::from_raw_parts(start.cast(), length) }
}

/// A string of configuration; `None` for NULL.
///
/// # Safety
/// `start` is NULL or a string.
pub(crate) unsafe fn string(start: *const c_char) -> Option<String> {
    if start.is_null() {
        return None;
    }
    // SAFETY: not NULL, so the caller promises a string.
    let bytes = unsafe { bytes(start, NUL_TERMINATED) };
    Some(String::from_utf8_lossy(bytes).into_owned())
}

/// # Safety
/// `start` is NULL or a string.
pub(crate) unsafe fn source(start: *const c_char) -> Source {
    if start.is_null() {
        return Source {
            name: NO_SOURCE.clone(),
            lossy: false,
        };
    }
    // SAFETY: not NULL, so the caller promises a string.
    let text = String::from_utf8_lossy(unsafe { bytes(start, NUL_TERMINATED) });
    Source {
        lossy: matches!(text, Cow::Owned(_)),
        name: text.into(),
    }
}

/// # Safety
/// `start` points to `length` bytes, or to a string.
pub(crate) unsafe fn message(start: *const c_char, length: usize) -> Message {
    // SAFETY: as the caller promises.
    let bytes = unsafe { bytes(start, length) };
    let (kept, truncated) = cut(bytes);
    let text = String::from_utf8_lossy(kept);
    Message {
        lossy: matches!(text, Cow::Owned(_)),
        text: text.into_owned(),
        truncated,
    }
}

/// What an event takes of a message, and whether that is less than all. Of a character on the edge
/// nothing is kept.
fn cut(bytes: &[u8]) -> (&[u8], bool) {
    if bytes.len() <= MAX_MESSAGE {
        return (bytes, false);
    }
    let continues = |at: &usize| bytes[*at] & 0xC0 == 0x80;
    let candidates = MAX_MESSAGE - 3..=MAX_MESSAGE;
    let end = candidates.rev().find(|at| !continues(at));
    (&bytes[..end.unwrap_or(MAX_MESSAGE)], true)
}

/// Writes `reason` to a buffer of C's, cut between characters and ended by NUL.
///
/// # Safety
/// `out` is NULL or has `size` bytes.
pub(crate) unsafe fn write(reason: &str, out: *mut c_char, size: usize) {
    if out.is_null() || size == 0 {
        return;
    }
    let mut end = reason.len().min(size - 1);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    // SAFETY: `end` is below `size`, and the reason is memory of ours that `out` cannot be in.
    unsafe { std::ptr::copy_nonoverlapping(reason.as_ptr(), out.cast(), end) };
    // SAFETY: `end` is below `size`.
    let last = unsafe { out.add(end) };
    // SAFETY: within the buffer, as above.
    unsafe { last.write(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message_of(bytes: &[u8]) -> Message {
        // SAFETY: a slice is so many bytes.
        unsafe { message(bytes.as_ptr().cast(), bytes.len()) }
    }

    #[test]
    fn what_is_not_utf8_is_replaced_and_told() {
        let good = message_of("größe".as_bytes());
        assert_eq!((good.text.as_str(), good.lossy), ("größe", false));
        let bad = message_of(b"gr\xF6\xDFe\0end");
        assert_eq!(
            (bad.text.as_str(), bad.lossy),
            ("gr\u{FFFD}\u{FFFD}e\0end", true)
        );
    }

    #[test]
    fn a_long_message_is_cut_between_characters_and_told() {
        let long = message_of(format!("x{}", "é".repeat(MAX_MESSAGE)).as_bytes());
        assert_eq!(long.text.len(), MAX_MESSAGE - 1);
        assert!(long.truncated && !long.lossy);
        let whole = message_of("é".repeat(MAX_MESSAGE / 2).as_bytes());
        assert_eq!(whole.text.len(), MAX_MESSAGE);
        assert!(!whole.truncated);
    }

    #[test]
    fn a_string_ends_at_its_nul_and_an_impossible_length_is_nothing() {
        // SAFETY: a string with NUL.
        let text = unsafe { message(c"up to here".as_ptr(), NUL_TERMINATED) }.text;
        assert_eq!(text, "up to here");
        // SAFETY: nothing is read for a length that no object has.
        let none = unsafe { message(c"x".as_ptr(), NUL_TERMINATED - 1) }.text;
        assert_eq!(none, "");
    }

    #[test]
    fn a_reason_fits_any_buffer() {
        let mut buffer = [0x7F; 8];
        for (size, expected) in [
            (0, None),
            (1, Some("")),
            (3, Some("a")),
            (4, Some("aé")),
            (8, Some("aéb")),
        ] {
            buffer.fill(0x7F);
            // SAFETY: the buffer has eight bytes.
            unsafe { write("aéb", buffer.as_mut_ptr(), size) };
            let bytes: Vec<u8> = buffer.iter().map(|byte| *byte as u8).collect();
            match expected {
                Some(expected) => {
                    let text = CStr::from_bytes_until_nul(&bytes).unwrap();
                    assert_eq!(text.to_str().unwrap(), expected, "{size}");
                    assert!(bytes[expected.len() + 1..].iter().all(|byte| *byte == 0x7F));
                }
                None => assert!(bytes.iter().all(|byte| *byte == 0x7F)),
            }
        }
    }
}
