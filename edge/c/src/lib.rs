//! The C interface of the embedded publisher. `include/thinglog.h` declares it and is its
//! documentation; here is what is behind it. The one place in thinglog with `unsafe`: pointers of C are
//! looked at here and nowhere else, and every use says what it relies on.
//!
//! No panic crosses the border (`guarded`), NULL is an answer rather than a crash, and text that is
//! not UTF-8 is taken with U+FFFD for what is wrong. What C promises in the header (a pointer is
//! NULL or valid, a string ends with NUL, nothing is used after it was freed) cannot be checked.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attributes;
mod counters;
#[cfg(test)]
mod layout_tests;
mod options;
mod text;

use std::{
    ffi::{c_char, c_int},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    time::Duration,
};

use thinglog_edge::{Publisher, Record};
use thinglog_schemas::{Severity, limits::DROPPED_ATTRIBUTES};

use attributes::Attribute;
use counters::Counters;
use options::Options;
use text::NUL_TERMINATED;

const OK: c_int = 0;
const ERROR_ARGUMENT: c_int = -1;
const ERROR_INTERNAL: c_int = -2;

/// Runs `work`; a panic within becomes `otherwise`.
fn guarded<T>(otherwise: T, work: impl FnOnce() -> T) -> T {
    // Nothing of ours is left half changed by a panic: the publisher is made to be shared by threads,
    // and options are read again as a whole.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(otherwise)
}

/// Any number; what is none of OpenTelemetry's counts as INFO.
fn severity(number: c_int) -> Severity {
    u8::try_from(number)
        .ok()
        .and_then(Severity::new)
        .unwrap_or(Severity::INFO)
}

fn milliseconds(count: u32) -> Duration {
    Duration::from_millis(count.into())
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn thinglog_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn thinglog_strerror(status: c_int) -> *const c_char {
    let text = match status {
        ERROR_ARGUMENT => c"an argument is NULL, unknown or cannot be read",
        ERROR_INTERNAL => c"a fault of the library's own; nothing was done",
        status if status >= 0 => c"no error",
        _ => c"not a status of thinglog's",
    };
    text.as_ptr()
}

/// See the header.
///
/// # Safety
/// `device` is NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn thinglog_options_new(device: *const c_char) -> *mut Options {
    guarded(ptr::null_mut(), || {
        // SAFETY: the caller promises NULL or a string.
        let device = unsafe { text::string(device) };
        device.map_or(ptr::null_mut(), |device| {
            Box::into_raw(Box::new(Options::new(&device)))
        })
    })
}

/// See the header.
///
/// # Safety
/// `options` is NULL or of `thinglog_options_new` and not freed, and no other thread uses it; `key`
/// and `value` are NULL or strings; `error` is NULL or has `error_size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn thinglog_options_set(
    options: *mut Options,
    key: *const c_char,
    value: *const c_char,
    error: *mut c_char,
    error_size: usize,
) -> c_int {
    let complain = |reason: &str| {
        // SAFETY: the caller promises NULL or so many bytes.
        unsafe { text::write(reason, error, error_size) };
        ERROR_ARGUMENT
    };
    guarded(ERROR_INTERNAL, || {
        // SAFETY: the caller promises NULL or valid options that nobody else uses.
        let Some(options) = (unsafe { options.as_mut() }) else {
            return complain("the options are NULL");
        };
        // SAFETY: the caller promises NULL or a string.
        let key = unsafe { text::string(key) };
        // SAFETY: as for the key.
        let value = unsafe { text::string(value) };
        match key.zip(value) {
            Some((key, value)) => match options.set(&key, &value) {
                Ok(()) => OK,
                Err(reason) => complain(&format!("{key}: {reason}")),
            },
            None => complain("the key or its value is NULL"),
        }
    })
}

/// See the header.
///
/// # Safety
/// `options` is NULL or of `thinglog_options_new`; it is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn thinglog_options_free(options: *mut Options) {
    guarded((), || {
        if !options.is_null() {
            // SAFETY: of `Box::into_raw` in `thinglog_options_new`, and given back once.
            drop(unsafe { Box::from_raw(options) });
        }
    });
}

/// See the header.
///
/// # Safety
/// `options` is NULL or of `thinglog_options_new`, not freed, and not being changed; `error` is NULL
/// or has `error_size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn thinglog_start(
    options: *const Options,
    error: *mut c_char,
    error_size: usize,
) -> *mut Publisher {
    let complain = |reason: &str| {
        // SAFETY: the caller promises NULL or so many bytes.
        unsafe { text::write(reason, error, error_size) };
        ptr::null_mut()
    };
    guarded(ptr::null_mut(), || {
        // SAFETY: the caller promises NULL or valid options that nobody changes.
        let Some(options) = (unsafe { options.as_ref() }) else {
            return complain("the options are NULL");
        };
        match options.start() {
            Ok(publisher) => Box::into_raw(Box::new(publisher)),
            Err(reason) => complain(&reason),
        }
    })
}

/// See the header.
///
/// # Safety
/// `publisher` is NULL or of `thinglog_start` and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn thinglog_enabled(publisher: *const Publisher, severity: c_int) -> c_int {
    guarded(0, || {
        // SAFETY: the caller promises NULL or a valid handle; it is shared by threads as it is.
        let publisher = unsafe { publisher.as_ref() };
        let enabled = |publisher: &Publisher| publisher.enabled(self::severity(severity));
        publisher.is_some_and(enabled).into()
    })
}

/// See the header.
///
/// # Safety
/// `publisher` is NULL or of `thinglog_start` and not freed; `source` is NULL or a string; `message` is
/// NULL or has `length` bytes, or is a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn thinglog_emit(
    publisher: *const Publisher,
    source: *const c_char,
    severity: c_int,
    message: *const c_char,
    length: usize,
) -> c_int {
    let none = ptr::null();
    // SAFETY: the same promises; no attributes.
    unsafe { thinglog_emit_kv(publisher, source, severity, 0, message, length, none, 0) }
}

/// See the header.
///
/// # Safety
/// As for [`thinglog_emit`]; `attributes` is NULL or has `count` of them, whose keys and strings are
/// NULL or as long as they say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn thinglog_emit_kv(
    publisher: *const Publisher,
    source: *const c_char,
    severity: c_int,
    time: u64,
    message: *const c_char,
    length: usize,
    attributes: *const Attribute,
    count: usize,
) -> c_int {
    guarded(ERROR_INTERNAL, || {
        // SAFETY: the caller promises NULL or a valid handle; it is shared by threads as it is.
        let Some(publisher) = (unsafe { publisher.as_ref() }) else {
            return ERROR_ARGUMENT;
        };
        let severity = self::severity(severity);
        if message.is_null() || (attributes.is_null() && count > 0) {
            return ERROR_ARGUMENT;
        }
        publisher.emit_with(severity, || {
            // SAFETY: the caller promises so many bytes, or a string.
            let message = unsafe { text::message(message, length) };
            // SAFETY: the caller promises NULL or a string.
            let source = unsafe { text::source(source) };
            // SAFETY: the caller promises so many attributes.
            let (mut attributes, dropped) = unsafe { attributes::read(attributes, count) };
            if dropped > 0 {
                attributes.insert(DROPPED_ATTRIBUTES.into(), dropped.into());
            }
            if message.lossy || source.lossy {
                attributes.insert(text::INVALID_UTF8.into(), true.into());
            }
            let mut record = Record::new(source.name, severity, message.text);
            record.attributes = attributes;
            record.truncated = message.truncated;
            record.time = (time > 0).then_some(time);
            record
        });
        OK
    })
}

/// See the header.
///
/// # Safety
/// `publisher` is NULL or of `thinglog_start` and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn thinglog_flush(publisher: *const Publisher, deadline_ms: u32) -> c_int {
    guarded(ERROR_INTERNAL, || {
        // SAFETY: the caller promises NULL or a valid handle; it is shared by threads as it is.
        let publisher = unsafe { publisher.as_ref() };
        publisher.map_or(ERROR_ARGUMENT, |publisher| {
            publisher.flush_blocking(milliseconds(deadline_ms)).into()
        })
    })
}

/// See the header.
///
/// # Safety
/// `publisher` is NULL or of `thinglog_start` and not freed; `counters` is NULL or has the bytes that
/// its `size` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn thinglog_get_counters(
    publisher: *const Publisher,
    counters: *mut Counters,
) -> c_int {
    guarded(ERROR_INTERNAL, || {
        // SAFETY: the caller promises NULL or a valid handle; it is shared by threads as it is.
        let Some(publisher) = (unsafe { publisher.as_ref() }) else {
            return ERROR_ARGUMENT;
        };
        let figures = counters::figures(publisher);
        // SAFETY: the caller promises NULL or as many bytes as it says itself.
        match unsafe { counters::write(&figures, counters) } {
            true => OK,
            false => ERROR_ARGUMENT,
        }
    })
}

/// See the header.
///
/// # Safety
/// `publisher` is NULL or of `thinglog_start` and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn thinglog_close(publisher: *const Publisher, deadline_ms: u32) -> c_int {
    guarded(ERROR_INTERNAL, || {
        // SAFETY: the caller promises NULL or a valid handle; it is shared by threads as it is.
        let publisher = unsafe { publisher.as_ref() };
        publisher.map_or(ERROR_ARGUMENT, |publisher| {
            publisher.close_blocking(milliseconds(deadline_ms)).into()
        })
    })
}

/// See the header.
///
/// # Safety
/// `publisher` is NULL or of `thinglog_start`; nobody uses it again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn thinglog_free(publisher: *mut Publisher) {
    guarded((), || {
        if !publisher.is_null() {
            // SAFETY: of `Box::into_raw` in `thinglog_start`, and given back once.
            drop(unsafe { Box::from_raw(publisher) });
        }
    });
}

// A length that says "up to the NUL" can be no length of anything.
const _: () = assert!(NUL_TERMINATED > isize::MAX as usize);
