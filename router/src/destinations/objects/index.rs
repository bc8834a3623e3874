//! What a staged file holds, by path. Its lines are `<path>\t<JSON object>`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// The lines of one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) path: String,
    /// Where they are: beginning and length, adjacent ones as one.
    pub(super) ranges: Vec<(u64, u64)>,
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
            return Ok(objects);
        }
        let (path, _) = parts(&line);
        let path = String::from_utf8_lossy(path);
        let place = match places.get(&*path) {
            Some(place) => *place,
            None => {
                objects.push(Object {
                    path: path.to_string(),
                    ranges: Vec::new(),
                });
                places.insert(path.into_owned(), objects.len() - 1);
                objects.len() - 1
            }
        };
        let ranges = &mut objects[place].ranges;
        match ranges.last_mut() {
            Some((start, known)) if *start + *known == at => *known += length,
            _ => ranges.push((at, length)),
        }
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
pub(super) struct Lines {
    file: BufReader<File>,
    ranges: std::vec::IntoIter<(u64, u64)>,
    /// Bytes left of the range.
    left: u64,
    line: Vec<u8>,
}

impl Lines {
    pub(super) fn open(staged: &Path, object: &Object) -> io::Result<Lines> {
        Ok(Lines {
            file: BufReader::with_capacity(64 << 10, File::open(staged)?),
            ranges: object.ranges.clone().into_iter(),
            left: 0,
            line: Vec::new(),
        })
    }

    /// The next one; nothing at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        if self.left == 0 {
            let Some((start, length)) = self.ranges.next() else {
                return Ok(None);
            };
            self.file.seek(SeekFrom::Start(start))?;
            self.left = length;
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
        assert_eq!(objects[0].ranges, [(0, 14), (21, 7)]);
    }
}
