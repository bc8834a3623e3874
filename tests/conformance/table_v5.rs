//! Rows of version 5 to be filled.
use crate::table::Row;
pub const ROWS: &[Row] = &[];
