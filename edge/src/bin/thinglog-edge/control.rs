//! The way to the running agent: a socket in the file system. Who may open it may ask: a line with a
//! word, answered by a line of JSON.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt, net::UnixStream as Blocking},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};

/// Where system services have their sockets.
const SYSTEM: &str = "/run/thinglog-edge";
const NAME: &str = "control.sock";
/// Clients at once.
const CLIENTS: usize = 8;
/// The longest request, bytes.
const MAX_REQUEST: usize = 64;
/// How long a client may take, and how long it waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the agent can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// How it goes.
    Status,
    /// To send what it holds.
    Upload,
}

impl Request {
    fn word(self) -> &'static str {
        match self {
            Request::Status => "status",
            Request::Upload => "upload",
        }
    }

    fn parse(line: &[u8]) -> Option<Request> {
        let all = [Request::Status, Request::Upload];
        let word = line.trim_ascii();
        all.into_iter()
            .find(|request| request.word().as_bytes() == word)
    }
}

/// Knows the answers.
pub(crate) type Answers = Arc<dyn Fn(Request) -> String + Send + Sync>;

/// The socket, unless configured: the system's directory where this user may write, or there is an
/// agent already; else the user's own.
pub(crate) fn usual_path() -> Option<PathBuf> {
    let system = Path::new(SYSTEM);
    if system.exists() || rustix::process::geteuid().is_root() {
        return Some(system.join(NAME));
    }
    let own = std::env::var_os("XDG_RUNTIME_DIR")?;
    Some(Path::new(&own).join("thinglog-edge.sock"))
}

/// The socket, gone from the file system with this.
#[derive(Debug)]
pub(crate) struct Control {
    path: PathBuf,
    listener: UnixListener,
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Control {
    /// Listens at `path`, for this user and group only. What an ended agent left there is replaced;
    /// one that runs is not.
    pub(crate) fn bind(path: &Path) -> io::Result<Control> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if Blocking::connect(path).is_ok() {
                    let reason = "another agent answers there";
                    return Err(io::Error::new(io::ErrorKind::AddrInUse, reason));
                }
                fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            bound => bound?,
        };
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        Ok(Control {
            path: path.to_owned(),
            listener,
        })
    }

    /// Takes clients for ever.
    pub(crate) async fn serve(self, answers: Answers) {
        let places = Arc::new(Semaphore::new(CLIENTS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((client, _)) => {
                    let answers = answers.clone();
                    tokio::spawn(async move {
                        let _ = timeout(PATIENCE, answer(client, answers)).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket took no client");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

async fn answer(mut client: UnixStream, answers: Answers) -> io::Result<()> {
    let mut line = Vec::with_capacity(MAX_REQUEST);
    while !line.contains(&b'\n') && line.len() < MAX_REQUEST {
        if client.read_buf(&mut line).await? == 0 {
            break;
        }
    }
    let answer = match Request::parse(&line) {
        None => r#"{"error":"expected status or upload"}"#.to_owned(),
        Some(request) => answers(request),
    };
    client.write_all(answer.as_bytes()).await?;
    client.write_all(b"\n").await?;
    client.shutdown().await
}

/// Asks the agent at `path`; its answer.
pub(crate) fn ask(path: &Path, request: Request) -> io::Result<String> {
    use std::io::{Read, Write};
    let mut stream = Blocking::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    writeln!(stream, "{}", request.word())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
