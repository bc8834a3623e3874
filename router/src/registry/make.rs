//! Makes a change: plan, publish, wait until the broker has it and it has come back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::arrivals::Outcome;
use super::caller::Caller;
use super::change::Change;
use super::plan::plan;
use super::refusal::{Code, Refusal};
use super::{Done, Inner, Write};
use crate::mqtt::publisher::{Message, Refused};

/// Longest wait for the turn of a change.
const TURN_WITHIN: Duration = Duration::from_secs(30);
/// Longest wait for the broker over one document, from when it is handed in: those that are under way
/// together wait together.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Documents of one change under way at a time.
const UNDER_WAY: usize = 256;

/// A document that is under way.
struct UnderWay {
    topic: String,
    until: Instant,
    acknowledged: oneshot::Receiver<Result<(), Refused>>,
    back: Option<oneshot::Receiver<Outcome>>,
}

impl Inner {
    /// Makes a change for a caller.
    pub(super) async fn make(&self, change: &Change, caller: &Caller) -> Result<Done, Refusal> {
        let Ok(_place) = self.places.try_acquire() else {
            return Err(Refusal::new(
                Code::Throttling,
                "too many changes are waiting; try again",
            ));
        };
        let Ok(_turn) = timeout(TURN_WITHIN, self.turns.of(change)).await else {
            return Err(Refusal::new(
                Code::Throttling,
                "other changes take too long; try again",
            ));
        };
        self.must_be_complete()?;
        let writes = self.view(|view| {
            caller.may_change(&view, change)?;
            plan(change, &view, &caller.name)
        })?;
        self.publish(&writes, &caller.name).await?;
        Ok(Done { writes })
    }

    /// Publishes documents in their order and waits for all of them.
    async fn publish(&self, writes: &[Write], by: &Arc<str>) -> Result<(), Refusal> {
        let mut under_way = VecDeque::new();
        let mut result = Ok(());
        for write in writes {
            if under_way.len() >= UNDER_WAY
                && let Some(first) = under_way.pop_front()
            {
                result = self.settle(first).await;
            }
            if result.is_err() {
                break;
            }
            match self.hand_in(write, by).await {
                // Other routers have to know of it before they hear of anything behind it.
                Ok(one) if write.topic.starts_with("desired/") => result = self.settle(one).await,
                Ok(one) => under_way.push_back(one),
                Err(refusal) => result = Err(refusal),
            }
        }
        for one in under_way {
            let settled = self.settle(one).await;
            result = result.and(settled);
        }
        result
    }

    async fn hand_in(&self, write: &Write, by: &Arc<str>) -> Result<UnderWay, Refusal> {
        let payload = Bytes::from(write.payload());
        // What a device reports is no document of the fleet: nobody here waits for it.
        let comes_back = !write.topic.starts_with("reported/");
        let back = comes_back.then(|| self.arrivals.expect(&write.topic, payload.clone(), by));
        let (done, acknowledged) = oneshot::channel();
        let message = Message {
            topic: format!("{}/{}", self.topics.root(), write.topic),
            payload,
            retain: true,
            done: Some(done),
            while_waited: true,
        };
        let until = Instant::now() + ANSWER_WITHIN;
        match timeout_at(until, self.publisher.publish(message)).await {
            Ok(Ok(())) => Ok(UnderWay {
                topic: write.topic.clone(),
                until,
                acknowledged,
                back,
            }),
            Ok(Err(_)) | Err(_) => {
                drop(back);
                self.arrivals.forget(&write.topic);
                Err(unavailable(&write.topic, "it was not published"))
            }
        }
    }

    async fn settle(&self, one: UnderWay) -> Result<(), Refusal> {
        let topic = one.topic;
        let answer = async {
            match one.acknowledged.await {
                Ok(Ok(())) => {}
                Ok(Err(refused)) => return Err(unavailable(&topic, &refused.to_string())),
                Err(_) => return Err(unavailable(&topic, "the router stops")),
            }
            match one.back {
                None => Ok(()),
                Some(back) => match back.await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(reason)) => Err(Refusal::new(
                        Code::Conflict,
                        format!("{topic}: {reason}; it was published all the same"),
                    )),
                    Err(_) => Err(unavailable(&topic, "it has not come back")),
                },
            }
        };
        let result = timeout_at(one.until, answer).await;
        self.arrivals.forget(&topic);
        result.unwrap_or_else(|_| {
            let why = format!(
                "the broker has not answered within {} s; it may come into force all the same",
                ANSWER_WITHIN.as_secs()
            );
            Err(unavailable(&topic, &why))
        })
    }
}

fn unavailable(topic: &str, why: &str) -> Refusal {
    Refusal::new(Code::ServiceUnavailable, format!("{topic}: {why}"))
}
