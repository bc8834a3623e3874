//! Files that are rotated by a copy and are then emptied: the rest is in the copy.

use std::{collections::HashSet, time::Instant};

use super::Follower;
use crate::agent::{
    file::{
        open::OpenFile,
        position::FileId,
        rotation::{self, Last},
        siblings::siblings,
    },
    lines::Line,
};

impl Follower {
    /// The current file was emptied or overwritten. What was copied away before has what came since
    /// the last look.
    pub(super) fn replaced(
        &mut self,
        now: Instant,
        owned: &HashSet<FileId>,
        each: impl FnMut(Line<'_>, u64),
    ) {
        let Some(mut current) = self.current.take() else {
            return;
        };
        let position = current.position();
        let copy = rotation::find_copy(&self.real, &position, &self.known(owned), &self.text);
        let mut last = Last::from(position);
        match copy {
            // What is held of the last line is in the copy as well.
            Some((copy, path)) => {
                last = Last::from(copy.position());
                match copy.has_more() {
                    true => self.put_to_old(copy, path, now),
                    false => self.retire(copy.position()),
                }
            }
            None => current.finish(now, each),
        }
        current.rewind();
        let since = self.copied.unwrap_or(last);
        self.copied = Some(last);
        self.read_what_came_between(&since, Some(&current), owned, now);
        self.current = Some(current);
    }

    /// Nothing of the file was given out yet, and something was done to it: all that was written may
    /// have been copied away and truncated, before what was fetched now was written. True when that
    /// is so.
    pub(super) fn was_copied_unread(
        &mut self,
        fetched: bool,
        owned: &HashSet<FileId>,
        now: Instant,
    ) -> bool {
        let Some(last) = self.copied else {
            return false;
        };
        let Some(current) = self.current.take_if(|current| current.is_unread()) else {
            return false;
        };
        let before = self.old.len();
        let stamp = current.stamp();
        if fetched || self.looked != stamp {
            self.looked = stamp;
            self.read_what_came_between(&last, Some(&current), owned, now);
        }
        // What was a copy of the file may be all that is left of it by now.
        let changed = current.stamp() != stamp;
        self.current = Some(current);
        changed || self.old.len() > before
    }

    /// A file may be written, copied and truncated before anything of it is read.
    pub(super) fn expect_copies(&mut self) {
        self.copied = None;
        if self.current.as_ref().is_some_and(OpenFile::is_unread) {
            let old = self.old.back().map(|rotated| rotated.file.position());
            let last = old.or_else(|| self.finished.back().copied());
            self.copied = Some(last.map_or(Last::nothing(), Last::from));
            if last.is_none() && self.absent.is_none() {
                self.know_what_is_beside();
            }
        }
    }

    /// What is beside the file now is not new.
    pub(super) fn know_what_is_beside(&mut self) {
        let beside = siblings(&self.real).readable;
        let known = beside
            .iter()
            .filter_map(|sibling| OpenFile::open(&sibling.path, 0, &self.text).ok());
        self.before = known.filter_map(|file| file.end().ok()).collect();
    }
}
