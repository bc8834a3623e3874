//! Destinations of a real installation: what operators do with them, one that is far behind, and a router
//! that is killed again and again.
#![allow(clippy::unwrap_used)]

mod archive;
mod behind;
mod killed;
mod operate;
mod service;
