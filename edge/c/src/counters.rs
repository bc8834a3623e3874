//! The figures for C: a structure that grows at its end and says how long it is.

use std::mem::{offset_of, size_of};

use thinglog_edge::Publisher;

/// `thinglog_counters` of the header.
#[repr(C)]
pub struct Counters {
    pub(crate) size: usize,
    pub(crate) accepted: u64,
    pub(crate) filtered: u64,
    pub(crate) dropped: u64,
    pub(crate) acknowledged: u64,
    pub(crate) batches: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) queued_events: u64,
    pub(crate) in_flight_events: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) spool_bytes: u64,
    pub(crate) unreadable_records: u64,
    pub(crate) connects: u64,
    pub(crate) connected: u64,
}

const HEAD: usize = offset_of!(Counters, accepted);
/// So much may a structure of later versions have; more is a size that was never set.
const MOST: usize = 4096;

/// The figures in the structure's order.
pub(crate) fn figures(publisher: &Publisher) -> [u64; 13] {
    let counters = publisher.counters();
    [
        counters.accepted,
        counters.filtered,
        counters.dropped,
        counters.acknowledged,
        counters.batches,
        counters.payload_bytes,
        counters.queued_events,
        counters.in_flight_events,
        counters.memory_bytes,
        counters.spool_bytes,
        counters.unreadable_records,
        counters.connects,
        counters.connected.into(),
    ]
}

/// Writes as many figures as `out` says it has room for behind its size, and zeros to what it has
/// beyond. False for NULL and for a size that cannot be one.
///
/// # Safety
/// `out` is NULL or has as many bytes as its `size` says, that field included.
pub(crate) unsafe fn write(figures: &[u64], out: *mut Counters) -> bool {
    if out.is_null() {
        return false;
    }
    // SAFETY: not NULL, so the caller promises the field, which is the first.
    let size = unsafe { out.cast::<usize>().read() };
    if !(HEAD..=MOST).contains(&size) {
        return false;
    }
    let start = out.cast::<u8>().wrapping_byte_add(HEAD);
    // SAFETY: the caller promises `size` bytes from `out`, which nobody else looks at meanwhile.
    let room = unsafe { std::slice::from_raw_parts_mut(start, size - HEAD) };
    let all = figures.iter().copied().chain(std::iter::repeat(0));
    for (place, figure) in room.chunks_exact_mut(size_of::<u64>()).zip(all) {
        place.copy_from_slice(&figure.to_ne_bytes());
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURES: [u64; 13] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1];

    /// Words that C would have, `size` in the first.
    fn written(size: usize) -> Option<[u64; 24]> {
        let mut words = [u64::MAX; 24];
        words[0] = size as u64;
        // SAFETY: more bytes than any size in these tests.
        unsafe { write(&FIGURES, words.as_mut_ptr().cast()) }.then_some(words)
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn older_and_newer_programs_get_what_both_know() {
        let exact = written(size_of::<Counters>()).unwrap();
        assert_eq!(exact[1..14], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1]);
        assert_eq!(exact[14], u64::MAX);
        let older = written(8 * 4).unwrap();
        assert_eq!(older[..5], [32, 1, 2, 3, u64::MAX]);
        let newer = written(8 * 16).unwrap();
        assert_eq!(newer[13..17], [1, 0, 0, u64::MAX]);
        assert_eq!(newer[0], 128);
    }

    #[test]
    fn a_size_that_was_not_set_is_refused() {
        assert!(written(0).is_none() && written(7).is_none() && written(usize::MAX).is_none());
        // SAFETY: NULL is looked at by nobody.
        assert!(!unsafe { write(&FIGURES, std::ptr::null_mut()) });
    }
}
