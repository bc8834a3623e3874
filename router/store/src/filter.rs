//! Which words a block of messages may contain, so that a search skips blocks that cannot match.
//!
//! Two sets, both without false negatives. The words, runs of letters, digits and `_`, in a Bloom
//! filter of 10 bits a word with 6 probes (about one block in a hundred is read for nothing). And the
//! runs of three letters in a bitmap, for words of which only a part is known; digits are left out,
//! because numbers would soon fill it. Letters are folded as [`Needle`] says.
//!
//! ```text
//! filter  bits of three letters (2 KiB), bits of words (a multiple of 8 bytes)
//! ```

use thinglog_schemas::query::Needle;

/// Bytes of the bits of three letters.
const LETTERS: usize = 2048;
/// Bits for a word.
const BITS: usize = 10;
const PROBES: u64 = 6;
/// Words that were just there, by their last bits: most repeat within a few lines.
const RECENT: usize = 1 << 12;

/// Collects the words of messages.
pub(crate) struct Builder {
    letters: Vec<u8>,
    words: Vec<u64>,
    recent: Vec<u64>,
}

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder {
            letters: vec![0; LETTERS],
            words: Vec::new(),
            recent: vec![0; RECENT],
        }
    }

    pub(crate) fn add(&mut self, message: &str) {
        let Builder {
            letters,
            words,
            recent,
        } = self;
        let word = |hash: u64| {
            let seat = &mut recent[hash as usize % RECENT];
            if *seat != hash {
                *seat = hash;
                words.push(hash);
            }
        };
        let mut three = |bit: usize| letters[bit / 8] |= 1 << (bit % 8);
        walk(message.as_bytes(), word, |_, bit| three(bit));
    }

    /// The filter; the builder is empty again.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.words.sort_unstable();
        self.words.dedup();
        let mut filter = self.letters.clone();
        let bytes = (self.words.len() * BITS).div_ceil(64) * 8;
        filter.resize(LETTERS + bytes.max(8), 0);
        let bits = &mut filter[LETTERS..];
        for hash in self.words.drain(..) {
            for bit in probes(hash, bits.len()) {
                bits[bit / 8] |= 1 << (bit % 8);
            }
        }
        self.letters.fill(0);
        self.recent.fill(0);
        filter
    }
}

/// Whether a message of the block may contain the text. What is no filter says yes.
pub(crate) fn may_contain(filter: &[u8], needle: &Needle) -> bool {
    let Some((letters, words)) = filter.split_at_checked(LETTERS) else {
        return true;
    };
    if words.is_empty() {
        return true;
    }
    let text = needle.text.as_bytes();
    let mut may = true;
    // A word at an end of the text is whole only if the text says so.
    let ends_within = |end: usize| end < text.len() || needle.ends;
    let first_word_ends = text.iter().position(|byte| !is_of_words(*byte));
    let first_is_whole = needle.starts || first_word_ends == Some(0);
    let mut at_first = !first_is_whole;
    let mut check_word = |hash: u64, end: usize| {
        let is_whole = !at_first && ends_within(end);
        at_first = false;
        if is_whole {
            may &= probes(hash, words.len()).all(|bit| words[bit / 8] >> (bit % 8) & 1 == 1);
        }
    };
    let mut ends = word_ends(text);
    let word = |hash| check_word(hash, ends.next().unwrap_or(text.len()));
    let mut may_by_letters = true;
    walk(text, word, |_, bit| {
        may_by_letters &= letters[bit / 8] >> (bit % 8) & 1 == 1;
    });
    may && may_by_letters
}

/// Where the words of a folded text end.
fn word_ends(text: &[u8]) -> impl Iterator<Item = usize> {
    (0..text.len()).filter_map(|at| {
        let goes_on = text.get(at + 1).is_some_and(|byte| is_of_words(*byte));
        (is_of_words(text[at]) && !goes_on).then_some(at + 1)
    })
}

fn is_of_words(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Six bits of a word.
fn probes(hash: u64, bytes: usize) -> impl Iterator<Item = usize> {
    let bits = bytes as u64 * 8;
    let (first, step) = (hash >> 32, hash as u32 as u64 | 1);
    (0..PROBES).map(move |probe| {
        let mixed = first.wrapping_add(probe.wrapping_mul(step)) & 0xffff_ffff;
        (mixed.wrapping_mul(bits) >> 32) as usize
    })
}

/// The folded byte of each that belongs to words, else 0.
const FOLDED: [u8; 256] = {
    let mut folded = [0; 256];
    let mut byte = 0u8;
    while byte < 0x80 {
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            folded[byte as usize] = byte.to_ascii_lowercase();
        }
        byte += 1;
    }
    folded
};

/// The folded byte of a word, or 0; and how many bytes it stands for.
#[inline]
fn folded(text: &[u8], at: usize) -> (u8, usize) {
    let byte = text[at];
    match byte {
        0xE2 if text[at..].starts_with("\u{212A}".as_bytes()) => (b'k', 3),
        0xC5 if text[at..].starts_with("\u{17F}".as_bytes()) => (b's', 2),
        _ => (FOLDED[usize::from(byte)], 1),
    }
}

/// Tells the hashes of all words, and the places and bits of all three letters side by side.
fn walk(text: &[u8], mut word: impl FnMut(u64), mut three: impl FnMut(usize, usize)) {
    const PRIME: u64 = 0x9E37_79B9_7F4A_7C15;
    let (mut hash, mut letters, mut run) = (0u64, 0usize, 0u32);
    let mut at = 0;
    while at < text.len() {
        let (byte, width) = folded(text, at);
        at += width;
        if byte == 0 {
            if hash != 0 {
                word(finished(hash));
            }
            (hash, run) = (0, 0);
            continue;
        }
        hash = (hash.rotate_left(5) ^ u64::from(byte)).wrapping_mul(PRIME);
        if byte.is_ascii_lowercase() {
            letters = (letters << 5 | usize::from(byte - b'a')) & 0x7fff;
            run += 1;
            if run >= 3 {
                // 2^15 of three letters in 2^14 bits.
                three(at, (letters.wrapping_mul(0x9E37_79B1) >> 7) % (LETTERS * 8));
            }
        } else {
            run = 0;
        }
    }
    if hash != 0 {
        word(finished(hash));
    }
}

/// Spreads a hash over all bits; never 0, which says that there is none.
fn finished(hash: u64) -> u64 {
    let mixed = (hash ^ (hash >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed ^ (mixed >> 29)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(messages: &[&str]) -> Vec<u8> {
        let mut builder = Builder::new();
        messages.iter().for_each(|message| builder.add(message));
        builder.finish()
    }

    fn needle(text: &str, starts: bool, ends: bool) -> Needle {
        Needle {
            text: text.into(),
            starts,
            ends,
        }
    }

    #[test]
    fn words_and_parts_of_words_are_told_apart() {
        let filter = filter(&["GET /index.html took 1234567 ms", "Segfault at 0xdeadbeef"]);
        for (text, starts, ends) in [
            ("index", true, true),
            ("index.html took", false, false),
            ("segf", true, false),
            ("fault", false, true),
            ("egfaul", false, false),
            ("1234567", true, true),
            ("23456", false, false),
        ] {
            assert!(may_contain(&filter, &needle(text, starts, ends)), "{text}");
        }
        for (text, starts, ends) in [
            ("inde", true, true),
            ("segfaults", false, false),
            ("7654321", true, true),
            ("x 7654321 y", false, false),
        ] {
            assert!(!may_contain(&filter, &needle(text, starts, ends)), "{text}");
        }
    }

    #[test]
    fn few_blocks_are_read_for_nothing() {
        let messages: Vec<String> = (0..8192)
            .map(|n: u64| {
                format!(
                    "request {:016x} done",
                    n.wrapping_mul(0x9E37_79B9_7F4A_7C15)
                )
            })
            .collect();
        let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
        let filter = filter(&messages);
        let wrong = (0..10_000u64)
            .filter(|n| {
                let text = format!("{:016x}", n.wrapping_mul(0xD6E8_FEB8_6659_FD93) | 1);
                may_contain(&filter, &needle(&text, true, true))
            })
            .count();
        assert!(wrong < 250, "{wrong} of 10,000");
    }

    #[test]
    fn no_filter_says_yes() {
        assert!(may_contain(&[], &needle("x", true, true)));
    }

    proptest! {
        #[test]
        fn what_is_there_is_never_denied(messages in proptest::collection::vec("[a-cA-C0-2_ .é\u{212A}ſ]{0,30}", 1..6), which in any::<prop::sample::Index>(), from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>()) {
            let refs: Vec<&str> = messages.iter().map(String::as_str).collect();
            let filter = filter(&refs);
            let message: Vec<char> = which.get(&messages).chars().collect();
            if message.is_empty() { return Ok(()); }
            let (a, b) = (from.index(message.len()), to.index(message.len()));
            let (a, b) = (a.min(b), a.max(b) + 1);
            let fold = |c: &char| match c { '\u{212A}' => 'k', 'ſ' => 's', c => c.to_ascii_lowercase() };
            let text: String = message[a..b].iter().map(fold).collect();
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let starts = a == 0 || !is_word(fold(&message[a - 1]));
            let ends = b == message.len() || !is_word(fold(&message[b]));
            prop_assert!(may_contain(&filter, &needle(&text, starts, ends)), "{:?} {} {}", text, starts, ends);
            prop_assert!(may_contain(&filter, &needle(&text, false, false)));
        }
    }
}
