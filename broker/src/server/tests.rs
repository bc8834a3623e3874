//! Claims about a broker whose disk fails to sync.

use thinglog_journal::sim::SimFs;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// CONNECT of MQTT 5.0, a client id of one letter.
fn connect(id: u8, lasts: bool) -> Vec<u8> {
    let properties: &[u8] = match lasts {
        true => &[5, 17, 0, 0, 14, 16],
        false => &[0],
    };
    let mut packet = vec![0x10, 13 + properties.len() as u8, 0, 4];
    packet.extend_from_slice(b"MQTT\x05\x02\0\0");
    packet.extend_from_slice(properties);
    packet.extend_from_slice(&[0, 1, id]);
    packet
}

async fn client(address: SocketAddr, id: u8, lasts: bool) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&connect(id, lasts)).await.unwrap();
    assert_eq!(packet(&mut stream).await[3], 0);
    stream
}

/// The next packet, which is a short one.
async fn packet(stream: &mut TcpStream) -> Vec<u8> {
    let read = async {
        let mut packet = vec![0; 2];
        stream.read_exact(&mut packet).await.unwrap();
        packet.resize(2 + usize::from(packet[1]), 0);
        stream.read_exact(&mut packet[2..]).await.unwrap();
        packet
    };
    timeout(PATIENCE, read).await.unwrap()
}

/// Publishes at QoS 1; the reason code of PUBACK.
async fn publish(stream: &mut TcpStream, topic: &str) -> u8 {
    let mut body = vec![0, topic.len() as u8];
    body.extend_from_slice(topic.as_bytes());
    body.extend_from_slice(&[0, 9, 0, b'x']);
    let mut publish = vec![0x32, body.len() as u8];
    publish.extend(body);
    stream.write_all(&publish).await.unwrap();
    let answer = packet(stream).await;
    assert_eq!((answer[0], &answer[2..4]), (0x40, &[0, 9][..]));
    answer.get(4).copied().unwrap_or(0)
}

/// Whether `journal` is shown as failed.
fn has_failed(registry: &Registry, journal: &str) -> bool {
    let families = registry.gather();
    let mut families = families.iter();
    let family = families.find(|family| family.name() == "thinglog_broker_journal_failed");
    let mut metrics = family.unwrap().get_metric().iter();
    let found = metrics.find(|metric| metric.get_label()[0].value() == journal);
    found.unwrap().get_gauge().get_value() == 1.0
}

/// A sync fails while something is published on `topic`: that and all after it is refused, until the
/// broker was started again, and the operator is told so.
async fn a_sync_fails(topic: &str, journal: &str) {
    let dir = tempfile::tempdir().unwrap();
    let fs = SimFs::new(7);
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: dir.path().to_owned(),
        ..Config::default()
    };
    for start in 0..2 {
        let registry = Registry::new();
        let broker = Broker::bind_on(fs.boot(), config.clone(), &registry).await;
        let broker = broker.unwrap();
        let (address, status) = (broker.address(), broker.status());
        let stop = CancellationToken::new();
        let running = tokio::spawn(broker.run(stop.clone()));
        let mut reader = client(address, b'r', true).await;
        reader
            .write_all(b"\x82\x0f\0\x01\0\0\x09request/+\x01")
            .await
            .unwrap();
        assert_eq!(packet(&mut reader).await[0], 0x90);
        let mut writer = client(address, b'w', false).await;
        assert_eq!(publish(&mut writer, topic).await, 0, "start {start}");
        assert_eq!(status.trouble(), None);
        if start == 0 {
            fs.faults(|faults| faults.fail_sync = Some(0));
            assert_eq!(publish(&mut writer, topic).await, 0x97);
            let mut another = client(address, b'a', false).await;
            assert_eq!(publish(&mut another, topic).await, 0x97);
            let trouble = status.trouble().unwrap();
            assert!(trouble.contains("start the broker again"), "{trouble}");
            let shown = async {
                while !has_failed(&registry, journal) {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(PATIENCE, shown).await.unwrap();
        }
        stop.cancel();
        running.await.unwrap();
        fs.kill();
    }
}

#[tokio::test]
async fn after_a_failed_sync_of_the_log_the_operator_is_told_to_start_again() {
    a_sync_fails("thinglog/logs/lamp/app", "log").await;
}

#[tokio::test]
async fn after_a_failed_sync_of_queued_messages_the_operator_is_told_to_start_again() {
    a_sync_fails("request/a", "mail").await;
}

#[test]
fn a_log_that_lost_records_goes_on_well_behind_what_is_known_and_stays_there() {
    for known in [1, STRIDE - 1, STRIDE + 1, 5 * STRIDE + 3] {
        let next = behind(known);
        assert!(next >= known + STRIDE && next <= known + 2 * STRIDE);
        assert_eq!(behind(next), next, "nothing was appended since");
    }
}
