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
        self.rest = rest;
        if first < 0x80 {
            return Some(u64::from(first));
        }
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
        fn numbers_come_back(a in any::<u64>(), b in any::<u64>()) {
            let mut out = Vec::new();
            push(a, &mut out);
            push_difference(a, b, &mut out);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.number(), Some(a));
            prop_assert_eq!(reader.difference(a), Some(b));
            prop_assert_eq!(reader.number(), None);
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
