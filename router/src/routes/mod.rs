//! Which events go where, and in what form.

pub mod template;
