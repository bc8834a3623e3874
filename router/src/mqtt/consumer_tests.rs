use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::v5::Packet;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::health::Health;
use crate::mqtt::fake::{FakeBroker, Peer, publish};
use crate::mqtt::inbox::Taken;
use crate::mqtt::{Delivery, Settled};
use crate::testing::telemetry;

const TOPIC: &str = "thinglog/logs/lamp-7/app";
const SOON: Duration = Duration::from_secs(10);

struct Bench {
    broker: FakeBroker,
    inbox: Arc<Inbox>,
    outbox: Arc<Outbox>,
    health: Health,
    metrics: ConsumerMetrics,
    task: JoinHandle<()>,
}

async fn start() -> Bench {
    let broker = FakeBroker::start().await;
    let (inbox, outbox) = (Arc::new(Inbox::default()), Arc::new(Outbox::default()));
    let (health, metrics) = (Health::new(), telemetry().consumer("test"));
    let consumer = Consumer {
        link: broker.options(),
        subscription: Subscription {
            filter: "thinglog/logs/#".into(),
            from: Some("earliest".into()),
            retained: false,
        },
        inbox: Arc::clone(&inbox),
        outbox: Arc::clone(&outbox),
        metrics: metrics.clone(),
        health: health.part("test"),
    };
    let task = tokio::spawn(consumer.run(CancellationToken::new()));
    Bench {
        broker,
        inbox,
        outbox,
        health,
        metrics,
        task,
    }
}

impl Bench {
    async fn connected(&self) -> Peer {
        let (mut peer, _) = timeout(SOON, self.broker.accept(true)).await.unwrap();
        peer.grant().await;
        peer
    }

    /// Takes deliveries until there are `count` of them.
    async fn taken(&self, count: usize) -> (u64, Vec<Delivery>) {
        let mut all = Vec::new();
        let mut last = 0;
        let deadline = Instant::now() + SOON;
        while all.len() < count {
            let mut items = Vec::new();
            if let Taken::Deliveries { generation } =
                self.inbox.take(&mut items, Some(Instant::now()))
            {
                last = generation;
            }
            all.append(&mut items);
            assert!(Instant::now() < deadline, "only {} deliveries", all.len());
            tokio::task::yield_now().await;
        }
        (last, all)
    }

    fn settle(&self, generation: u64, number: u64) {
        self.outbox.settle(Settled { generation, number });
    }
}

fn publishes(ids: impl IntoIterator<Item = u16>) -> Vec<Packet> {
    ids.into_iter()
        .map(|id| publish(TOPIC, id, "hello"))
        .collect()
}

#[tokio::test]
async fn the_session_is_kept_and_the_subscription_says_where_to_start() {
    let bench = start().await;
    let (mut peer, connect) = bench.broker.accept(false).await;
    assert!(!connect.clean_start);
    let properties = connect.properties.unwrap();
    assert_eq!(properties.session_expiry_interval, Some(u32::MAX));
    assert_eq!(properties.receive_maximum, Some(1000));
    let subscribe = peer.grant().await;
    assert_eq!(subscribe.filters[0].path, "thinglog/logs/#");
    let from = ("thinglog-from".to_owned(), "earliest".to_owned());
    assert_eq!(subscribe.properties.unwrap().user_properties, [from]);
}

#[tokio::test]
async fn acknowledgements_go_out_when_settled_and_in_receive_order() {
    let bench = start().await;
    let mut peer = bench.connected().await;
    peer.send(&publishes([9, 4, 7, 1])).await;
    let (generation, items) = bench.taken(4).await;
    assert!(items.iter().map(|item| item.number).eq(0..4));
    bench.settle(generation, 2);
    assert_eq!(timeout(SOON, peer.pubacks(3)).await.unwrap(), [9, 4, 7]);
    bench.settle(generation, 3);
    assert_eq!(timeout(SOON, peer.pubacks(1)).await.unwrap(), [1]);
    assert!(bench.health.is_ready());
}

#[tokio::test]
async fn a_settlement_of_an_older_connection_acknowledges_nothing() {
    let bench = start().await;
    let mut peer = bench.connected().await;
    peer.send(&publishes([1, 2])).await;
    let (old, _) = bench.taken(2).await;
    drop(peer);
    let mut peer = bench.connected().await;
    peer.send(&publishes([2, 1])).await;
    let (new, items) = bench.taken(2).await;
    assert!(new > old);
    bench.settle(old, 1);
    // The first acknowledgement seen is the one of the new connection.
    tokio::task::yield_now().await;
    bench.settle(new, items[0].number);
    assert_eq!(timeout(SOON, peer.pubacks(1)).await.unwrap(), [2]);
}

#[tokio::test]
async fn a_full_window_stops_reading_until_something_is_settled() {
    let bench = start().await;
    let mut peer = bench.connected().await;
    let limit = bench.broker.options().window_bytes;
    let sending = tokio::spawn(async move {
        for id in 1..=400 {
            peer.send(&[publish(TOPIC, id, vec![b'x'; 100_000])]).await;
        }
        peer
    });
    let deadline = Instant::now() + SOON;
    while (bench.metrics.window_bytes.get() as usize) < limit {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    let (generation, mut items) = bench.taken(1).await;
    let mut settled = 0;
    while items.len() + settled < 400 {
        let held: usize = items.iter().map(|item| item.payload.len()).sum();
        assert!(held <= limit + (256 << 10), "{held} bytes are held");
        if let Some(last) = items.last() {
            bench.settle(generation, last.number);
        }
        settled += items.len();
        items = bench.taken(1).await.1;
    }
    timeout(SOON, sending).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_refused_subscription_is_not_ready_and_is_tried_again() {
    let bench = start().await;
    let (mut peer, _) = bench.broker.accept(false).await;
    peer.answer(SubscribeReasonCode::NotAuthorized).await;
    let peer = bench.connected().await;
    let deadline = Instant::now() + SOON;
    while !bench.health.is_ready() {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.metrics.disconnects.get(), 1);
    drop(peer);
}

#[tokio::test]
async fn a_finished_thread_ends_the_session_politely_with_its_last_acknowledgements() {
    let bench = start().await;
    let mut peer = bench.connected().await;
    peer.send(&publishes([1])).await;
    let (generation, _) = bench.taken(1).await;
    bench.inbox.close();
    bench.settle(generation, 0);
    bench.outbox.finish();
    assert_eq!(timeout(SOON, peer.pubacks(1)).await.unwrap(), [1]);
    timeout(SOON, bench.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_silent_broker_is_asked_and_then_left() {
    let bench = start().await;
    let (mut peer, _) = bench.broker.accept_with(false, Some(1)).await;
    peer.grant().await;
    let ping = timeout(SOON, peer.receive()).await.unwrap();
    assert!(matches!(ping, Packet::PingReq(_)), "{ping:?}");
    let (_again, _) = timeout(SOON, bench.broker.accept(false)).await.unwrap();
}
