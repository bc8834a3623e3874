//! The store.
mod block;
mod filter;
mod fresh;
mod keep;
mod manifest;
mod merge;
mod part;
mod scan;
mod search;
mod segment;
mod store;
mod varint;

pub use search::{Counts, Effort, Fleet, Found, Order, Page, Place, Search};
pub use store::{End, Options, Size, Store, Watch, Writer};

#[cfg(test)]
mod store_tests;
