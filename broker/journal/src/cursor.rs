//! What a consumer has finished: a position and the ranges above it. Pure; where it is kept is the
//! owner's affair (`encode`/`decode`).

use std::ops::Range;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor { /* position, ranges above it */ }
impl Cursor {
    pub fn at(position: u64) -> Cursor { todo!() }
    /// Everything below is done.
    pub fn position(&self) -> u64 { todo!() }
    pub fn is_done(&self, offset: u64) -> bool { todo!() }
    /// Marks `[range)` done; merges and moves the position when it can.
    pub fn done(&mut self, range: Range<u64>) { todo!() }
    pub fn ranges(&self) -> usize { todo!() }
    pub fn encode(&self) -> Vec<u8> { todo!() }
    pub fn decode(bytes: &[u8]) -> Option<Cursor> { todo!() }
}
