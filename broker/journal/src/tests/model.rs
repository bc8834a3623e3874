//! Random appends, faults, crashes and reopenings against what was promised.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::{AppendError, Failure, OnFull, ReplaceError};

#[derive(Clone, Debug)]
enum Do {
    /// Records of these sizes, as one append; whether to wait for them.
    Append(Vec<usize>, bool),
    Free(u64),
    FailSync(u32),
    FailSyncDir(u32),
    FailWrite(u32),
    FailTruncate,
    ShortWrites,
    /// Of what is held, in per cent.
    Release(u64),
    Expire,
    /// Closed segments, which and how many; records by offset, kept when it divides.
    Replace(usize, usize, u64),
    Mend,
    Kill,
    PowerCut,
    Close,
}

fn any_do() -> impl Strategy<Value = Do> {
    let sizes = prop::collection::vec(0usize..900, 1..6);
    prop_oneof![
        30 => (sizes, any::<bool>()).prop_map(|(sizes, wait)| Do::Append(sizes, wait)),
        2 => (0u64..6000).prop_map(Do::Free),
        1 => (0u32..6).prop_map(Do::FailSync),
        1 => (0u32..3).prop_map(Do::FailSyncDir),
        1 => (0u32..6).prop_map(Do::FailWrite),
        1 => Just(Do::FailTruncate),
        1 => Just(Do::ShortWrites),
        1 => (0u64..100).prop_map(Do::Release),
        1 => Just(Do::Expire),
        6 => (0usize..8, 1usize..4, 1u64..5).prop_map(|(at, n, by)| Do::Replace(at, n, by)),
        3 => Just(Do::Mend),
        2 => Just(Do::Kill),
        4 => Just(Do::PowerCut),
        2 => Just(Do::Close),
    ]
}

type Content = (u64, Vec<u8>);

struct Model {
    fs: SimFs,
    options: Options,
    journal: Option<Journal>,
    time: u64,
    serial: u64,
    /// Acknowledged, or read after a recovery: must be there unless deleted.
    durable: BTreeMap<u64, Content>,
    /// Undecided when the machine stopped, or poisoned: may be there.
    possible: BTreeSet<(u64, Content)>,
    /// Appended, not looked at yet.
    open: Vec<(u64, Content)>,
}

impl Model {
    fn new(seed: u64, on_full: OnFull) -> Model {
        let options = Options {
            segment_bytes: 2 << 10,
            max_bytes: 64 << 10,
            on_full,
            tail_bytes: 3 << 10,
            max_age: Some(std::time::Duration::from_nanos(40)),
            ..Options::default()
        };
        let mut model = Model {
            fs: SimFs::new(seed),
            options,
            journal: None,
            time: 0,
            serial: 0,
            durable: BTreeMap::new(),
            possible: BTreeSet::new(),
            open: Vec::new(),
        };
        model.reopen();
        model
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().unwrap()
    }

    fn step(&mut self, step: Do) {
        match step {
            Do::Append(sizes, wait) => self.append(&sizes, wait),
            Do::Free(bytes) => self.fs.leave_free(bytes),
            Do::FailSync(n) => self.fs.faults(|faults| faults.fail_sync = Some(n)),
            Do::FailSyncDir(n) => self.fs.faults(|faults| faults.fail_sync_dir = Some(n)),
            Do::FailWrite(n) => self.fs.faults(|faults| faults.fail_write = Some(n)),
            Do::FailTruncate => self.fs.faults(|faults| faults.fail_truncate = true),
            Do::ShortWrites => self.fs.faults(|faults| faults.short_writes = true),
            Do::Release(percent) => {
                let (first, next) = (self.journal().first(), self.journal().next());
                // May fail for a directory that cannot be synced; tried again later.
                let _ = self
                    .journal()
                    .release(first + (next - first) * percent / 100);
            }
            Do::Expire => {
                let _ = self.journal().retain(self.time);
            }
            Do::Replace(at, count, by) => self.replace(at, count, by),
            Do::Mend => self.fs.faults(|faults| *faults = Default::default()),
            Do::Kill => {
                self.fs.kill();
                self.stop();
                self.reopen();
            }
            Do::PowerCut => {
                self.fs.power_cut();
                self.stop();
                self.reopen();
            }
            Do::Close => {
                self.settle();
                self.stop();
                self.reopen();
            }
        }
        assert!(
            self.fs.used().1 <= self.options.max_bytes + 24,
            "over the limit"
        );
    }

    fn append(&mut self, sizes: &[usize], wait: bool) {
        self.time += 1;
        let mut records = Records::new();
        let mut contents = Vec::new();
        for size in sizes {
            self.serial += 1;
            let payload = format!("{:0size$}", self.serial).into_bytes();
            records.push(&payload);
            contents.push((self.time, payload));
        }
        match self.journal().append(self.time, &records) {
            Ok(range) => self.open.extend(range.zip(contents)),
            Err(AppendError::Full { .. }) => assert_eq!(self.options.on_full, OnFull::Refuse),
            Err(AppendError::Poisoned) => self.settle(),
            Err(other) => panic!("{other}"),
        }
        if wait {
            self.settle();
            self.check();
        }
    }

    /// Keeps some records of a run of segments, shortened.
    fn replace(&mut self, at: usize, count: usize, by: u64) {
        self.settle();
        let closed = self.journal().closed();
        let Some(first) = closed.get(at) else { return };
        let last = closed[at..].iter().take(count).next_back().unwrap();
        let (from, through) = (first.first, last.end);
        if from == through {
            // Its making was all that happened to it.
            return;
        }
        let mut with = self.journal().replacement();
        let mut changed = Vec::new();
        for (offset, (time, payload)) in self.durable.range(from..through) {
            let mut kept = None;
            if offset.is_multiple_of(by) {
                kept = Some((*time, payload[payload.len() / 2..].to_vec()));
                with.push_with(*offset, *time, |out| out.extend(&kept.as_ref().unwrap().1));
            }
            changed.push((*offset, kept));
        }
        match self.journal().replace(from, through, &with) {
            Ok(()) => {
                for (offset, kept) in changed {
                    let old = self.durable.remove(&offset);
                    self.durable.extend(kept.map(|kept| (offset, kept)));
                    drop(old);
                }
                self.check();
            }
            Err(ReplaceError::Poisoned) => {
                // The old ones or the new.
                for (offset, kept) in changed {
                    let old = self.durable.remove(&offset);
                    let either = old.into_iter().chain(kept);
                    self.possible
                        .extend(either.map(|content| (offset, content)));
                }
            }
            Err(ReplaceError::NoRoom { .. } | ReplaceError::Io(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for everything appended and notes what became of it.
    fn settle(&mut self) {
        for (offset, content) in std::mem::take(&mut self.open) {
            match self.journal().wait(offset) {
                Outcome::Durable => drop(self.durable.insert(offset, content)),
                Outcome::Failed(Failure::Poisoned) => drop(self.possible.insert((offset, content))),
                Outcome::Failed(_) => {}
                Outcome::Pending => panic!("{offset} is pending after waiting"),
            }
        }
    }

    /// What is readable now is exactly what was promised.
    fn check(&self) {
        let journal = self.journal();
        let from = journal.first();
        let got = drain(&mut journal.reader(from));
        let got: BTreeMap<u64, Content> = got
            .into_iter()
            .map(|(offset, time, payload)| (offset, (time, payload)))
            .collect();
        let first = journal.first();
        let durable: BTreeMap<_, _> = self
            .durable
            .range(first..)
            .map(|(k, v)| (*k, v.clone()))
            .collect();
        let mut got: BTreeMap<_, _> = got
            .into_iter()
            .filter(|(offset, _)| *offset >= first)
            .collect();
        // Only while the journal is poisoned.
        got.retain(|offset, content| !self.possible.contains(&(*offset, content.clone())));
        assert!(
            got == durable,
            "{:?} instead of {:?}",
            got.keys(),
            durable.keys()
        );
    }

    fn stop(&mut self) {
        self.settle();
        self.journal = None;
    }

    fn reopen(&mut self) {
        let opened = Journal::open(self.fs.boot(), Path::new(DIR), self.options.clone());
        let (journal, recovery) = opened.unwrap_or_else(|_| {
            self.fs.faults(|faults| *faults = Default::default());
            Journal::open(self.fs.boot(), Path::new(DIR), self.options.clone()).unwrap()
        });
        assert_eq!(recovery.quarantined_segments, 0);
        let got = drain(&mut journal.reader(0));
        assert!(got.is_sorted_by_key(|(offset, ..)| *offset));
        let highest = self
            .durable
            .last_key_value()
            .map_or(0, |(offset, _)| offset + 1);
        assert!(
            recovery.next >= highest,
            "an acknowledged offset would be given again"
        );
        // Segments whose deletion was not synced may be back: they hold what they held.
        let mut held = BTreeMap::new();
        for (offset, time, payload) in got {
            let content = (time, payload);
            let known = self.durable.get(&offset) == Some(&content)
                || self.possible.contains(&(offset, content.clone()));
            assert!(known, "offset {offset} was invented or had failed");
            held.insert(offset, content);
        }
        let first = journal.first();
        for offset in self.durable.range(first..).map(|(offset, _)| offset) {
            assert!(
                held.contains_key(offset),
                "acknowledged offset {offset} is gone"
            );
        }
        self.durable.extend(held);
        self.possible.clear();
        self.journal = Some(journal);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_is_there_and_nothing_else(
        seed in any::<u64>(),
        refuse in any::<bool>(),
        steps in prop::collection::vec(any_do(), 1..80),
    ) {
        let on_full = if refuse { OnFull::Refuse } else { OnFull::Cut };
        let mut model = Model::new(seed, on_full);
        for step in steps {
            model.step(step);
        }
        model.stop();
        model.fs.power_cut();
        model.reopen();
    }
}
