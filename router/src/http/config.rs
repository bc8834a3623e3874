//! What an operator may set of HTTP: `[router.http]`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// Smallest body that must be taken: the largest document that the interfaces know.
const SMALLEST_BODY: usize = 64 << 10;

/// The HTTP listener: the dashboard, `/api`, AWS IoT's calls, `/metrics`, `/healthz` and `/readyz`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address to bind (default 127.0.0.1:8080); port 0 takes a free one.
    pub address: SocketAddr,
    /// Host names (without port) that requests may carry besides the loopback ones.
    pub hosts: Vec<String>,
    /// Serve on an address other than loopback although nobody has to sign in (default false).
    pub insecure: bool,
    /// Whether requests need a caller: Basic, Bearer or AWS Signature Version 4. `thinglog` turns it on
    /// when `[broker.auth]` names passwords, tokens or keys of an issuer, or `access_keys` is set, and
    /// nothing is said here. Without it only loopback is served, and everybody there may do everything.
    pub sign_in: bool,
    /// File of access keys for signed requests: `thinglog key add`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_keys: Option<PathBuf>,
    /// Whether `/metrics` is shown to who does not sign in (default: on a loopback address).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_metrics: Option<bool>,
    /// Whether the dashboard is served at `/` (default true, in builds that have it).
    pub dashboard: bool,
    /// Most connections, and so most requests at a time (default 256). One too many hears 503.
    pub connections: usize,
    /// Most connections of one address, loopback apart (default 64).
    pub connections_per_address: usize,
    /// Largest body of a request, bytes (default 1 MiB). A larger one hears 413.
    pub body_bytes: usize,
    /// Seconds that a request may take to arrive, and then to be answered (default 30).
    pub timeout_s: u64,
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            hosts: Vec::new(),
            insecure: false,
            sign_in: false,
            access_keys: None,
            open_metrics: None,
            dashboard: cfg!(feature = "dashboard"),
            connections: 256,
            connections_per_address: 64,
            body_bytes: 1 << 20,
            timeout_s: 30,
        }
    }
}

impl HttpConfig {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let wrong =
            |key: &str, reason: String| Err(ConfigError::new(format!("http.{key}"), reason));
        if !is_loopback(self.address.ip()) && !self.sign_in && !self.insecure {
            let reason = format!(
                "{} can be reached from other machines and nobody has to sign in. Make an access key \
                 (thinglog key add NAME --role admin) and name its file in http.access_keys, or give the \
                 broker passwords ([broker.auth]); or bind 127.0.0.1; or set http.insecure = true \
                 (--insecure) to accept that",
                self.address
            );
            return wrong("address", reason);
        }
        if self.access_keys.is_some() && !self.sign_in {
            let reason =
                "access keys count for nothing while sign_in is false; leave one of them out";
            return wrong("sign_in", reason.into());
        }
        if self.dashboard && !cfg!(feature = "dashboard") {
            let reason = "this build has no dashboard (feature dashboard)";
            return wrong("dashboard", reason.into());
        }
        for (key, value) in [
            ("connections", self.connections),
            ("connections_per_address", self.connections_per_address),
            (
                "timeout_s",
                usize::try_from(self.timeout_s).unwrap_or(usize::MAX),
            ),
        ] {
            if value == 0 {
                return wrong(key, "must be at least 1".into());
            }
        }
        if self.body_bytes < SMALLEST_BODY {
            let reason = format!("must be at least {SMALLEST_BODY}, so that any document fits");
            return wrong("body_bytes", reason);
        }
        Ok(())
    }

    /// Whether `/metrics` needs no caller.
    pub(crate) fn shows_metrics(&self) -> bool {
        !self.sign_in || self.open_metrics.unwrap_or(is_loopback(self.address.ip()))
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> HttpConfig {
        HttpConfig {
            address: address.parse().unwrap(),
            ..HttpConfig::default()
        }
    }

    #[test]
    fn an_address_beyond_loopback_needs_a_sign_in_or_the_word_insecure() {
        assert!(at("127.0.0.1:0").validate().is_ok());
        assert!(at("[::1]:0").validate().is_ok());
        let error = at("0.0.0.0:8080").validate().unwrap_err();
        for word in ["thinglog key add", "[broker.auth]", "http.insecure"] {
            assert!(error.reason.contains(word), "{error}");
        }
        for config in [
            HttpConfig {
                insecure: true,
                ..at("0.0.0.0:8080")
            },
            HttpConfig {
                sign_in: true,
                ..at("0.0.0.0:8080")
            },
        ] {
            assert!(config.validate().is_ok());
        }
    }

    #[test]
    fn keys_that_nobody_asks_for_are_refused() {
        let config = HttpConfig {
            access_keys: Some("keys".into()),
            ..at("127.0.0.1:0")
        };
        assert_eq!(config.validate().unwrap_err().key, "http.sign_in");
    }

    #[test]
    fn limits_of_nothing_are_refused_by_key() {
        let default = HttpConfig::default;
        for (key, config) in [
            (
                "http.connections",
                HttpConfig {
                    connections: 0,
                    ..default()
                },
            ),
            (
                "http.timeout_s",
                HttpConfig {
                    timeout_s: 0,
                    ..default()
                },
            ),
            (
                "http.body_bytes",
                HttpConfig {
                    body_bytes: 1,
                    ..default()
                },
            ),
        ] {
            assert_eq!(config.validate().unwrap_err().key, key);
        }
    }

    #[test]
    fn metrics_are_shown_to_everybody_on_loopback_only_unless_told_otherwise() {
        let signed = |address, open_metrics| HttpConfig {
            sign_in: true,
            open_metrics,
            ..at(address)
        };
        assert!(at("0.0.0.0:1").shows_metrics());
        assert!(signed("127.0.0.1:1", None).shows_metrics());
        assert!(!signed("127.0.0.1:1", Some(false)).shows_metrics());
        assert!(!signed("0.0.0.0:1", None).shows_metrics());
        assert!(signed("0.0.0.0:1", Some(true)).shows_metrics());
    }
}
