//! journalctl for one request: started, passed on piece by piece, and ended when nobody reads any
//! more. What a slow reader does not take waits in the pipe, and journalctl with it.

use std::{io, path::Path, process::Stdio, time::Duration};

use bytes::{Bytes, BytesMut};
use hyper::StatusCode;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};

use super::query::Query;

/// Bytes passed on at a time.
const PIECE: usize = 16 << 10;
/// What is kept of what journalctl complains about, bytes.
const MAX_COMPLAINT: u64 = 2048;
/// A follower of a silent journal hears after this that its request was understood.
const SILENT_START: Duration = Duration::from_secs(1);

/// Why a request was not answered.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// The methods there are.
    pub(super) allow: Option<&'static str>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, message: &str) -> Failure {
        Failure {
            status,
            message: message.to_owned(),
            allow: None,
        }
    }

    pub(super) fn allow(mut self, methods: &'static str) -> Failure {
        self.allow = Some(methods);
        self
    }
}

type Pieces = mpsc::Receiver<Result<Bytes, Failure>>;

/// Starts the program and waits for its first words, so that what it cannot do is an error and not an
/// empty answer. `places` are given back when it has ended.
pub(super) async fn start(
    program: &Path,
    query: &Query,
    places: Vec<OwnedSemaphorePermit>,
) -> Result<(Option<Bytes>, Pieces), Failure> {
    let child = Command::new(program)
        .args(query.arguments())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| not_started(program, &error))?;
    let (sender, mut pieces) = mpsc::channel(1);
    tokio::spawn(async move {
        pass_on(child, sender).await;
        drop(places);
    });
    let first = match query.follow {
        true => timeout(SILENT_START, pieces.recv()).await.ok().flatten(),
        false => pieces.recv().await,
    };
    Ok((first.transpose()?, pieces))
}

fn not_started(program: &Path, error: &io::Error) -> Failure {
    let program = program.display();
    match error.kind() {
        io::ErrorKind::NotFound => Failure::new(
            StatusCode::NOT_IMPLEMENTED,
            &format!(
                "{program} was not found: this device has no systemd journal; its log files can be asked for with `thinglog logs request`"
            ),
        ),
        _ => Failure::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("{program}: {error}"),
        ),
    }
}

/// Until the program ends or nobody reads any more; the program is killed then.
async fn pass_on(mut child: Child, sender: mpsc::Sender<Result<Bytes, Failure>>) {
    let (Some(mut stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return;
    };
    let complaint = tokio::spawn(complaint(stderr));
    loop {
        let mut piece = BytesMut::with_capacity(PIECE);
        let read = tokio::select! {
            read = stdout.read_buf(&mut piece) => read,
            () = sender.closed() => return,
        };
        match read {
            Ok(0) => break,
            Ok(_) => {
                if sender.send(Ok(piece.freeze())).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                let text = format!("journalctl cannot be read: {error}");
                let failure = Failure::new(StatusCode::INTERNAL_SERVER_ERROR, &text);
                let _ = sender.send(Err(failure)).await;
                return;
            }
        }
    }
    let status = tokio::select! {
        status = child.wait() => status,
        () = sender.closed() => return,
    };
    if !status.is_ok_and(|status| status.success()) {
        let complaint = complaint.await.unwrap_or_default();
        let _ = sender.send(Err(judge(&complaint))).await;
    }
}

/// What the program complains about is mostly what it was asked for.
fn judge(complaint: &str) -> Failure {
    let status = if complaint.contains("Failed to parse") || complaint.contains("Failed to add") {
        StatusCode::BAD_REQUEST
    } else if complaint.contains("No journal files were") {
        StatusCode::NOT_IMPLEMENTED
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    Failure::new(status, &format!("journalctl: {complaint}"))
}

/// The beginning of what is said; the rest is read and forgotten, so that nothing waits for it.
async fn complaint(mut stderr: impl AsyncRead + Unpin) -> String {
    let mut text = Vec::new();
    let _ = (&mut stderr)
        .take(MAX_COMPLAINT)
        .read_to_end(&mut text)
        .await;
    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&text).trim().to_owned()
}
