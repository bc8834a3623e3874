//! A connection beside a broker of bytes: what comes in pieces, what is too large, what is broken, and
//! what waits in a stream's own buffer.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use tokio::io::{DuplexStream, ReadBuf, duplex};

use super::*;
use crate::connection::credentials::Proof;

/// CONNACK with success and without properties.
const ACCEPTED: [u8; 5] = [0x20, 3, 0, 0, 0];

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

fn endpoint() -> Endpoint {
    Endpoint {
        host: "broker".into(),
        port: 1883,
        server_name: "broker".into(),
        client_id: "lamp-7/edge".into(),
        proof: Proof::default(),
        will: None,
    }
}

/// A connection's three ends beside its task's: the broker's bytes, orders, events.
struct Bench {
    broker: DuplexStream,
    orders: mpsc::Sender<Order>,
    events: mpsc::Receiver<LinkEvent>,
}

/// Runs the connection over what `stream` makes of a pipe.
fn start<S: Stream + 'static>(stream: impl FnOnce(DuplexStream) -> S) -> Bench {
    let (broker, ours) = duplex(1 << 16);
    let (orders, to_write) = mpsc::channel(64);
    let (sender, events) = mpsc::channel(64);
    let stream: Box<dyn Stream> = Box::new(stream(ours));
    tokio::spawn(async move {
        let End(cause, reason) = match Wire::open(stream, &endpoint(), &sender).await {
            Ok(mut wire) => wire.serve(to_write, &sender).await,
            Err(end) => end,
        };
        let _ = sender.send(LinkEvent::Down(cause, reason)).await;
    });
    Bench {
        broker,
        orders,
        events,
    }
}

fn publish(topic: &str, payload: &'static [u8], pkid: u16) -> BytesMut {
    let mut bytes = BytesMut::new();
    let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload, None);
    publish.pkid = pkid;
    publish.write(&mut bytes).unwrap();
    bytes
}

#[test]
fn packets_that_come_byte_by_byte_or_together_are_the_same_packets() {
    block_on(async {
        for at_once in [1, 7, usize::MAX] {
            let mut bench = start(|stream| stream);
            let mut bytes = BytesMut::from(&ACCEPTED[..]);
            bytes.extend_from_slice(&publish("a/b", b"hello", 5));
            bytes.extend_from_slice(&[0x40, 2, 0, 9, 0x40, 3, 0, 8, 0x97, 0x40, 2, 0, 7]);
            for part in bytes.chunks(at_once) {
                bench.broker.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            let mut told = Vec::new();
            for _ in 0..5 {
                told.push(bench.events.recv().await.unwrap());
            }
            let [connected, message, nine, eight, seven] = &told[..] else {
                unreachable!()
            };
            let limits = LinkEvent::Connected {
                receive_max: PACKET_IDS,
                max_packet: u32::MAX,
            };
            assert_eq!(connected, &limits);
            let (topic, payload) = ("a/b".into(), "hello".into());
            assert_eq!(message, &LinkEvent::Message { topic, payload });
            assert_eq!(nine, &LinkEvent::Acknowledged(9));
            assert!(matches!(eight, LinkEvent::Refused(8, _)));
            assert_eq!(seven, &LinkEvent::Acknowledged(7));
        }
    });
}

#[test]
fn a_packet_larger_than_agreed_ends_the_connection_before_it_is_held() {
    block_on(async {
        let mut bench = start(|stream| stream);
        bench.broker.write_all(&ACCEPTED).await.unwrap();
        // 256 MiB of PUBLISH are announced.
        let announced = [0x32, 0xff, 0xff, 0xff, 0x7f, 0, 1];
        bench.broker.write_all(&announced).await.unwrap();
        bench.events.recv().await.unwrap();
        let end = bench.events.recv().await.unwrap();
        let LinkEvent::Down(Cause::Other, reason) = end else {
            panic!("{end:?}")
        };
        assert!(reason.contains("no MQTT"), "{reason}");
    });
}

#[test]
fn a_part_of_a_packet_shows_that_the_broker_lives() {
    block_on(async {
        let (mut broker, ours) = duplex(1 << 16);
        let (events, _told) = mpsc::channel(64);
        broker.write_all(&ACCEPTED).await.unwrap();
        let opened = Wire::open(Box::new(ours), &endpoint(), &events).await;
        let mut wire = opened.ok().unwrap();
        assert!(wire.ping().is_ok());
        // Two bytes of a packet, and then an order so that the connection ends.
        broker.write_all(&[0x32, 0x80]).await.unwrap();
        let (orders, to_write) = mpsc::channel(1);
        let goodbye = async {
            tokio::task::yield_now().await;
            drop(orders);
        };
        let (End(_, reason), ()) = tokio::join!(wire.serve(to_write, &events), goodbye);
        assert_eq!(reason, "disconnected");
        assert!(!wire.pinged, "it was heard");
    });
}

/// Holds what is written until it is flushed, as TLS does, and flushes only while it may.
struct Reluctant {
    inner: DuplexStream,
    held: Vec<u8>,
    may: Arc<AtomicBool>,
    waits: Arc<Mutex<Option<Waker>>>,
}

impl AsyncRead for Reluctant {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for Reluctant {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.may.load(SeqCst) {
            *self.waits.lock() = Some(context.waker().clone());
            return Poll::Pending;
        }
        let held = std::mem::take(&mut self.held);
        if held.is_empty() {
            return Poll::Ready(Ok(()));
        }
        // The pipe has room for all that a test writes.
        let mut inner = Pin::new(&mut self.inner);
        match inner.as_mut().poll_write(context, &held) {
            Poll::Ready(written) => Poll::Ready(written.map(|n| assert_eq!(n, held.len()))),
            Poll::Pending => unreachable!("the pipe is full"),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[test]
fn what_the_stream_still_holds_is_flushed_although_something_came_meanwhile() {
    block_on(async {
        let (may, waits) = (Arc::new(AtomicBool::new(true)), Arc::default());
        let mut bench = start(|inner| Reluctant {
            inner,
            held: Vec::new(),
            may: may.clone(),
            waits: Arc::clone(&waits),
        });
        let mut buffer = [0; 1024];
        // CONNECT.
        assert!(bench.broker.read(&mut buffer).await.unwrap() > 0);
        bench.broker.write_all(&ACCEPTED).await.unwrap();
        bench.events.recv().await.unwrap();
        may.store(false, SeqCst);
        let order = Order::Publish {
            topic: "t".into(),
            retain: false,
            payload: Bytes::from_static(b"last"),
        };
        bench.orders.send(order).await.unwrap();
        assert_eq!(bench.events.recv().await, Some(LinkEvent::Assigned(1)));
        // A flush is under way when something comes, and nothing more is to be written.
        while waits.lock().is_none() {
            tokio::task::yield_now().await;
        }
        bench.broker.write_all(&[0x40, 2, 0, 77]).await.unwrap();
        assert_eq!(bench.events.recv().await, Some(LinkEvent::Acknowledged(77)));
        may.store(true, SeqCst);
        if let Some(waker) = waits.lock().take() {
            waker.wake();
        }
        let read = timeout(Duration::from_secs(10), bench.broker.read(&mut buffer)).await;
        let read = read.expect("it is flushed").unwrap();
        assert!(buffer[..read].ends_with(b"last"));
    });
}

/// xorshift64*: the same bytes in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }
}

#[test]
fn whatever_a_broker_sends_the_connection_ends_with_a_reason_and_without_a_panic() {
    let mut valid: Vec<Vec<u8>> = vec![
        ACCEPTED.to_vec(),
        vec![0x20, 11, 0, 0, 8, 0x21, 0, 16, 0x27, 0, 1, 0, 0],
        vec![0x40, 2, 0, 1],
        vec![0x40, 4, 0, 1, 0x97, 0],
        vec![0x90, 4, 0, 1, 0, 1],
        vec![0xd0, 0],
        vec![0xe0, 2, 0x8b, 0],
        vec![0x50, 2, 0, 1],
        vec![0x62, 2, 0, 1],
        vec![0x70, 2, 0, 1],
        vec![0xb0, 4, 0, 1, 0, 0],
        vec![0x82, 6, 0, 1, 0, 0, 0, 0],
        vec![0xf0, 0],
    ];
    valid.push(publish("thinglog/desired/lamp-7", b"{}", 3).to_vec());
    let mut random = Random(0x5eed);
    block_on(async {
        for round in 0..500 {
            let mut bytes = ACCEPTED.to_vec();
            for _ in 0..1 + random.below(4) {
                bytes.extend(&valid[random.below(valid.len())]);
            }
            for _ in 0..random.below(4) {
                let at = random.below(bytes.len());
                match random.below(3) {
                    0 => bytes[at] = random.below(256) as u8,
                    1 => bytes.insert(at, random.below(256) as u8),
                    _ => _ = bytes.remove(at),
                }
            }
            let mut bench = start(|stream| stream);
            // It may be gone before it has read all of it.
            let _ = bench.broker.write_all(&bytes).await;
            let _ = bench.broker.shutdown().await;
            let mut last = None;
            while let Some(event) = bench.events.recv().await {
                last = Some(event);
            }
            let ended = matches!(&last, Some(LinkEvent::Down(_, reason)) if !reason.is_empty());
            assert!(ended, "round {round}: {last:?} after {bytes:x?}");
        }
    });
}
