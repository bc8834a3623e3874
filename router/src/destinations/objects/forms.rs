//! Which form the objects of a staged file have: that of the configuration when the file was written. A
//! configuration that changes in between must not give the same events a second time, under another name.
//!
//! ```text
//! <data>/router/<name>/stage/forms   JSON: [[<number of the first file>, {"format": ..., "compression": ...}], ...]
//! ```

use std::io;
use std::path::{Path, PathBuf};

use super::form::Form;
use crate::folder::sync_folder_of;

/// Forms, each from a file's number on, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Forms(Vec<(u64, Form)>);

impl Forms {
    /// Notes that files from `next` on have this form. Of files before that nothing is known of, the
    /// oldest form there is holds; `oldest` is the first that is still there.
    pub(super) fn open(stage: &Path, form: Form, oldest: u64, next: u64) -> io::Result<Forms> {
        let path = stage.join("forms");
        let mut known: Vec<(u64, Form)> = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let before = known.clone();
        if known.last().is_none_or(|(_, last)| *last != form) {
            known.retain(|(from, _)| *from < next);
            known.push((next, form));
        }
        // Those that no file has any more.
        let first = known.iter().rposition(|(from, _)| *from <= oldest);
        known.drain(..first.unwrap_or(0));
        if known != before {
            write(&path, &known)?;
        }
        Ok(Forms(known))
    }

    /// That of a file.
    pub(super) fn of(&self, number: u64) -> Option<Form> {
        let at = self.0.iter().rposition(|(from, _)| *from <= number);
        self.0.get(at.unwrap_or(0)).map(|(_, form)| *form)
    }

    /// The memory of the one that takes most.
    pub(super) fn memory(&self) -> usize {
        let all = self.0.iter().map(|(_, form)| form.memory());
        all.max().unwrap_or(0)
    }
}

fn write(path: &PathBuf, forms: &[(u64, Form)]) -> io::Result<()> {
    let new = path.with_extension("new");
    let file = std::fs::File::create(&new)?;
    let text = serde_json::to_vec(forms).map_err(io::Error::other)?;
    io::Write::write_all(&mut &file, &text)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    sync_folder_of(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(compression: &str) -> Form {
        let text = format!(r#"{{"url": "file:///x", "compression": "{compression}"}}"#);
        Form::new(&serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn a_file_keeps_the_form_it_was_written_for() {
        let folder = tempfile::tempdir().unwrap();
        let open = |compression, oldest, next| {
            Forms::open(folder.path(), form(compression), oldest, next).unwrap()
        };
        assert_eq!(open("zstd", 0, 0).of(7), Some(form("zstd")));
        let forms = open("gzip", 1, 3);
        let of = |forms: &Forms, number| forms.of(number).unwrap();
        assert_eq!(of(&forms, 2), form("zstd"));
        assert_eq!(of(&forms, 3), form("gzip"));
        // Back again before a file was written, and over a restart.
        assert_eq!(open("zstd", 1, 3), open("zstd", 1, 3));
        let forms = open("none", 1, 5);
        assert_eq!((of(&forms, 4), of(&forms, 5)), (form("zstd"), form("none")));
        let forms = open("none", 6, 8);
        assert_eq!(forms.0.len(), 1, "what no file has is forgotten");
    }
}
