//! Kafka, against a broker that checks what a real one does (`kafka_broker`); a cluster of librdkafka's,
//! read by its consumer, is in `kafka_mock`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::protocol::StrBytes;
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::certificates::Certificates;
use crate::common::{Running, until};
use crate::harness::{Bench, Fault, Got, Request, Subject, books};
use crate::kafka_broker::{Broker, PARTITIONS};

pub(crate) struct Kafka {
    broker: Broker,
}

impl Subject for Kafka {
    async fn start() -> Option<Kafka> {
        let broker = Broker::start(None).await;
        Some(Kafka { broker })
    }

    fn config(&self) -> Value {
        json!({
            "type": "kafka",
            "servers": [format!("kafka://{}", self.broker.address)],
            "topic": "logs.{{source}}",
            "timeout_ms": 1000,
            "batch": {"max_events": Self::MAX_EVENTS, "max_bytes": 64 << 10, "max_age_ms": 50},
            "retry": {"from_ms": 5, "max_ms": 50},
            "memory_bytes": 10 << 20,
        })
    }

    fn got(&self) -> Vec<Got> {
        self.broker.state.lock().got.clone()
    }

    fn requests(&self) -> Vec<Request> {
        self.broker.state.lock().requests.clone()
    }

    fn violations(&self) -> Vec<String> {
        self.broker.state.lock().violations.clone()
    }

    fn fail(&self, fault: Fault) -> bool {
        let mut state = self.broker.state.lock();
        match fault {
            Fault::Poison => state.poison = true,
            Fault::Antidote => state.poison = false,
            Fault::TooMany { .. } => return false,
            fault => state.faults.push_back(fault),
        }
        true
    }

    async fn stop(&mut self) {
        self.broker.stop().await;
    }

    async fn resume(&mut self) {
        self.broker.listen().await;
    }
}

crate::contract!(Kafka);

/// A router that delivers to the subject with these changes of its configuration.
pub(crate) async fn router<S: Subject>(bench: &Bench<S>, changes: Value) -> Running {
    let mut subject = bench.subject.config();
    for (key, value) in changes.as_object().unwrap() {
        subject[key] = value.clone();
    }
    let mut config = bench.config();
    let subject = serde_json::from_value(subject).unwrap();
    config.destinations.insert("subject".into(), subject);
    Running::start(config).await
}

async fn until_told(router: &Running, what: &str) {
    until(&format!("{what:?} is told"), || {
        let parts = router.health.parts();
        let reason = parts.get("subject").cloned().flatten();
        reason.is_some_and(|reason| reason.contains(what))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_and_not_answered_for_is_there_once() {
    let Some(mut bench) = Bench::<Kafka>::start().await else {
        return;
    };
    for fault in [Fault::Hang, Fault::Reset, Fault::Unavailable, Fault::Reset] {
        bench.subject.fail(fault);
    }
    let router = bench.router().await;
    for device in ["lamp-1", "lamp-2", "lamp-3", "lamp-4", "lamp-5", "lamp-6"] {
        bench.publish(device, 70).await;
    }
    bench.exactly().await;
    books(&router, 420, 0).await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_has_key_headers_and_time() {
    let Some(mut bench) = Bench::<Kafka>::start().await else {
        return;
    };
    for compression in ["none", "gzip"] {
        let router = router(&bench, json!({"compression": compression})).await;
        bench.publish("lamp-1", 1).await;
        bench.exactly().await;
        router.stop().await;
    }
    let state = bench.subject.broker.state.lock();
    let (topic, record) = &state.records[0];
    assert_eq!(topic, "logs.app");
    let header = |name: &'static str| {
        let value = record.headers.get(&StrBytes::from_static_str(name));
        String::from_utf8(value.unwrap().clone().unwrap().to_vec()).unwrap()
    };
    assert_eq!(header("id"), "lamp-1/0000000000000007/0");
    assert_eq!(header("level"), "INFO");
    let event: Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
    assert_eq!(event["id"], "lamp-1/0000000000000007/0");
    let time = event["time"].as_str().unwrap();
    let millis = format!(".{:03}", record.timestamp % 1000);
    assert!(time.contains(&millis), "{time} is not {}", record.timestamp);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_halved_down_to_a_dead_letter() {
    let Some(mut bench) = Bench::<Kafka>::start().await else {
        return;
    };
    bench.subject.broker.state.lock().max_batch = 2000;
    let large = "x".repeat(3000);
    bench.publish("lamp-1", 30).await;
    bench.publish_text("lamp-1", &large).await;
    bench.publish("lamp-2", 30).await;
    let router = router(&bench, json!({"compression": "none"})).await;
    bench.sent.retain(|sent| sent.message != large);
    bench.exactly().await;
    books(&router, 60, 1).await;
    let letters = bench.dead_letters();
    assert_eq!(letters[0]["event"]["message"], large.as_str());
    let reason = letters[0]["reason"].as_str().unwrap();
    assert!(reason.contains("error 10"), "{reason}");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_wants_a_pause_gets_one() {
    let Some(mut bench) = Bench::<Kafka>::start().await else {
        return;
    };
    bench.subject.broker.state.lock().throttle = 1000;
    let router = bench.router().await;
    bench.publish("lamp-1", 1).await;
    bench.everything().await;
    bench.publish("lamp-2", 1).await;
    bench.exactly().await;
    let requests = bench.subject.requests();
    let wait = requests[1].at - requests[0].at;
    assert!(wait >= Duration::from_millis(900), "sent after {wait:?}");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_the_brokers_have_forgotten_begins_anew() {
    let Some(mut bench) = Bench::<Kafka>::start().await else {
        return;
    };
    let router = bench.router().await;
    bench.publish("lamp-1", 70).await;
    bench.exactly().await;
    bench.subject.broker.state.lock().forget();
    bench.publish("lamp-1", 70).await;
    bench.exactly().await;
    books(&router, 140, 0).await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_has_forgotten_the_producer_makes_others_store_nothing_twice() {
    let Some(mut bench) = Bench::<Kafka>::start().await else {
        return;
    };
    for n in 0..20 {
        bench.publish(&format!("lamp-{n}"), 1).await;
    }
    bench.subject.broker.state.lock().torn = true;
    let router = router(&bench, json!({"concurrency": 1})).await;
    bench.exactly().await;
    books(&router, 20, 0).await;
    assert!(!bench.subject.broker.state.lock().torn);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_many_topics_go_where_they_belong() {
    let Some(mut bench) = Bench::<Kafka>::start().await else {
        return;
    };
    let router = router(&bench, json!({"topic": "{{device}}.{{message}}"})).await;
    for device in ["lamp-1", "lamp:2"] {
        for message in ["a", "b/c"] {
            bench.publish_text(device, message).await;
        }
    }
    bench.everything().await;
    let topics: BTreeSet<String> = {
        let state = bench.subject.broker.state.lock();
        state
            .records
            .iter()
            .map(|(topic, _)| topic.clone())
            .collect()
    };
    let expected = ["lamp-1.a", "lamp-1.b_c", "lamp_2.a", "lamp_2.b_c"];
    assert_eq!(topics, expected.map(str::to_owned).into());
    bench.no_violations();
    router.stop().await;
}

/// A server's side of TLS.
fn acceptor(files: &Certificates) -> TlsAcceptor {
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let chain = CertificateDer::pem_file_iter(&files.certificate).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            chain.map(Result::unwrap).collect(),
            PrivateKeyDer::from_pem_file(&files.key).unwrap(),
        );
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

async fn logs_in(mechanism: &str) {
    let Some(mut bench) = Bench::<Kafka>::start().await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let files = Certificates::make(folder.path());
    bench.subject.broker = Broker::start(Some(acceptor(&files))).await;
    let login = ("thing,log".to_owned(), "hush=hush".to_owned());
    bench.subject.broker.state.lock().login = Some(login);
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "wrong\n").unwrap();
    let port = bench.subject.broker.address.port();
    let changes = json!({
        "servers": [format!("kafka+ssl://localhost:{port}")],
        "tls": {"ca": files.ca},
        "username": "thing,log",
        "password": {"file": secret},
        "mechanism": mechanism,
        // Thousands of rounds take their time where nothing is optimised.
        "timeout_ms": 30_000,
    });
    let router = router(&bench, changes).await;
    bench.publish("lamp-1", 20).await;
    until_told(&router, "cannot log in as \"thing,log\": error 58").await;
    std::fs::write(&secret, "hush=hush\n").unwrap();
    bench.exactly().await;
    books(&router, 20, 0).await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_with_the_password_itself() {
    logs_in("plain").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_with_a_proof_by_sha_256() {
    logs_in("scram-sha-256").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_with_a_proof_by_sha_512() {
    logs_in("scram-sha-512").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_are_spread_over_the_partitions() {
    let Some(mut bench) = Bench::<Kafka>::start().await else {
        return;
    };
    let router = bench.router().await;
    for n in 0..20 {
        bench.publish(&format!("lamp-{n}"), 1).await;
    }
    bench.exactly().await;
    let requests = bench.subject.requests();
    assert!(
        requests.len() < 20,
        "{PARTITIONS} partitions share requests"
    );
    router.stop().await;
}
