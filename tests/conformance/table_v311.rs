//! Rows of version 311 to be filled.
use crate::table::Row;
pub const ROWS: &[Row] = &[];
