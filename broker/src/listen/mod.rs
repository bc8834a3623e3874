//! The broker's front doors. Every listener accepts in a task of its own and every connection is
//! prepared in a task of its own, so that no handshake holds up another client. All listeners share
//! one [`Gate`]: one limit of connections, one of handshakes.

mod config;
mod guests;
mod lobby;
mod rules;
mod tls;
mod upgrade;
mod websocket;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub(crate) use config::Place;
pub use config::{ClientCertificates, TlsConfig, WebSocketConfig};
use guests::Guests;
use lobby::Lobby;
pub(crate) use lobby::Waiting;
use parking_lot::Mutex;
pub(crate) use rules::Rules;
pub(crate) use tls::Tls;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout_at},
};
use tokio_rustls::server::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};
use websocket::WebSocket;

use crate::{
    clock, connection,
    hub::Hub,
    peer::{Peer, Transport},
    session::ConnectionId,
    telemetry::Whom,
};

/// Why a connection that has not sent CONNECT had to go before its time.
pub(crate) const CROWD: &str = "too many connections without CONNECT";

/// A bound listener.
pub(crate) struct Listener {
    pub(crate) transport: Transport,
    pub(crate) address: SocketAddr,
    socket: TcpListener,
}

impl Listener {
    pub(crate) async fn bind(place: &Place) -> std::io::Result<Listener> {
        let socket = TcpListener::bind(place.address).await?;
        Ok(Listener {
            transport: place.transport,
            address: socket.local_addr()?,
            socket,
        })
    }
}

/// What all listeners share: who may come in, and how.
pub(crate) struct Gate {
    hub: Arc<Hub>,
    tls: Option<Arc<Tls>>,
    rules: Rules,
    places: Arc<Semaphore>,
    guests: Arc<Mutex<Guests>>,
    lobby: Arc<Lobby>,
    handshakes: Semaphore,
    next: AtomicU64,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

/// Room for a connection, until it is dropped.
struct Admission {
    _place: OwnedSemaphorePermit,
    guests: Arc<Mutex<Guests>>,
    address: IpAddr,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.guests.lock().leave(self.address);
    }
}

/// A connection on its way from the listener to its service.
struct Arrival {
    peer: Peer,
    connection: ConnectionId,
    /// When handshakes have to be over.
    deadline: Instant,
    waiting: Waiting,
    _admission: Admission,
}

impl Gate {
    pub(crate) fn new(
        hub: Arc<Hub>,
        tls: Option<Arc<Tls>>,
        rules: Rules,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Gate {
        Gate {
            tls,
            rules,
            places: Arc::new(Semaphore::new(hub.config.limits.connections)),
            guests: Arc::new(Mutex::new(Guests::new(&hub.config.limits))),
            lobby: Arc::new(Lobby::new(hub.config.limits.unconnected)),
            handshakes: Semaphore::new(hub.config.limits.handshakes),
            next: AtomicU64::new(1),
            tasks,
            shutdown,
            hub,
        }
    }

    /// Accepts until shutdown.
    pub(crate) async fn accept(self: Arc<Gate>, listener: Listener) {
        let Listener {
            transport,
            address,
            socket,
        } = listener;
        info!(%transport, %address, "broker listening");
        if !address.ip().is_loopback() && !transport.is_encrypted() {
            warn!(%transport, %address, "what clients send here crosses the network readable, passwords included");
        }
        tokio::select! {
            () = self.accept_from(&socket, transport) => {}
            () = self.shutdown.cancelled() => {}
        }
    }

    async fn accept_from(self: &Arc<Gate>, socket: &TcpListener, transport: Transport) {
        loop {
            match socket.accept().await {
                Ok((stream, address)) => self.welcome(stream, address.ip(), transport),
                Err(error) => {
                    // Out of descriptors, most likely: the next attempt may do better.
                    warn!(%error, "cannot accept a connection");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Whether there is room for another connection; the reason if not.
    fn admit(&self, address: IpAddr) -> Result<Admission, &'static str> {
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| "too many connections")?;
        self.guests.lock().enter(address, clock::now())?;
        Ok(Admission {
            _place: place,
            guests: self.guests.clone(),
            address,
        })
    }

    /// Gives a connection its task. Each transport has its own kind of task, so that plain TCP does
    /// not pay for the state of the others.
    fn welcome(self: &Arc<Gate>, stream: TcpStream, address: IpAddr, transport: Transport) {
        let peer = Peer {
            address,
            certificate: None,
            transport,
        };
        let admission = match self.admit(address) {
            Ok(admission) => admission,
            Err(reason) => return self.hub.telemetry.refused(Whom::at(&peer), reason),
        };
        let _ = stream.set_nodelay(true);
        // A peer that vanished without a word holds its place only until the system notices.
        let _ = rustix::net::sockopt::set_socket_keepalive(&stream, true);
        let patience = Duration::from_secs(self.hub.config.limits.connect_seconds);
        let connection = self.next.fetch_add(1, Ordering::Relaxed);
        let arrival = Arrival {
            peer,
            connection,
            waiting: self.lobby.enter(connection),
            deadline: Instant::now() + patience,
            _admission: admission,
        };
        let gate = self.clone();
        match transport {
            Transport::Tcp => self.tasks.spawn(gate.serve(stream, arrival)),
            Transport::Tls => self.tasks.spawn(gate.serve_tls(stream, arrival)),
            Transport::WebSocket => self.tasks.spawn(gate.serve_websocket(stream, arrival)),
            Transport::SecureWebSocket => self
                .tasks
                .spawn(gate.serve_secure_websocket(stream, arrival)),
        };
    }

    async fn serve<S>(self: Arc<Gate>, stream: S, arrival: Arrival)
    where
        S: AsyncRead + AsyncWrite + Send,
    {
        let Arrival {
            peer,
            connection,
            waiting,
            _admission,
            ..
        } = arrival;
        let connections = self.hub.telemetry.connection(peer.transport);
        connections.inc();
        connection::serve(
            self.hub.clone(),
            stream,
            (peer, waiting),
            connection,
            self.shutdown.clone(),
        )
        .await;
        connections.dec();
    }

    async fn serve_tls(self: Arc<Gate>, stream: TcpStream, mut arrival: Arrival) {
        if let Some(stream) = self.secure(stream, &mut arrival).await {
            self.serve(stream, arrival).await;
        }
    }

    async fn serve_websocket(self: Arc<Gate>, stream: TcpStream, arrival: Arrival) {
        if let Some(stream) = self.upgrade(stream, &arrival).await {
            self.serve(stream, arrival).await;
        }
    }

    async fn serve_secure_websocket(self: Arc<Gate>, stream: TcpStream, mut arrival: Arrival) {
        let Some(stream) = self.secure(stream, &mut arrival).await else {
            return;
        };
        if let Some(stream) = self.upgrade(stream, &arrival).await {
            self.serve(stream, arrival).await;
        }
    }

    /// Does the TLS handshake.
    async fn secure(
        &self,
        stream: TcpStream,
        arrival: &mut Arrival,
    ) -> Option<TlsStream<TcpStream>> {
        let tls = self.tls.as_ref()?;
        let handshake = async {
            // Who says nothing takes no place from those who do.
            stream.peek(&mut [0]).await.map_err(|_| None)?;
            let _place = self.handshakes.acquire().await.map_err(|_| None)?;
            tls.handshake(stream).await
        };
        let late = "TLS handshake not done in time";
        let (stream, certificate) = self.in_time(arrival, late, handshake).await?;
        arrival.peer.certificate = certificate;
        Some(stream)
    }

    /// Turns a stream of HTTP into one of MQTT.
    async fn upgrade<S>(&self, mut stream: S, arrival: &Arrival) -> Option<WebSocket<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let late = "WebSocket upgrade not done in time";
        let upgrade = upgrade::upgrade(&mut stream, &self.rules);
        self.in_time(arrival, late, upgrade).await?;
        Some(WebSocket::new(stream, self.hub.config.limits.packet_bytes))
    }

    /// Runs a step before MQTT: within the deadline, until shutdown. A failure that has a reason is
    /// counted and logged.
    async fn in_time<T>(
        &self,
        arrival: &Arrival,
        late: &'static str,
        step: impl Future<Output = Result<T, Option<&'static str>>>,
    ) -> Option<T> {
        let done = tokio::select! {
            done = timeout_at(arrival.deadline, step) => done,
            () = arrival.waiting.sent_away() => Ok(Err(Some(CROWD))),
            () = self.shutdown.cancelled() => return None,
        };
        match done.unwrap_or(Err(Some(late))) {
            Ok(done) => Some(done),
            Err(reason) => {
                if let Some(reason) = reason {
                    self.hub.telemetry.refused(Whom::at(&arrival.peer), reason);
                }
                None
            }
        }
    }
}
