//! Connections to servers: the router's own broker, and destinations that are not spoken to in HTTP.

pub(crate) mod address;
pub(crate) mod tls;
pub(crate) mod wire;
