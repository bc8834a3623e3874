//! What a staged file holds, by path. Its lines are `<path>\t<JSON object>`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// What a line costs in memory at most, while its neighbours are of other paths: bytes of usual lines and
/// distances, and as much again while room is made.
pub(super) const BYTES_A_LINE: usize = 12;

/// The lines of one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) path: String,
    ranges: Ranges,
}

/// Where the lines are: distance to the end of the last one and length, adjacent ones as one, as numbers of
/// seven bits a byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges {
    bytes: Vec<u8>,
    /// End of those in `bytes`.
    end: u64,
    /// The last one, which may still grow.
    last: (u64, u64),
}

impl Ranges {
    fn push(&mut self, at: u64, length: u64) {
        let (start, known) = &mut self.last;
        if *start + *known == at {
            *known += length;
            return;
        }
        self.close();
        self.last = (at, length);
    }

    fn close(&mut self) {
        let (start, length) = std::mem::take(&mut self.last);
        if length > 0 {
            write(start - self.end, &mut self.bytes);
            write(length, &mut self.bytes);
            self.end = start + length;
        }
    }
}

fn write(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The number at the beginning, which is taken away.
fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// The objects that a staged file is for, in the order in which their first events came.
pub(super) fn read(staged: &Path) -> io::Result<Vec<Object>> {
    let mut reader = BufReader::with_capacity(256 << 10, File::open(staged)?);
    let (mut objects, mut places) = (Vec::<Object>::new(), HashMap::<String, usize>::new());
    let (mut line, mut at) = (Vec::new(), 0u64);
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line)? as u64;
        if length == 0 {
            objects.iter_mut().for_each(|it| it.ranges.close());
            return Ok(objects);
        }
        let (path, _) = parts(&line);
        let path = String::from_utf8_lossy(path);
        let place = match places.get(&*path) {
            Some(place) => *place,
            None => {
                objects.push(Object {
                    path: path.to_string(),
                    ranges: Ranges::default(),
                });
                places.insert(path.into_owned(), objects.len() - 1);
                objects.len() - 1
            }
        };
        objects[place].ranges.push(at, length);
        at += length;
    }
}

/// Path and JSON object of a line.
fn parts(line: &[u8]) -> (&[u8], &[u8]) {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    match line.iter().position(|byte| *byte == b'\t') {
        Some(at) => (&line[..at], &line[at + 1..]),
        None => (&[], line),
    }
}

/// The JSON objects of one path, one after the other.
pub(super) struct Lines<'a> {
    file: BufReader<File>,
    ranges: &'a [u8],
    /// End of the last range.
    end: u64,
    /// Bytes left of the range.
    left: u64,
    line: Vec<u8>,
}

impl Lines<'_> {
    pub(super) fn open<'a>(staged: &Path, object: &'a Object) -> io::Result<Lines<'a>> {
        Ok(Lines {
            file: BufReader::with_capacity(64 << 10, File::open(staged)?),
            ranges: &object.ranges.bytes,
            end: 0,
            left: 0,
            line: Vec::new(),
        })
    }

    /// The next one; nothing at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        if self.left == 0 {
            let range = take(&mut self.ranges).zip(take(&mut self.ranges));
            let Some((distance, length)) = range else {
                return Ok(None);
            };
            self.file.seek(SeekFrom::Start(self.end + distance))?;
            self.left = length;
            self.end += distance + length;
        }
        self.line.clear();
        let mut rest = self.file.by_ref().take(self.left);
        let read = rest.read_until(b'\n', &mut self.line)? as u64;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read;
        Ok(Some(parts(&self.line).1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_costs_no_more_than_is_said() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = 20_000;
        let text: String = (0..lines)
            .map(|n| format!("path-{}/\t{}\n", n % 7, "x".repeat(n % 2000)))
            .collect();
        std::fs::write(&file, text).unwrap();
        let objects = read(file.path()).unwrap();
        let bytes: usize = objects.iter().map(|it| it.ranges.bytes.capacity()).sum();
        assert!(bytes <= BYTES_A_LINE * lines, "{bytes}");
    }

    #[test]
    fn numbers_come_back() {
        for number in [0, 1, 127, 128, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            write(number, &mut bytes);
            assert_eq!(take(&mut &bytes[..]), Some(number));
        }
        assert_eq!(take(&mut &[0x80u8][..]), None);
    }

    #[test]
    fn every_line_is_found_by_its_path_and_in_order() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "a/\t{1}\na/\t{2}\nb/\t{3}\na/\t{4}\n\t{5}\n").unwrap();
        let objects = read(file.path()).unwrap();
        let of = |object: &Object| {
            let mut lines = Lines::open(file.path(), object).unwrap();
            let mut all = Vec::new();
            while let Some(line) = lines.next().unwrap() {
                all.push(String::from_utf8(line.to_vec()).unwrap());
            }
            (object.path.clone(), all)
        };
        let all: Vec<(String, Vec<String>)> = objects.iter().map(of).collect();
        let is = |path: &str, lines: &[&str]| {
            (
                path.to_owned(),
                lines.iter().map(|it| (*it).to_owned()).collect(),
            )
        };
        assert_eq!(
            all,
            [
                is("a/", &["{1}", "{2}", "{4}"]),
                is("b/", &["{3}"]),
                is("", &["{5}"])
            ]
        );
        assert_eq!(objects[0].ranges.bytes, [0, 14, 7, 7]);
    }
}
