//! Who is at the other end of a connection, as far as the transport knows.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

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

/// Whom an address counts as, where addresses are counted: one customer of an IPv6 network has a /64 at
/// least.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
    }
}

/// What carries MQTT packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Plain TCP.
    Tcp,
    /// TLS.
    Tls,
    /// WebSocket, without TLS.
    WebSocket,
    /// WebSocket over TLS.
    SecureWebSocket,
}

impl Transport {
    /// Whether nobody on the way can read along.
    pub const fn is_encrypted(self) -> bool {
        matches!(self, Transport::Tls | Transport::SecureWebSocket)
    }

    /// Scheme of the URL that clients connect to.
    pub const fn scheme(self) -> &'static str {
        match self {
            Transport::Tcp => "mqtt",
            Transport::Tls => "mqtts",
            Transport::WebSocket => "ws",
            Transport::SecureWebSocket => "wss",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
            Transport::WebSocket => "WebSocket",
            Transport::SecureWebSocket => "secure WebSocket",
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {}", self.address, self.transport)?;
        match &self.certificate {
            Some(name) => write!(f, " with the certificate of {name}"),
            None => Ok(()),
        }
    }
}
