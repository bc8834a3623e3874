//! Connections to one database.

use std::time::Duration;

use tokio::task::AbortHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{CancelToken, Client, Config, NoTls};

use super::sink::explain;
use super::tls::Encrypt;
use crate::config::{PostgresqlConfig, Secret, SslMode as Wanted};
use crate::net::wire::Server;

/// A database, and as whom to log in there.
#[derive(Clone)]
pub(super) struct Database {
    server: Server,
    database: String,
    username: String,
    password: Option<Secret>,
    /// What the server shows in `pg_stat_activity`.
    name: String,
    within: Duration,
}

/// A connection that has logged in. It ends with the value.
pub(super) struct Connection {
    pub(super) client: Client,
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Database {
    /// Reads every file once, to see that it can be; the error names key and reason.
    pub(super) fn new(config: &PostgresqlConfig, name: String) -> Result<Database, String> {
        let (address, database) = config.place().map_err(|reason| format!("url: {reason}"))?;
        let tls = (config.sslmode == Wanted::VerifyFull).then_some(&config.tls);
        let within = Duration::from_millis(config.timeout_ms);
        let database = Database {
            server: Server::new(address, tls, within)?,
            database,
            username: config.username.clone(),
            password: config.password.clone(),
            name,
            within,
        };
        database.login()?;
        Ok(database)
    }

    fn login(&self) -> Result<Config, String> {
        let mut login = Config::new();
        login
            .dbname(&self.database)
            .user(&self.username)
            .application_name(&self.name);
        if let Some(password) = &self.password {
            let text = password.read();
            login.password(text.map_err(|error| format!("password: {error}"))?);
        }
        Ok(login)
    }

    /// A new connection, with credentials and certificates as they are now.
    pub(super) async fn connect(&self) -> Result<Connection, String> {
        let connected = match tokio::time::timeout(self.within, self.try_connect()).await {
            Ok(connected) => connected,
            Err(_) => Err(format!("nothing within {} ms", self.within.as_millis())),
        };
        connected.map_err(|reason| format!("cannot connect: {reason}"))
    }

    async fn try_connect(&self) -> Result<Connection, String> {
        let mut login = self.login()?;
        let stream = self.server.reach().await;
        let stream = stream.map_err(|error| error.to_string())?;
        let wrong = |error| explain(&error);
        let (client, task) = match self.server.security()? {
            None => {
                login.ssl_mode(SslMode::Disable);
                let made = login.connect_raw(stream, NoTls).await;
                let (client, connection) = made.map_err(wrong)?;
                (client, tokio::spawn(connection))
            }
            Some((connector, name)) => {
                login.ssl_mode(SslMode::Require);
                let made = login.connect_raw(stream, Encrypt { connector, name }).await;
                let (client, connection) = made.map_err(wrong)?;
                (client, tokio::spawn(connection))
            }
        };
        Ok(Connection {
            client,
            task: task.abort_handle(),
        })
    }

    /// Asks the server to end what a connection does, so that statements that wait (for a lock, say) do
    /// not become more with every attempt.
    pub(super) async fn cancel(self, token: CancelToken) {
        let asking = async {
            let Ok(stream) = self.server.reach().await else {
                return;
            };
            let asked = match self.server.security() {
                Ok(None) => token.cancel_query_raw(stream, NoTls).await,
                Ok(Some((connector, name))) => {
                    let encrypt = Encrypt { connector, name };
                    token.cancel_query_raw(stream, encrypt).await
                }
                Err(_) => return,
            };
            if let Err(error) = asked {
                tracing::debug!(reason = explain(&error), "a statement goes on");
            }
        };
        // A server that does not even take this has nothing to be ended.
        let _ = tokio::time::timeout(self.within, asking).await;
    }
}
