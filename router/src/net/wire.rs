//! Connections to servers that are not spoken to in HTTP: TCP, with TLS where the configuration says
//! so.

use std::fmt::{self, Debug, Display};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::address::Address;
use super::tls::{self, Trust};
use crate::config::TlsKeys;

/// A connection, whatever it is made of.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Debug + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Debug + Send + Unpin> Wire for T {}

/// Makes connections to one server.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    address: Address,
    /// With TLS.
    tls: Option<TlsKeys>,
    within: Duration,
}

impl Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { host, port, .. } = &self.address;
        match host.contains(':') {
            true => write!(f, "[{host}]:{port}"),
            false => write!(f, "{host}:{port}"),
        }
    }
}

impl Server {
    /// A server that has to accept a connection within this time. The files of `tls` are read once, to
    /// see that they can be; the error names key and reason.
    pub(crate) fn new(
        address: Address,
        tls: Option<&TlsKeys>,
        within: Duration,
    ) -> Result<Server, String> {
        if let Some(keys) = tls {
            if keys.insecure {
                tracing::warn!(
                    server = address.host,
                    "tls.insecure is on: any certificate is believed, so whoever is in between can \
                     read and change what is delivered"
                );
            }
            tls::config(Trust::of_tls(keys))?;
            server_name(keys, &address)?;
        }
        Ok(Server {
            address,
            tls: tls.cloned(),
            within,
        })
    }

    /// A new connection; the error names the server.
    pub(crate) async fn connect(&self) -> Result<Box<dyn Wire>, String> {
        let connected = match tokio::time::timeout(self.within, self.try_connect()).await {
            Ok(connected) => connected,
            Err(_) => Err(format!(
                "no connection within {} ms",
                self.within.as_millis()
            )),
        };
        connected.map_err(|reason| format!("{self}: {reason}"))
    }

    async fn try_connect(&self) -> Result<Box<dyn Wire>, String> {
        let text = |error: io::Error| error.to_string();
        let stream = self.reach().await.map_err(text)?;
        let Some((connector, name)) = self.security()? else {
            return Ok(Box::new(stream));
        };
        let stream = connector.connect(name, stream).await.map_err(text)?;
        Ok(Box::new(stream))
    }

    /// A connection in the clear, for protocols that agree on TLS in their own words.
    pub(crate) async fn reach(&self) -> io::Result<TcpStream> {
        let Address { host, port, .. } = &self.address;
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// What encrypts a connection, by the files as they are now, and the name that the server's
    /// certificate must have; nothing for a server that is spoken to in the clear.
    pub(crate) fn security(&self) -> Result<Option<(TlsConnector, ServerName<'static>)>, String> {
        let Some(keys) = &self.tls else {
            return Ok(None);
        };
        let connector = TlsConnector::from(Arc::new(tls::config(Trust::of_tls(keys))?));
        Ok(Some((connector, server_name(keys, &self.address)?)))
    }
}

fn server_name(keys: &TlsKeys, address: &Address) -> Result<ServerName<'static>, String> {
    let name = keys.server_name.as_ref().unwrap_or(&address.host);
    ServerName::try_from(name.clone())
        .map_err(|error| format!("tls.server_name: {name:?}: {error}"))
}

/// Whether the other side has closed the connection, or says something that nobody asked for.
pub(crate) async fn is_spent(wire: &mut Box<dyn Wire>) -> bool {
    let mut byte = [0];
    tokio::select! {
        biased;
        _ = tokio::io::AsyncReadExt::read(wire, &mut byte) => true,
        () = std::future::ready(()) => false,
    }
}
