//! A body that somebody else writes, a few portions ahead of who reads it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

/// The reading end.
pub(super) struct Channel {
    portions: mpsc::Receiver<io::Result<Bytes>>,
}

impl Channel {
    /// A body, and where its portions are put; at most so many wait.
    pub(super) fn new(waiting: usize) -> (mpsc::Sender<io::Result<Bytes>>, Channel) {
        let (sender, portions) = mpsc::channel(waiting);
        (sender, Channel { portions })
    }
}

impl Body for Channel {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let portion = self.portions.poll_recv(context);
        portion.map(|portion| portion.map(|bytes| bytes.map(Frame::data)))
    }
}
