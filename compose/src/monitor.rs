//! `/metrics`, `/healthz` and `/readyz` of a broker that runs alone; beside a router they are the
//! router's.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::anyhow;
use prometheus::Registry;
use serde::Deserialize;
use thinglog_broker::Status;
use thinglog_router::{
    config::HttpConfig,
    health::{Health, Part},
    http::Http,
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Where it is served unless told otherwise.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);
/// How often the broker is asked how it does.
const LOOK: Duration = Duration::from_secs(1);

/// The HTTP of `thinglog broker`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Address to bind (default 127.0.0.1:8081, left out if that is taken); port 0 takes a free one.
    address: Option<SocketAddr>,
    /// Host names (without port) that requests may carry besides the loopback ones.
    hosts: Vec<String>,
    /// Serve on an address other than loopback although nobody has to log in.
    insecure: bool,
}

impl Config {
    /// The address that was chosen.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Key and reason if it cannot be used.
    pub(crate) fn validate(&self) -> Result<(), (&'static str, String)> {
        let address = self.address.unwrap_or(ADDRESS);
        if address.ip().to_canonical().is_loopback() || self.insecure {
            return Ok(());
        }
        let reason = format!(
            "{address} can be reached from other machines and HTTP has no login; bind 127.0.0.1, or \
             set monitor.insecure = true to accept that"
        );
        Err(("address", reason))
    }
}

/// A bound listener, not yet serving.
pub(crate) struct Monitor {
    http: Http,
    part: Part,
    status: Status,
}

impl Monitor {
    /// Binds. A default address that is taken leaves the broker without, for nobody asked for it.
    pub(crate) fn bind(
        config: &Config,
        registry: &Registry,
        status: Status,
    ) -> anyhow::Result<Option<Monitor>> {
        let wanted = HttpConfig {
            address: config.address.unwrap_or(ADDRESS),
            hosts: config.hosts.clone(),
            insecure: config.insecure,
            ..HttpConfig::default()
        };
        let health = Health::new();
        let part = health.part("broker");
        match Http::bind(&wanted, registry.clone(), health, None) {
            Ok(http) => Ok(Some(Monitor { http, part, status })),
            Err(error) if config.address.is_none() => {
                let address = wanted.address;
                warn!(%address, %error, "no metrics are served; monitor.address says where else");
                Ok(None)
            }
            Err(error) => {
                let address = wanted.address;
                Err(anyhow!(
                    "cannot serve metrics on {address}: {error} (monitor.address says where)"
                ))
            }
        }
    }

    /// Serves until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        if let Ok(address) = self.http.address() {
            info!(%address, "metrics at http://{address}/metrics");
        }
        tokio::select! {
            served = self.http.run(stop.clone()) => if let Err(error) = served {
                error!(%error, "metrics are no longer served");
            },
            () = watch(self.part, self.status, stop) => {}
        }
    }
}

/// Tells `/readyz` how the broker does, until `stop`.
pub(crate) async fn watch(part: Part, status: Status, stop: CancellationToken) {
    let mut due = interval(LOOK);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = due.tick() => match status.trouble() {
                None => part.ready(),
                Some(trouble) => part.not_ready(trouble),
            },
            () = stop.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_see_metrics_only_if_told_so() {
        let config = |address: &str, insecure| Config {
            address: Some(address.parse().unwrap()),
            insecure,
            ..Config::default()
        };
        assert!(Config::default().validate().is_ok());
        assert!(config("[::1]:1", false).validate().is_ok());
        assert!(config("0.0.0.0:1", true).validate().is_ok());
        let (key, reason) = config("0.0.0.0:1", false).validate().unwrap_err();
        assert_eq!(key, "address");
        assert!(reason.contains("monitor.insecure"), "{reason}");
    }
}
