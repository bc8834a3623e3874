//! What is known of the cluster: its brokers, and who leads the partitions of a topic.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{
    ApiKey, InitProducerIdRequest, InitProducerIdResponse, MetadataRequest, MetadataResponse,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::answer::reason;
use super::connection::{Connection, Way, check};
use crate::config::KafkaConfig;
use crate::deliver::remote::verdict::Verdict;

/// How long what is known of a topic is believed, as long as nothing speaks against it.
const BELIEVED: Duration = Duration::from_secs(300);
/// Topics that are remembered.
const MOST_TOPICS: usize = 10_000;

/// One cluster.
pub(super) struct Cluster {
    pub(super) way: Way,
    /// Where the first brokers are.
    first: Vec<(String, u16)>,
    create: bool,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Which of the places is tried next.
    from: usize,
    brokers: HashMap<i32, (String, u16)>,
    topics: HashMap<String, (Arc<Layout>, Instant)>,
    /// To any of the brokers, for questions about the cluster.
    connection: Option<Connection>,
}

/// A topic: the leader of each partition, where it has one.
pub(super) type Layout = Vec<Option<i32>>;

impl Cluster {
    /// Reads every file once, to see that it can be; the error names key and reason.
    pub(super) fn new(config: &KafkaConfig, client: String) -> Result<Cluster, String> {
        let addresses = config.addresses();
        let addresses = addresses.map_err(|reason| format!("servers: {reason}"))?;
        let first = addresses.into_iter().map(|it| (it.host, it.port));
        Ok(Cluster {
            way: Way::new(config, client)?,
            first: first.collect(),
            create: config.create,
            known: Mutex::default(),
        })
    }

    /// Who leads the partitions of a topic; without one that can be sent to, what follows.
    pub(super) async fn layout(&self, topic: &str) -> Result<Arc<Layout>, Verdict> {
        let mut known = self.known.lock().await;
        if let Some((layout, since)) = known.topics.get(topic)
            && since.elapsed() < BELIEVED
        {
            return Ok(Arc::clone(layout));
        }
        let within = self.way.within;
        let asked = timeout(within, self.ask(&mut known, topic)).await;
        let said = asked.unwrap_or_else(|_| {
            let within = within.as_millis();
            Err(format!("no word about the cluster within {within} ms"))
        });
        let said = said.map_err(|reason| {
            known.connection = None;
            Verdict::retry(reason)
        })?;
        known.brokers = said
            .brokers
            .iter()
            .filter_map(|it| {
                let place = (it.host.as_str().to_owned(), u16::try_from(it.port).ok()?);
                Some((it.node_id.0, place))
            })
            .collect();
        let layout = Arc::new(layout(topic, said.topics.first())?);
        if known.topics.len() >= MOST_TOPICS {
            known.topics.clear();
        }
        let entry = (Arc::clone(&layout), Instant::now());
        known.topics.insert(topic.to_owned(), entry);
        Ok(layout)
    }

    async fn ask(&self, known: &mut Known, topic: &str) -> Result<MetadataResponse, String> {
        let connection = self.any(known).await?;
        let name = TopicName(StrBytes::from_string(topic.to_owned()));
        let asked = MetadataRequest::default()
            .with_topics(Some(vec![
                MetadataRequestTopic::default().with_name(Some(name)),
            ]))
            .with_allow_auto_topic_creation(self.create);
        let version = connection.version(ApiKey::Metadata)?;
        connection.ask(ApiKey::Metadata, version, &asked).await
    }

    /// Asks again before the topic is sent to once more.
    pub(super) async fn forget(&self, topic: &str) {
        self.known.lock().await.topics.remove(topic);
    }

    /// A new producer: its id and epoch.
    pub(super) async fn producer(&self) -> Result<(i64, i16), String> {
        let mut known = self.known.lock().await;
        let asking = async {
            let connection = self.any(&mut known).await?;
            let asked = InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_transaction_timeout_ms(i32::MAX)
                .with_producer_id((-1).into())
                .with_producer_epoch(-1);
            let version = connection.version(ApiKey::InitProducerId)?;
            let said: InitProducerIdResponse = connection
                .ask(ApiKey::InitProducerId, version, &asked)
                .await?;
            check(said.error_code, None)?;
            Ok((said.producer_id.0, said.producer_epoch))
        };
        let made = timeout(self.way.within, asking).await;
        let made = made.unwrap_or_else(|_| Err("no answer in time".into()));
        made.map_err(|reason: String| {
            known.connection = None;
            format!("cannot begin as a producer: {reason}")
        })
    }

    /// A connection to a broker by its number.
    pub(super) async fn connect(&self, broker: i32) -> Result<Connection, String> {
        let place = self.known.lock().await.brokers.get(&broker).cloned();
        let (host, port) = place.ok_or_else(|| format!("broker {broker} is unknown"))?;
        self.way.connect(&host, port).await
    }

    /// The connection for questions: the one there is, or to the first broker that can be reached.
    async fn any<'a>(&self, known: &'a mut Known) -> Result<&'a mut Connection, String> {
        // Taken first: were this cancelled, an answer would be left in it.
        let mut connection = known.connection.take().filter(Connection::is_fresh);
        if let Some(there) = &mut connection
            && there.is_spent().await
        {
            connection = None;
        }
        if connection.is_none() {
            let mut errors = Vec::new();
            let places = self.first.iter().chain(known.brokers.values());
            let places: Vec<(String, u16)> = places.cloned().collect();
            for _ in 0..places.len() {
                let (host, port) = &places[known.from % places.len()];
                // Before the attempt: one that takes all the time there is must not be the only one.
                known.from = known.from.wrapping_add(1);
                match self.way.connect(host, *port).await {
                    Ok(made) => {
                        connection = Some(made);
                        break;
                    }
                    Err(reason) if !errors.contains(&reason) => errors.push(reason),
                    Err(_) => {}
                }
            }
            if connection.is_none() {
                return Err(errors.join("; "));
            }
        }
        match connection {
            Some(connection) => Ok(known.connection.insert(connection)),
            None => Err("no broker can be reached".into()),
        }
    }
}

/// Reads what is said of a topic.
pub(super) fn layout(topic: &str, said: Option<&MetadataResponseTopic>) -> Result<Layout, Verdict> {
    let said = said.ok_or_else(|| Verdict::retry(format!("no word about topic {topic:?}")))?;
    match ResponseError::try_from_code(said.error_code) {
        None => {}
        Some(error @ ResponseError::InvalidTopicException) => {
            let reason = format!("topic {topic:?}: {}", reason(error, None));
            return Err(Verdict::Refused { reason });
        }
        Some(error) => {
            let reason = reason(error, None);
            return Err(Verdict::retry(format!("topic {topic:?}: {reason}")));
        }
    }
    let mut leaders = vec![None; said.partitions.len()];
    for partition in &said.partitions {
        let place = usize::try_from(partition.partition_index);
        let leader = (partition.leader_id.0 >= 0).then_some(partition.leader_id.0);
        if let Some(slot) = place.ok().and_then(|place| leaders.get_mut(place)) {
            *slot = leader;
        }
    }
    match leaders.is_empty() {
        true => Err(Verdict::retry(format!("topic {topic:?} has no partitions"))),
        false => Ok(leaders),
    }
}
