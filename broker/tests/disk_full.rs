//! A disk that fills up and is cleared again, under a broker that goes on running: what cannot be
//! stored is refused with the right reason, nothing acknowledged is lost, and nobody has to help.
//!
//! The disk is a tmpfs of its own, which takes root; where mounting is not allowed the test is
//! skipped, and the simulated disks of journal and state are what covers it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::{
    collections::BTreeSet,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{Raw, Running, put_text};
use thinglog_broker::Config;

const LOG: &str = "thinglog/logs/lamp/app";
const REQUEST: &str = "thinglog/request/lamp";
/// MQTT 5.0 section 2.4: Quota exceeded.
const QUOTA: u8 = 0x97;

/// A tmpfs, unmounted when dropped.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(mebibytes: u32) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("SKIPPED: no tmpfs can be mounted here (it takes root)");
        }
        mounted.then_some(SmallDisk { dir })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes until nothing more goes.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = File::create(&path).unwrap();
        for size in [1 << 20, 4 << 10, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

async fn connect_v5(broker: &Running) -> Raw {
    Raw::connect_v5(broker.address, 2, &[], "writer", &[])
        .await
        .0
}

/// Publishes at QoS 1 over MQTT 5.0; the reason code of PUBACK.
async fn publish(raw: &mut Raw, topic: &str, payload: &str, retain: bool) -> u8 {
    let mut body = Vec::new();
    put_text(&mut body, topic);
    body.extend([0, 9, 0]);
    body.extend_from_slice(payload.as_bytes());
    raw.send(0x32 | u8::from(retain), &body).await;
    let puback = raw.packet().await;
    assert_eq!((puback[0], &puback[2..4]), (0x40, &[0, 9][..]));
    puback.get(4).copied().unwrap_or(0)
}

/// Whether MQTT 3.1.1 gets an acknowledgement; without one the connection is closed.
async fn publish_v4(broker: &Running, topic: &str, retain: bool) -> bool {
    let (mut raw, _) = Raw::connect(broker.address, 4, "old writer", true).await;
    let mut body = Vec::new();
    put_text(&mut body, topic);
    body.extend([0, 9, b'4']);
    raw.send(0x32 | u8::from(retain), &body).await;
    raw.answer().await.is_some()
}

/// The reason code of SUBACK.
async fn subscribe(raw: &mut Raw, filter: &str) -> u8 {
    let mut body = vec![0, 5, 0];
    put_text(&mut body, filter);
    body.push(1);
    raw.send(0x82, &body).await;
    let suback = raw.packet().await;
    assert_eq!(suback[0], 0x90);
    suback[5]
}

/// The reason code of CONNACK for a client that wants a session of an hour.
async fn connect_persistent(broker: &Running, id: &str) -> (Raw, u8) {
    let mut raw = Raw::open(broker.address).await;
    let mut body = b"\0\x04MQTT\x05\x02\0\x3C\x05\x11\0\0\x0E\x10".to_vec();
    put_text(&mut body, id);
    raw.send(0x10, &body).await;
    let connack = raw.packet().await;
    (raw, connack[3])
}

/// Publishes until one is refused; those that were acknowledged are noted.
async fn publish_until_refused(broker: &Running, acknowledged: &mut BTreeSet<String>) {
    for n in 0.. {
        let mut writer = connect_v5(broker).await;
        let payload = format!("filling {n}");
        let reason = publish(&mut writer, LOG, &payload, false).await;
        if reason == QUOTA {
            let goodbye = writer.packet().await;
            assert_eq!((goodbye[0], goodbye[2]), (0xE0, QUOTA), "DISCONNECT");
            return;
        }
        assert_eq!(reason, 0);
        acknowledged.insert(payload);
    }
}

async fn publish_until_taken(broker: &Running, acknowledged: &mut BTreeSet<String>) {
    for n in 0.. {
        let mut writer = connect_v5(broker).await;
        let payload = format!("clearing {n}");
        if publish(&mut writer, LOG, &payload, false).await == 0 {
            acknowledged.insert(payload);
            return;
        }
    }
}

/// Everything new is refused: publishes to be stored, retained messages, sessions, subscriptions.
async fn assert_all_is_refused(broker: &Running, session: &mut Raw) {
    // What was still taken fitted into the last free bytes.
    let mut writer = connect_v5(broker).await;
    while publish(&mut writer, "probe", "2", true).await != QUOTA {}
    let mut writer = connect_v5(broker).await;
    assert_eq!(publish(&mut writer, REQUEST, "2", true).await, QUOTA);
    let mut writer = connect_v5(broker).await;
    let for_session = publish(&mut writer, "mail/lamp", "lost?", false).await;
    assert_eq!(for_session, QUOTA, "a message to be kept for a session");
    assert!(!publish_v4(broker, LOG, false).await);
    assert!(!publish_v4(broker, REQUEST, true).await);
    assert_eq!(connect_persistent(broker, "newcomer").await.1, QUOTA);
    let refused = subscribe(session, "more/#").await;
    assert_eq!(refused, QUOTA);
}

#[tokio::test]
async fn a_full_disk_refuses_what_is_new_and_takes_it_again_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(48) else {
        return;
    };
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: disk.path().join("data"),
        reserve_bytes: 4 << 20,
        ..Config::default()
    };
    let broker = Running::start_with(config.clone()).await;
    let (mut reader, _) = Raw::connect(broker.address, 4, "reader", false).await;
    reader.subscribe("thinglog/logs/#").await;
    drop(reader);
    let (mut absent, _) = Raw::connect(broker.address, 4, "absent", false).await;
    absent.subscribe("mail/#").await;
    drop(absent);
    let (mut session, taken) = connect_persistent(&broker, "session").await;
    assert_eq!(taken, 0);
    assert_eq!(subscribe(&mut session, "before/#").await, 1);
    let mut acknowledged = BTreeSet::new();
    publish_until_taken(&broker, &mut acknowledged).await;
    let mut writer = connect_v5(&broker).await;
    assert_eq!(publish(&mut writer, REQUEST, "1", true).await, 0);
    for round in 0..2 {
        let filler = disk.fill();
        publish_until_refused(&broker, &mut acknowledged).await;
        assert_all_is_refused(&broker, &mut session).await;
        std::fs::remove_file(filler).unwrap();
        publish_until_taken(&broker, &mut acknowledged).await;
        let mut writer = connect_v5(&broker).await;
        let topic = format!("{REQUEST}/{round}");
        assert_eq!(publish(&mut writer, &topic, "3", true).await, 0);
        assert_eq!(publish(&mut writer, "mail/lamp", "kept", false).await, 0);
        let filter = format!("after/{round}");
        assert_eq!(subscribe(&mut session, &filter).await, 1);
    }
    broker.stop().await;
    let broker = Running::start_with(config).await;
    check_after_restart(&broker, &acknowledged).await;
    broker.stop().await;
}

/// All that was acknowledged is there.
async fn check_after_restart(broker: &Running, acknowledged: &BTreeSet<String>) {
    let (mut reader, connack) = Raw::connect(broker.address, 4, "reader", false).await;
    assert_eq!(connack[2], 1, "session present");
    let mut missing = acknowledged.clone();
    while !missing.is_empty() {
        let delivery = reader.delivery().await;
        reader.acknowledge(delivery.pkid).await;
        missing.remove(&delivery.payload);
    }
    let (mut absent, _) = Raw::connect(broker.address, 4, "absent", false).await;
    for _ in 0..2 {
        let delivery = absent.delivery().await;
        assert_eq!(delivery.payload, "kept");
        absent.acknowledge(delivery.pkid).await;
    }
    let (mut watcher, _) = Raw::connect(broker.address, 4, "watcher", true).await;
    watcher.subscribe(&format!("{REQUEST}/#")).await;
    for expected in ["1", "3", "3"] {
        let delivery = watcher.delivery().await;
        assert!(delivery.retain);
        assert_eq!(delivery.payload, expected, "{}", delivery.topic);
        watcher.acknowledge(delivery.pkid).await;
    }
}
