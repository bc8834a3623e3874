//! Who is at the other end of a connection, as far as the transport knows.

use std::{fmt, net::IpAddr, sync::Arc};

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Where it connects from.
    pub(crate) address: IpAddr,
    /// Common name of its certificate, if it showed one and that was verified.
    pub(crate) certificate: Option<Arc<str>>,
    /// What carries its packets.
    pub(crate) transport: Transport,
}

/// What carries MQTT packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Transport {
    /// Plain TCP.
    Tcp,
}

impl Transport {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "TCP",
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {}", self.address, self.transport.name())?;
        match &self.certificate {
            Some(name) => write!(f, " with the certificate of {name}"),
            None => Ok(()),
        }
    }
}
