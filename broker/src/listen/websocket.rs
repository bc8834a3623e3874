//! A WebSocket as the stream of bytes that MQTT wants: packets may span messages and share them
//! (MQTT 5.0 section 6). Only binary messages carry packets; a text message ends the connection
//! ([MQTT-6.0.0-1]). Pings are answered in passing.
//!
//! What is held is bounded: one message on the way in, one chunk on the way out. Both halves are to be
//! polled by one task, because reading also writes (pongs) and would otherwise take the writer's waker.

use std::{
    io::{self, ErrorKind, Read, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::{
    Error, Message,
    protocol::{
        CloseFrame, Role, WebSocketConfig, WebSocketContext,
        frame::{Utf8Bytes, coding::CloseCode},
    },
};

/// Read from the connection at once; a buffer of this size comes with every client.
const READ: usize = 4 << 10;
/// Longest message sent.
const CHUNK: usize = 16 << 10;
/// What waits to be sent: a chunk, and pongs to a client that does not read them.
const UNSENT: usize = CHUNK + (4 << 10);
/// Messages may always have this size, however small packets have to be.
const LEAST_MESSAGE: usize = 64 << 10;

/// The stream over an upgraded connection.
pub(crate) struct WebSocket<S> {
    io: S,
    context: WebSocketContext,
    /// What is left of the message received last.
    message: Bytes,
    is_shut_down: bool,
}

impl<S> WebSocket<S> {
    /// `packet_bytes` is the longest MQTT packet that clients may send.
    pub(crate) fn new(io: S, packet_bytes: usize) -> WebSocket<S> {
        let most = Some(packet_bytes.max(LEAST_MESSAGE));
        let config = WebSocketConfig::default()
            .read_buffer_size(READ)
            .write_buffer_size(0)
            .max_write_buffer_size(UNSENT)
            .max_message_size(most)
            .max_frame_size(most);
        WebSocket {
            io,
            context: WebSocketContext::new(Role::Server, Some(config)),
            message: Bytes::new(),
            is_shut_down: false,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.message.is_empty() {
            let io = &mut Now {
                io: &mut this.io,
                cx,
            };
            match this.context.read(io) {
                Ok(Message::Binary(message)) => this.message = message,
                Ok(Message::Text(_)) => {
                    say_goodbye(&mut this.context, io, CloseCode::Unsupported);
                    let error = "a text message; MQTT needs binary ones";
                    return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, error)));
                }
                Ok(_) => {}
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Poll::Ready(Ok(())),
                Err(error) => {
                    if let Some(code) = complaint(&error) {
                        say_goodbye(&mut this.context, io, code);
                    }
                    return outcome(error).map(Err);
                }
            }
        }
        let length = this.message.len().min(out.remaining());
        out.put_slice(&this.message[..length]);
        this.message.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // One chunk at a time: the last one goes first.
        ready!(self.as_mut().poll_flush(cx))?;
        let this = self.get_mut();
        let chunk = &bytes[..bytes.len().min(CHUNK)];
        let message = Message::Binary(Bytes::copy_from_slice(chunk));
        match this.context.write(
            &mut Now {
                io: &mut this.io,
                cx,
            },
            message,
        ) {
            Ok(()) => Poll::Ready(Ok(chunk.len())),
            Err(error) => match outcome(error) {
                // It is taken, if not sent yet.
                Poll::Pending => Poll::Ready(Ok(chunk.len())),
                Poll::Ready(error) => Poll::Ready(Err(error)),
            },
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.context.flush(&mut Now {
            io: &mut this.io,
            cx,
        }) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => outcome(error).map(Err),
        }
    }

    /// Says goodbye as a WebSocket does. The client's own goodbye is not waited for.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_shut_down {
            let close = goodbye(CloseCode::Normal);
            match this.context.close(
                &mut Now {
                    io: &mut this.io,
                    cx,
                },
                Some(close),
            ) {
                Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => {}
                Err(error) => {
                    ready!(outcome(error));
                }
            }
            this.is_shut_down = true;
        }
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

fn goodbye(code: CloseCode) -> CloseFrame {
    CloseFrame {
        code,
        reason: Utf8Bytes::default(),
    }
}

/// Tells a client that broke the rules, as far as the connection takes it now.
fn say_goodbye(context: &mut WebSocketContext, io: &mut (impl Read + Write), code: CloseCode) {
    let _ = context.close(io, Some(goodbye(code)));
}

/// What a client did wrong, if it did (RFC 6455 section 7.4.1).
fn complaint(error: &Error) -> Option<CloseCode> {
    match error {
        Error::Capacity(_) => Some(CloseCode::Size),
        Error::Utf8(_) => Some(CloseCode::Invalid),
        Error::Protocol(_) => Some(CloseCode::Protocol),
        _ => None,
    }
}

/// What an error means for the stream: nothing yet, or its end.
fn outcome(error: Error) -> Poll<io::Error> {
    match error {
        Error::Io(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        Error::Io(error) => Poll::Ready(error),
        Error::ConnectionClosed | Error::AlreadyClosed => {
            Poll::Ready(ErrorKind::ConnectionAborted.into())
        }
        error => Poll::Ready(io::Error::new(ErrorKind::InvalidData, error)),
    }
}

/// An asynchronous stream within one poll: what cannot be done now would block, and the task is woken
/// when it can.
struct Now<'a, 'b, S> {
    io: &'a mut S,
    cx: &'a mut Context<'b>,
}

fn now<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(ErrorKind::WouldBlock.into()),
    }
}

impl<S: AsyncRead + Unpin> Read for Now<'_, '_, S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut out = ReadBuf::new(out);
        now(Pin::new(&mut *self.io).poll_read(self.cx, &mut out))?;
        Ok(out.filled().len())
    }
}

impl<S: AsyncWrite + Unpin> Write for Now<'_, '_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        now(Pin::new(&mut *self.io).poll_write(self.cx, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        now(Pin::new(&mut *self.io).poll_flush(self.cx))
    }
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;
