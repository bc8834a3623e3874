//! Stands between a client and a real server of any protocol over TCP: passes bytes on, and makes
//! connections fail on request.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::common::free_port;
use crate::harness::Fault;

/// A proxy on a port of its own.
pub(crate) struct TcpProxy {
    pub(crate) address: SocketAddr,
    server: u16,
    /// For the next connections.
    faults: Arc<Mutex<VecDeque<Fault>>>,
    task: Option<JoinHandle<()>>,
}

impl TcpProxy {
    pub(crate) async fn start(server: u16) -> TcpProxy {
        let mut proxy = TcpProxy {
            address: ([127, 0, 0, 1], free_port()).into(),
            server,
            faults: Arc::default(),
            task: None,
        };
        proxy.listen().await;
        proxy
    }

    pub(crate) async fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let (server, faults) = (self.server, Arc::clone(&self.faults));
        self.task = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let fault = faults.lock().pop_front();
                connections.spawn(connection(client, server, fault));
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

    /// Makes one of the next connections fail.
    pub(crate) fn fail(&self, fault: Fault) {
        self.faults.lock().push_back(fault);
    }
}

async fn connection(mut client: TcpStream, server: u16, fault: Option<Fault>) {
    let mut buffer = Vec::new();
    match fault {
        None => {
            if let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await {
                // However a connection ends, it ends.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        }
        Some(Fault::Hang) => std::future::pending().await,
        // Closed with bytes unread, or with a linger of none, a connection is reset.
        Some(Fault::Reset) => {
            let _ = client.read_buf(&mut buffer).await;
            reset(&client);
        }
        Some(_) => reset(&client),
    }
}

fn reset(client: &TcpStream) {
    let linger = Some(Duration::ZERO);
    rustix::net::sockopt::set_socket_linger(client, linger).unwrap();
}
