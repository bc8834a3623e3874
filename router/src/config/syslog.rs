//! What an operator may set of a syslog server.

use serde::{Deserialize, Serialize};

use super::remote::check_timeout;
use super::{ConfigError, TlsKeys};
use crate::destinations::address::Address;

/// Ways to reach a syslog server, and their usual ports (RFC 5426, RFC 6587, RFC 5425).
pub(crate) const SYSLOG_SCHEMES: [(&str, u16); 3] = [("udp", 514), ("tcp", 514), ("tls", 6514)];

/// Messages of RFC 5424 to a syslog server, see `destinations/syslog`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyslogConfig {
    /// `udp://HOST[:PORT]`, `tcp://…` or `tls://…`; ports 514, 514 and 6514. Only over TCP and TLS can
    /// be known whether anything arrives.
    pub server: String,
    /// The facility of every message.
    #[serde(default)]
    pub facility: Facility,
    /// The private enterprise number in the names of structured data, `thinglog@32473`; the default is
    /// the number of examples (RFC 5612).
    #[serde(default = "usual_enterprise")]
    pub enterprise: u32,
    /// Most bytes of a message; what is longer is cut and says so. 2,048 over UDP, else 8,192: what
    /// servers take at least, and usually.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_message_bytes: Option<usize>,
    /// Over TCP and TLS: a request has a connection of its own, and counts as delivered when the server
    /// has read it to its end and closed the connection. Without it what has been handed to the
    /// system counts, and is lost if the server ends before it has read it.
    #[serde(default = "super::remote::yes")]
    pub confirm: bool,
    /// For `tls`.
    #[serde(default)]
    pub tls: TlsKeys,
    /// Longest wait for a connection and for what is sent to be taken, milliseconds; 10,000.
    #[serde(default = "super::remote::ten_seconds")]
    pub timeout_ms: u64,
}

fn usual_enterprise() -> u32 {
    32_473
}

/// A facility of RFC 5424 table 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Facility {
    Kern = 0,
    #[default]
    User = 1,
    Mail = 2,
    Daemon = 3,
    Auth = 4,
    Syslog = 5,
    Lpr = 6,
    News = 7,
    Uucp = 8,
    Cron = 9,
    Authpriv = 10,
    Ftp = 11,
    Local0 = 16,
    Local1 = 17,
    Local2 = 18,
    Local3 = 19,
    Local4 = 20,
    Local5 = 21,
    Local6 = 22,
    Local7 = 23,
}

/// What every receiver takes (RFC 5424 section 6.1).
const LEAST_BYTES: usize = 480;
/// Largest payload of a datagram over IPv4.
const MOST_UDP: usize = 65_507;
/// A request has to have room for it.
const MOST: usize = 512 << 10;

impl SyslogConfig {
    /// Most bytes of a message.
    pub(crate) fn most_bytes(&self) -> usize {
        let usual = if self.is_udp() { 2048 } else { 8192 };
        self.max_message_bytes.unwrap_or(usual)
    }

    /// Whether messages are datagrams.
    pub(crate) fn is_udp(&self) -> bool {
        self.server.starts_with("udp:")
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let address = Address::parse(&self.server, &SYSLOG_SCHEMES)
            .map_err(|reason| ConfigError::new("server", reason))?;
        match address.scheme {
            "tls" => self.tls.validate()?,
            _ => self.tls.refuse("tls")?,
        }
        let most = if self.is_udp() { MOST_UDP } else { MOST };
        if !(LEAST_BYTES..=most).contains(&self.most_bytes()) {
            let reason = format!("must be {LEAST_BYTES} to {most}");
            return Err(ConfigError::new("max_message_bytes", reason));
        }
        check_timeout(self.timeout_ms, 1)?;
        Ok(())
    }
}
