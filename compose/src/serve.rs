//! `up`, `broker` and `router`: puts the parts together and runs them.

use std::{
    io::IsTerminal,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, anyhow};
use parking_lot::Mutex;
use prometheus::Registry;
use thinglog_broker::{
    Broker, StartError, Transport,
    access::{FileError, Logins, Role},
};
use thinglog_router::{
    BuildError, Reloaded, Reloader, Router, config::Endpoint, health::Health,
    http::authenticate::Authenticate,
};
use thinglog_schemas::Topics;
use tracing::{error, info, warn};

use crate::{
    banner::Banner,
    check, cli,
    config::{self, Loaded, reachable},
    demo::{self, OwnLog},
    load, load_to_route, logging, login, mention,
    monitor::{Monitor, watch},
    sign_in::SignIn,
    supervise::{BROKER, MONITOR, Outcome, ROUTER, Stage, Supervisor},
};

/// Broker and router in one process.
pub(crate) fn up(file: Option<&Path>, args: &cli::Up) -> anyhow::Result<ExitCode> {
    let loaded = load_to_route(file, args.run.insecure)?;
    let own = OwnLog::default();
    logging::init(args.demo.then(|| own.clone()))?;
    run(
        async |supervisor, registry| {
            let logins = |broker: &Broker| {
                let router = broker.login_for("router", Role::Router);
                let demo = args.demo.then(|| demo::logins(broker));
                (router, demo, (broker.status(), broker.logins()))
            };
            let (mqtt, others, (login, demo, (status, logins))) =
                start_broker(supervisor, &loaded, registry, logins).await?;
            let mqtt = reachable(mqtt);
            let mut router = loaded.config.router.clone();
            if !loaded.router_broker_given {
                router.broker.address = mqtt.to_string();
            }
            log_in(&mut router.broker, mqtt, login);
            // The broker's reload reads the users again for both.
            let sign_in = sign_in(supervisor, &router, || Ok(logins))?;
            let dashboard = router.http.as_ref().is_some_and(|http| http.dashboard);
            let (http, health) = start_router(
                supervisor,
                router,
                registry,
                sign_in,
                again(file, &args.run, &loaded),
            )?;
            let stop = supervisor.token(Stage::Router);
            supervisor.spawn(MONITOR, watch(health.part("broker"), status, stop));
            let config = &loaded.config.broker;
            let data = loaded.config.router.data.as_path();
            let root = &config.root;
            let banner = Banner {
                mqtt,
                others: &others,
                http,
                dashboard,
                data,
                root,
                logins: config.auth.is_on(),
                demo: args.demo,
            };
            banner.print();
            if let Some(logins) = demo {
                demo::start(supervisor, (mqtt, root), logins, own, banner.hints())?;
            }
            Ok(())
        },
        &loaded,
    )
}

/// The router of this process is let in by the broker of this process without an operator's doing,
/// unless the operator gave it a login of its own.
fn log_in(broker: &mut Endpoint, own: SocketAddr, made: Option<(String, String)>) {
    let is_own = broker.reach().is_ok_and(|reach| {
        let is_here = reach.host.parse() == Ok(own.ip())
            || own.ip().is_loopback() && reach.host == "localhost";
        is_here && reach.port == own.port()
    });
    if let (None, Some((username, password))) = (&broker.username, made.filter(|_| is_own)) {
        broker.username = Some(username);
        broker.password = Some(password);
    }
}

/// The broker alone.
pub(crate) fn broker(file: Option<&Path>, args: &cli::Run) -> anyhow::Result<ExitCode> {
    let loaded = load(file, args.insecure)?;
    logging::init(None::<OwnLog>)?;
    run(
        async |supervisor, registry| {
            let (_, _, status) =
                start_broker(supervisor, &loaded, registry, Broker::status).await?;
            if let Some(monitor) = Monitor::bind(&loaded.config.monitor, registry, status)? {
                supervisor.spawn(MONITOR, monitor.run(supervisor.token(Stage::Router)));
            }
            Ok(())
        },
        &loaded,
    )
}

/// The router alone.
pub(crate) fn router(file: Option<&Path>, args: &cli::Run) -> anyhow::Result<ExitCode> {
    let loaded = load_to_route(file, args.insecure)?;
    logging::init(None::<OwnLog>)?;
    run(
        async |supervisor, registry| {
            let mut router = loaded.config.router.clone();
            router.broker = loaded.broker();
            if router.broker.username.is_none()
                && let Some((user, password)) = login::of_environment()?
            {
                (router.broker.username, router.broker.password) = (Some(user), Some(password));
            }
            let auth = &loaded.config.broker.auth;
            let topics = Topics::new(&router.root)?;
            let mut own = None;
            let logins = || Ok(own.insert(Logins::open(auth, &topics)?).clone());
            let sign_in = sign_in(supervisor, &router, logins)?;
            if let Some(logins) = own {
                supervisor.reload_on_hangup(move || {
                    let errors = logins.reload().err().into_iter();
                    errors.map(|error| error.to_string()).collect()
                });
            }
            start_router(
                supervisor,
                router,
                registry,
                sign_in,
                again(file, args, &loaded),
            )
            .map(drop)
        },
        &loaded,
    )
}

/// How the configuration is read again on SIGHUP.
struct Again {
    file: Option<PathBuf>,
    insecure: bool,
    /// What was read last.
    loaded: Mutex<Loaded>,
}

fn again(file: Option<&Path>, args: &cli::Run, loaded: &Loaded) -> Again {
    Again {
        file: file.map(Path::to_owned),
        insecure: args.insecure,
        loaded: Mutex::new(loaded.clone()),
    }
}

impl Again {
    /// Takes up destinations, routes and alerts; gives why not.
    fn reload(&self, router: &Reloader) -> Vec<String> {
        let stays = |error: &dyn std::fmt::Display| {
            vec![format!(
                "destinations, routes and alerts stay as they were: {error}"
            )]
        };
        let loaded = match config::load(self.file.as_deref(), self.insecure) {
            Ok(loaded) => loaded,
            Err(errors) => return stays(&check::complaint(&errors).trim_end()),
        };
        let reloaded = match router.reload(loaded.config.router.clone()) {
            Ok(reloaded) => reloaded,
            Err(error) => return stays(&error),
        };
        if reloaded != Reloaded::default() {
            info!(added = ?reloaded.added, changed = ?reloaded.changed, removed = ?reloaded.removed,
                alerts = reloaded.alerts, "destinations and alerts taken up");
        }
        let mut before = self.loaded.lock();
        let keys = before.needs_restart(&loaded);
        if !keys.is_empty() {
            warn!(
                keys = keys.join(", "),
                "these have changed and take effect with a restart"
            );
        }
        // What waits for a restart is told each time.
        before.config.router.destinations = loaded.config.router.destinations;
        before.config.router.routes = loaded.config.router.routes;
        before.config.router.alerts = loaded.config.router.alerts;
        before.config.router.receivers = loaded.config.router.receivers;
        Vec::new()
    }
}

/// Runs what `start` starts until it is over.
fn run(
    start: impl AsyncFnOnce(&mut Supervisor, &Registry) -> anyhow::Result<()>,
    loaded: &Loaded,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    match &loaded.file {
        Some(file) => info!(file = %file.display(), "configuration read"),
        None => info!("no configuration file; defaults and environment"),
    }
    loaded
        .warnings
        .iter()
        .for_each(|warning| warn!("{warning}"));
    let outcome = runtime.block_on(async {
        let mut supervisor = Supervisor::new().context("cannot watch for signals")?;
        if let Err(error) = start(&mut supervisor, &Registry::new()).await {
            // What did start is stopped as ever: it may have taken events already.
            supervisor.stop().await;
            return Err(error);
        }
        Ok(supervisor.run().await)
    })?;
    // What was left behind must not hold up the end.
    runtime.shutdown_background();
    if std::io::stdout().is_terminal() && outcome == Outcome::Clean {
        mention("thinglog: everything is written down; good bye\n");
    }
    Ok(if outcome == Outcome::Clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Starts the broker; gives where it listens for plain MQTT, and for the rest, and what `prepare` makes
/// of it before.
async fn start_broker<T>(
    supervisor: &mut Supervisor,
    loaded: &Loaded,
    registry: &Registry,
    prepare: impl FnOnce(&Broker) -> T,
) -> anyhow::Result<(SocketAddr, Vec<(Transport, SocketAddr)>, T)> {
    let bound = Broker::bind(loaded.config.broker.clone(), registry).await;
    let broker = bound.map_err(|error| match &error {
        StartError::Bind { key, address, .. } => {
            let key = key.replace('.', "_").to_ascii_uppercase();
            let variable = format!("THINGLOG_BROKER_{key}");
            anyhow!("{error}; {}", elsewhere(*address, &variable))
        }
        // These errors tell their causes themselves.
        _ => anyhow!("{error}"),
    })?;
    let address = broker.address();
    let others = broker.listeners().skip(1).collect();
    let prepared = prepare(&broker);
    let reload = broker.reload();
    supervisor.reload_on_hangup(move || {
        let errors = reload.reload().into_iter();
        errors.map(|error| error.to_string()).collect()
    });
    supervisor.spawn(BROKER, broker.run(supervisor.token(Stage::Broker)));
    Ok((address, others, prepared))
}

/// What knows who may call the router's HTTP, if anybody is asked; its files are read again on SIGHUP.
fn sign_in(
    supervisor: &mut Supervisor,
    config: &thinglog_router::Config,
    logins: impl FnOnce() -> Result<Logins, FileError>,
) -> anyhow::Result<Option<Arc<SignIn>>> {
    let Some(http) = config.http.as_ref().filter(|http| http.sign_in) else {
        return Ok(None);
    };
    let sign_in = SignIn::open(logins()?, http.access_keys.clone())?;
    let again = Arc::clone(&sign_in);
    supervisor.reload_on_hangup(move || {
        let errors = again.reload().err().into_iter();
        errors
            .map(|error| format!("who may call HTTP stays as it was: {error}"))
            .collect()
    });
    Ok(Some(sign_in))
}

/// Where its HTTP listens, if it has any, and what that tells of its health.
fn start_router(
    supervisor: &mut Supervisor,
    config: thinglog_router::Config,
    registry: &Registry,
    sign_in: Option<Arc<SignIn>>,
    again: Again,
) -> anyhow::Result<(Option<SocketAddr>, Health)> {
    let doorkeeper = sign_in.map(|sign_in| sign_in as Arc<dyn Authenticate>);
    let router =
        Router::build_with(config, registry, doorkeeper).map_err(|error| match &error {
            BuildError::Http { address, .. } => {
                let variable = "THINGLOG_ROUTER_HTTP_ADDRESS";
                anyhow!("{error}; {}", elsewhere(*address, variable))
            }
            _ => anyhow!("{error}"),
        })?;
    let (address, health) = (router.http_address(), router.health());
    let reloader = router.reloader();
    supervisor.reload_on_hangup(move || again.reload(&reloader));
    let running = router.run(supervisor.token(Stage::Router));
    supervisor.spawn(ROUTER, async move {
        if let Err(error) = running.await {
            error!("the router failed: {error}");
        }
    });
    Ok((address, health))
}

/// What to do when an address cannot be had; taken by another program, mostly.
fn elsewhere(address: SocketAddr, variable: &str) -> String {
    let other = SocketAddr::new(address.ip(), address.port().wrapping_add(1).max(1024));
    format!("is another program listening there? To use another address: {variable}={other}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_reached_somewhere() {
        let cases = [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:2", "[::1]:2"),
            ("192.0.2.1:3", "192.0.2.1:3"),
        ];
        for (listens, expected) in cases {
            assert_eq!(
                reachable(listens.parse().unwrap()),
                expected.parse().unwrap()
            );
        }
    }
}
