//! Times counted in buckets that are there from the start: recording allocates nothing and costs the
//! same for the first and the last.

use std::time::Duration;

/// Buckets a power of two: a time is known to 1.6 %.
const STEPS: u64 = 64;
const BUCKETS: usize = 40 * STEPS as usize;

/// Nanoseconds, up to a few minutes.
#[derive(Clone)]
pub(crate) struct Histogram {
    buckets: Box<[u32; BUCKETS]>,
    count: u64,
    worst: u64,
}

impl Histogram {
    pub(crate) fn new() -> Histogram {
        Histogram {
            buckets: Box::new([0; BUCKETS]),
            count: 0,
            worst: 0,
        }
    }

    pub(crate) fn record(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
        self.worst = self.worst.max(nanos);
    }

    pub(crate) fn add(&mut self, other: &Histogram) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets.iter()) {
            *mine += theirs;
        }
        self.count += other.count;
        self.worst = self.worst.max(other.worst);
    }

    /// The time that `share` of all took no longer than, ns.
    pub(crate) fn at(&self, share: f64) -> u64 {
        let rank = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank {
                return end(bucket).min(self.worst);
            }
        }
        self.worst
    }

    pub(crate) fn worst(&self) -> u64 {
        self.worst
    }
}

/// Below 2 * STEPS a bucket a nanosecond, then STEPS for each power of two.
fn bucket(nanos: u64) -> usize {
    if nanos < 2 * STEPS {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - STEPS.ilog2();
    let bucket = u64::from(shift) * STEPS + (nanos >> shift);
    (bucket as usize).min(BUCKETS - 1)
}

/// The largest time of a bucket.
fn end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    ((bucket % STEPS + STEPS + 1) << shift) - 1
}
