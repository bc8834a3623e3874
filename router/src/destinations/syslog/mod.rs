//! Events as messages of RFC 5424 to a syslog server, over UDP (RFC 5426), TCP (octet counting,
//! RFC 6587 section 3.4.1) or TLS (RFC 5425).
//!
//! ```text
//! 189 <14>1 2026-01-02T03:04:05.678901Z lamp-7 nginx - - [thinglog@32473 id="lamp-7/8d3f…/0"
//!     severity="9"][attributes@32473 status="502"] upstream is gone
//! ```
//!
//! PRI is the facility and the severity of RFC 5424 table 2, HOSTNAME the device, APP-NAME the source
//! (48 characters at most; then `source` below `thinglog` has all of it). Structured data holds the id,
//! the number of OpenTelemetry's severity, and the attributes: values that are no text as JSON, names
//! without the characters that section 6.3.3 forbids.
//!
//! Syslog knows no acknowledgement. Over UDP an event counts as delivered when it has been sent; only
//! a server that is away on a machine that is there is noticed. Over TCP and TLS a request goes over a
//! connection of its own; the end is shown to the server (FIN), which closes its side when it has
//! read everything. Only then the events count as delivered. That says nothing of what the server does
//! with them afterwards, and a server that closes a connection by itself, in the instant before it
//! would have read, is believed. Order per device is kept; what is sent again arrives again, `id` tells.

mod encode;
mod sink;

use std::time::Duration;

use crate::config::{SYSLOG_SCHEMES, SyslogConfig};
use crate::net::address::Address;
use crate::net::wire::Server;
use encode::SyslogEncoder;
use sink::{SyslogSink, Transport};

/// Encoder and sink of a configuration; the error names key and reason.
pub(crate) fn build(config: &SyslogConfig) -> Result<(SyslogEncoder, SyslogSink), String> {
    let address = Address::parse(&config.server, &SYSLOG_SCHEMES);
    let address = address.map_err(|reason| format!("server: {reason}"))?;
    let within = Duration::from_millis(config.timeout_ms);
    let encoder = SyslogEncoder {
        facility: config.facility as u8,
        enterprise: config.enterprise,
        most: config.most_bytes(),
        is_counted: !config.is_udp(),
    };
    let transport = match address.scheme {
        "udp" => Transport::Datagrams(address),
        scheme => {
            let tls = (scheme == "tls").then_some(&config.tls);
            let server = Server::new(address, tls, within)?;
            match config.confirm {
                true => Transport::Confirmed(server),
                false => Transport::kept(server),
            }
        }
    };
    Ok((encoder, SyslogSink { transport, within }))
}

#[cfg(test)]
#[path = "syslog_tests.rs"]
mod tests;
