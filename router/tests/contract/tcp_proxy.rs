//! Stands between a client and a real server of any protocol over TCP: passes bytes on, and makes
//! connections fail on request.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::common::free_port;
use crate::harness::Fault;

/// A proxy on a port of its own.
pub(crate) struct TcpProxy {
    pub(crate) address: SocketAddr,
    server: u16,
    /// What a client sends when a fault is due; `None`: with the connection.
    trigger: Option<&'static [u8]>,
    /// For what comes next.
    faults: Arc<Mutex<VecDeque<Fault>>>,
    task: Option<JoinHandle<()>>,
}

impl TcpProxy {
    pub(crate) async fn start(server: u16) -> TcpProxy {
        TcpProxy::start_with(server, None).await
    }

    /// Faults come with the next piece of a connection that has `trigger` in it.
    pub(crate) async fn start_with(server: u16, trigger: Option<&'static [u8]>) -> TcpProxy {
        let mut proxy = TcpProxy {
            address: ([127, 0, 0, 1], free_port()).into(),
            server,
            trigger,
            faults: Arc::default(),
            task: None,
        };
        proxy.listen().await;
        proxy
    }

    pub(crate) async fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let (server, trigger, faults) = (self.server, self.trigger, Arc::clone(&self.faults));
        self.task = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (server, faults) = (("127.0.0.1", server), Arc::clone(&faults));
                connections.spawn(async move {
                    let passing = match trigger {
                        None => whole(client, server, &faults).await,
                        Some(trigger) => pieces(client, server, &faults, trigger).await,
                    };
                    // However a connection ends, it ends.
                    drop(passing);
                });
            }
        }));
    }

    /// Ends every connection and listens no more.
    pub(crate) async fn close(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// Makes the next connection fail, or the next piece with the trigger.
    pub(crate) fn fail(&self, fault: Fault) {
        self.faults.lock().push_back(fault);
    }
}

type Faults = Mutex<VecDeque<Fault>>;

/// A connection that fails at once, or not at all.
async fn whole(mut client: TcpStream, server: (&str, u16), faults: &Faults) -> std::io::Result<()> {
    let fault = faults.lock().pop_front();
    if let Some(fault) = fault {
        return fail(&mut client, fault).await;
    }
    let mut server = TcpStream::connect(server).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// A connection that fails with a piece that has the trigger in it.
async fn pieces(
    mut client: TcpStream,
    server: (&str, u16),
    faults: &Faults,
    trigger: &[u8],
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    let (mut up, mut down) = (Vec::new(), Vec::new());
    loop {
        tokio::select! {
            read = client.read_buf(&mut up) => {
                if read? == 0 {
                    return Ok(());
                }
                let has = up.windows(trigger.len()).any(|window| window == trigger);
                let fault = if has { faults.lock().pop_front() } else { None };
                if let Some(fault) = fault {
                    return fail(&mut client, fault).await;
                }
                server.write_all(&up).await?;
                up.clear();
            }
            read = server.read_buf(&mut down) => {
                if read? == 0 {
                    return Ok(());
                }
                client.write_all(&down).await?;
                down.clear();
            }
        }
    }
}

async fn fail(client: &mut TcpStream, fault: Fault) -> std::io::Result<()> {
    match fault {
        Fault::Hang => std::future::pending().await,
        Fault::Reset => {
            let mut buffer = Vec::new();
            client.read_buf(&mut buffer).await?;
        }
        _ => {}
    }
    reset(client);
    Ok(())
}

fn reset(client: &TcpStream) {
    let linger = Some(Duration::ZERO);
    rustix::net::sockopt::set_socket_linger(client, linger).unwrap();
}
