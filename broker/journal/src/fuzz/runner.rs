//! The runner for ordinary tests: replays every file of a corpus, then mutates them by chance for
//! `THINGLOG_FUZZ_SECONDS` (2). `THINGLOG_FUZZ_SEED` repeats a run's choices.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest input.
const LONGEST: usize = 4 << 10;
/// Bytes that formats tend to treat in their own way.
const SPECIAL: [u8; 12] = [0, 1, 2, 4, 5, 0x10, 0x20, b'/', b'#', 0x7F, 0x80, 0xFF];

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let wide = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(wide).unwrap_or_default() % bound.max(1)
    }

    fn byte(&mut self) -> u8 {
        match self.below(2) {
            0 => SPECIAL[self.below(SPECIAL.len())],
            _ => self.below(256) as u8,
        }
    }
}

/// Feeds `target` with every file in `corpus`, then with changed ones while there is time.
///
/// # Panics
/// When the target does, or there is no corpus; the input is left in a file that is named.
pub fn run(name: &str, corpus: &Path, target: impl Fn(&[u8])) {
    let mut seeds = Vec::new();
    let entries = fs::read_dir(corpus).unwrap_or_else(|e| panic!("{}: {e}", corpus.display()));
    for entry in entries.flatten() {
        let input = fs::read(entry.path()).unwrap_or_default();
        attempt(name, &input, &target);
        seeds.push(input);
    }
    assert!(!seeds.is_empty(), "{}: no seeds", corpus.display());
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seconds: u64 = number("THINGLOG_FUZZ_SECONDS").unwrap_or(2);
    let seed = number("THINGLOG_FUZZ_SEED").unwrap_or_else(|| {
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes).map_or(1, |()| u64::from(u32::from_be_bytes(bytes)))
    });
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut inputs = 0u64;
    while Instant::now() < deadline {
        let input = mutated(&seeds, &mut random);
        attempt(name, &input, &target);
        inputs += 1;
    }
    eprintln!("{name}: {inputs} inputs in {seconds} s, THINGLOG_FUZZ_SEED={seed}");
}

fn attempt(name: &str, input: &[u8], target: &impl Fn(&[u8])) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_ok() {
        return;
    }
    let sum = crc32fast::hash(input);
    let path = std::env::temp_dir().join(format!("crash-{name}-{sum:08x}"));
    let kept = fs::write(&path, input);
    panic!(
        "{name} panicked on an input of {} bytes: {} ({kept:?}); keep it with the seeds",
        input.len(),
        path.display()
    );
}

fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(8) {
        let at = random.below(input.len() + 1);
        let end = (at + 1 + random.below(16)).min(input.len());
        match random.below(9) {
            0 => input
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|b| *b ^= 1 << random.below(8)),
            1 => input
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|b| *b = random.byte()),
            2 => input.insert(at, random.byte()),
            3 => drop(input.drain(at..end)),
            4 => input.truncate(at),
            5 if at < end => input.extend_from_within(at..end),
            6 => input.extend((0..random.below(16)).map(|_| random.byte())),
            7 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let piece: Vec<u8> = (0..random.below(8)).map(|_| random.byte()).collect();
                input.splice(at..end.max(at), piece).for_each(drop);
            }
        }
    }
    input.truncate(LONGEST);
    input
}
