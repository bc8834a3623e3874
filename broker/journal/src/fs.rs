//! The file system as the journal uses it: a seam, so that tests inject short writes, ENOSPC,
//! failed syncs and power loss.

pub trait Fs: Send + Sync { /* open, create, list, remove, rename, sync_dir, free space ... */ }
/// The real one.
pub struct RealFs;
impl Fs for RealFs {}
