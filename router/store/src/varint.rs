//! Numbers in columns: LEB128, seven bits a byte, and zigzag for those that may be negative.

/// Appends a number; small ones take one byte.
pub(crate) fn push(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends the difference of two numbers, wherever it points.
pub(crate) fn push_difference(from: u64, to: u64, out: &mut Vec<u8>) {
    let difference = to.wrapping_sub(from) as i64;
    push(((difference << 1) ^ (difference >> 63)) as u64, out);
}

/// The bit of each byte that is missing in the last one of a number.
const LAST: u64 = 0x8080_8080_8080_8080;

/// Seven bits of each of eight bytes, side by side.
fn gathered(word: u64) -> u64 {
    let word = word & !LAST;
    let word = word & 0x007f_007f_007f_007f | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let word = word & 0x0000_3fff_0000_3fff | (word & 0x3fff_0000_3fff_0000) >> 2;
    word & 0x0fff_ffff | (word & 0x0fff_ffff_0000_0000) >> 4
}

/// Reads what was appended; `None` at the end or where no number is.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        // Most take one byte.
        let (&first, rest) = self.rest.split_first()?;
        if first < 0x80 {
            self.rest = rest;
            return Some(u64::from(first));
        }
        // Of eight at once the place of the last one is known without a guess.
        let word = self
            .rest
            .first_chunk()
            .map(|word| u64::from_le_bytes(*word));
        if let Some(word) = word.filter(|word| !word & LAST != 0) {
            let bits = (!word & LAST).trailing_zeros() + 1;
            self.rest = &self.rest[bits as usize / 8..];
            return Some(gathered(word & (u64::MAX >> (64 - bits))));
        }
        self.rest = rest;
        let mut number = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// A number that counts or measures something of at most `most`.
    pub(crate) fn size(&mut self, most: usize) -> Option<usize> {
        let number = usize::try_from(self.number()?).ok()?;
        (number <= most).then_some(number)
    }

    /// The number that differs from `from` by what comes next.
    pub(crate) fn difference(&mut self, from: u64) -> Option<u64> {
        let zigzag = self.number()?;
        let difference = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        Some(from.wrapping_add(difference as u64))
    }

    /// As many numbers below `most`, and below 2^32.
    pub(crate) fn small(&mut self, count: usize, most: usize) -> Option<Vec<u32>> {
        // If none takes more than a byte, then the first bytes are all of them.
        let bytes = self.rest.get(..count)?;
        if bytes.iter().all(|byte| usize::from(*byte) < most.min(0x80)) {
            self.rest = &self.rest[count..];
            return Some(bytes.iter().map(|byte| u32::from(*byte)).collect());
        }
        let mut small = || self.size(most.checked_sub(1)?)?.try_into().ok();
        (0..count).map(|_| small()).collect()
    }

    /// What was not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    /// Text with its length before it.
    pub(crate) fn text(&mut self, most: usize) -> Option<&'a str> {
        let length = self.size(most)?;
        std::str::from_utf8(self.bytes(length)?).ok()
    }
}

/// Appends text with its length before it.
pub(crate) fn push_text(text: &str, out: &mut Vec<u8>) {
    push(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(a in any::<u64>(), b in any::<u64>(), less in 0..64, behind in any::<bool>()) {
            let (a, b) = (a >> less, b);
            let mut out = Vec::new();
            push(a, &mut out);
            push_difference(a, b, &mut out);
            let length = out.len();
            out.extend(behind.then_some([0x80; 9]).into_iter().flatten());
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.number(), Some(a));
            prop_assert_eq!(reader.difference(a), Some(b));
            prop_assert_eq!(reader.rest().len(), out.len() - length);
            prop_assert_eq!(reader.number(), None);
        }

        #[test]
        fn small_numbers_come_back(numbers in proptest::collection::vec(prop_oneof![0..3u32, any::<u32>()], 0..20), most in any::<u32>()) {
            let mut out = Vec::new();
            numbers.iter().for_each(|number| push(u64::from(*number), &mut out));
            push(7, &mut out);
            let mut reader = Reader::new(&out);
            let are_below = numbers.iter().all(|number| *number < most);
            let read = reader.small(numbers.len(), most as usize);
            prop_assert_eq!(&read, &are_below.then_some(numbers));
            prop_assert!(read.is_none() || reader.number() == Some(7));
        }

        #[test]
        fn garbage_is_no_number_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = Reader::new(&bytes);
            while reader.number().is_some() {}
            let mut reader = Reader::new(&bytes);
            while reader.text(20).is_some() {}
        }
    }
}
