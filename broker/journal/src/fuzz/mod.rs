//! Fuzz targets of the journal, and the runner that ordinary tests give theirs: seeds from files,
//! changed by chance, for a bounded time. The same targets run under a coverage-guided fuzzer.

mod recovery;
mod runner;

pub use recovery::recovery;
pub use runner::run;
