//! Recent log events, kept compressed and indexed in files: appended, searched, counted, dropped when
//! they are old. It knows events and files; MQTT, HTTP and who may see what are others' business.
//!
//! Events arrive in batches and are appended to a *fresh* file, which is synced before anybody is told that
//! they are kept ([`Writer`]). A fresh file that is large enough is sealed in the background into
//! *segments*, sorted by device and time, with an index and, for each block, a filter of the words in it;
//! small segments become larger ones; what is too old, or for which there is no room, goes file by file
//! ([`Store::keep`]). All of them consist of the same *blocks* of up to 8,192 events in columns.
//!
//! A search ([`Store::search`], [`Store::count`]) takes the files that there are and is not disturbed by
//! what becomes of them meanwhile.
//!
//! **Order.** An event has a row number, by arrival, and counts as logged at the time of its device's clock
//! or when it was received, whichever is earlier: a clock that is ahead cannot hold the last place for
//! ever. Retention goes by the time of receipt alone.
//!
//! **Memory.** Sealing holds 32 MiB of events at a time, the index takes about 100 bytes for each block, and
//! a search takes its answer and one block.

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

#[cfg(test)]
mod store_tests;

pub use search::{Counts, DeviceCounts, Effort, Fleet, Found, Order, Page, Place, Search, Steps};
pub use store::{AgeOf, End, Options, Size, Store, Watch, Writer};
