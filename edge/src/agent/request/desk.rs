//! Which request is done when: one at a time, a few waiting, and what became of the last ones, so
//! that a request that comes twice is not done twice. Pure.

use std::collections::VecDeque;

use thinglog_schemas::request::{Kind, Progress, Request, State};

/// Requests that may wait while one is under way.
const MAX_WAITING: usize = 4;
/// Answers that are remembered.
const MAX_REMEMBERED: usize = 32;

/// What is to be done now.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Order {
    /// Publish how the request of this id stands.
    Answer(String, State),
    /// Begin with this one.
    Start(Request),
    /// End the one that is under way.
    Cancel,
}

/// The requests of one device.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// Id of the one that is under way.
    running: Option<String>,
    waiting: VecDeque<Request>,
    done: VecDeque<(String, State)>,
}

impl Desk {
    /// A message on the device's request topic. An empty one is a retained request that was taken
    /// back, which asks for nothing.
    pub(super) fn arrive(&mut self, payload: &[u8]) -> Vec<Order> {
        if payload.is_empty() {
            return Vec::new();
        }
        match Request::parse(payload) {
            Err(refusal) => vec![failed(refusal.id, refusal.reason)],
            Ok(request) if request.kind == Kind::Cancel => self.cancel(request.id),
            Ok(request) => self.take(request),
        }
    }

    /// The request under way ended so.
    pub(super) fn finished(&mut self, state: State) -> Vec<Order> {
        let mut orders = Vec::new();
        if let Some(id) = self.running.take() {
            orders.push(self.close(id, state));
        }
        orders.extend(self.next());
        orders
    }

    fn take(&mut self, request: Request) -> Vec<Order> {
        let id = &request.id;
        if self.running.as_ref() == Some(id) {
            return Vec::new();
        }
        if let Some(answer) = self.remembered(id) {
            return vec![answer];
        }
        let mut orders = Vec::new();
        let known = self.waiting.iter().position(|waiting| waiting.id == *id);
        let place = known.unwrap_or(self.waiting.len());
        if place >= MAX_WAITING {
            let reason =
                format!("busy: {MAX_WAITING} requests are waiting already; ask again later");
            return vec![failed(request.id, reason)];
        }
        let ahead = place as u64 + u64::from(self.running.is_some());
        orders.push(Order::Answer(id.clone(), State::Init { ahead }));
        if known.is_none() {
            self.waiting.push_back(request);
        }
        orders.extend(self.next());
        orders
    }

    fn cancel(&mut self, id: String) -> Vec<Order> {
        if self.running.as_ref() == Some(&id) {
            return vec![Order::Cancel];
        }
        if let Some(place) = self.waiting.iter().position(|waiting| waiting.id == id) {
            self.waiting.remove(place);
            let state = failure("cancelled".into());
            return vec![self.close(id, state)];
        }
        let answer = self.remembered(&id);
        vec![answer.unwrap_or_else(|| failed(id, "no request of this id is here".into()))]
    }

    fn next(&mut self) -> Option<Order> {
        if self.running.is_some() {
            return None;
        }
        let request = self.waiting.pop_front()?;
        self.running = Some(request.id.clone());
        Some(Order::Start(request))
    }

    /// Remembers how a request ended, and says so.
    fn close(&mut self, id: String, state: State) -> Order {
        if self.done.len() == MAX_REMEMBERED {
            self.done.pop_front();
        }
        self.done.push_back((id.clone(), state.clone()));
        Order::Answer(id, state)
    }

    fn remembered(&self, id: &str) -> Option<Order> {
        let (_, state) = self.done.iter().find(|(done, _)| done == id)?;
        let mut state = state.clone();
        if let State::Successful(done) = &mut state {
            done.repeated = true;
        }
        Some(Order::Answer(id.to_owned(), state))
    }
}

/// The state of a request that came to nothing.
pub(super) fn failure(reason: String) -> State {
    State::Failed {
        reason,
        progress: Progress::default(),
    }
}

fn failed(id: String, reason: String) -> Order {
    Order::Answer(id, failure(reason))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use thinglog_schemas::request::Done;

    use super::*;

    fn ask(id: &str) -> Vec<u8> {
        format!(r#"{{"id":"{id}"}}"#).into_bytes()
    }

    fn cancel(id: &str) -> Vec<u8> {
        format!(r#"{{"id":"{id}","type":"cancel"}}"#).into_bytes()
    }

    fn success() -> State {
        State::Successful(Done::default())
    }

    /// `answer r1 init`, `start r1`, `cancel`.
    fn shown(orders: &[Order]) -> Vec<String> {
        let show = |order: &Order| match order {
            Order::Answer(id, State::Init { ahead }) => format!("init {id} {ahead}"),
            Order::Answer(id, State::Successful(done)) if done.repeated => format!("again {id}"),
            Order::Answer(id, State::Successful(_)) => format!("successful {id}"),
            Order::Answer(id, State::Failed { reason, .. }) => format!("failed {id}: {reason}"),
            Order::Answer(id, _) => format!("answer {id}"),
            Order::Start(request) => format!("start {}", request.id),
            Order::Cancel => "cancel".to_owned(),
        };
        orders.iter().map(show).collect()
    }

    #[test]
    fn requests_are_done_one_after_the_other() {
        let mut desk = Desk::default();
        assert_eq!(shown(&desk.arrive(&ask("a"))), ["init a 0", "start a"]);
        assert_eq!(shown(&desk.arrive(&ask("b"))), ["init b 1"]);
        assert_eq!(shown(&desk.arrive(&ask("c"))), ["init c 2"]);
        assert_eq!(
            shown(&desk.finished(success())),
            ["successful a", "start b"]
        );
        assert_eq!(
            shown(&desk.finished(failure("x".into()))),
            ["failed b: x", "start c"]
        );
        assert_eq!(shown(&desk.finished(success())), ["successful c"]);
    }

    #[test]
    fn a_request_that_comes_again_is_not_done_again() {
        let mut desk = Desk::default();
        desk.arrive(&ask("a"));
        assert!(desk.arrive(&ask("a")).is_empty(), "under way");
        desk.arrive(&ask("b"));
        assert_eq!(shown(&desk.arrive(&ask("b"))), ["init b 1"], "waiting");
        desk.finished(success());
        assert_eq!(shown(&desk.arrive(&ask("a"))), ["again a"], "done");
    }

    #[test]
    fn the_queue_is_bounded_and_says_so() {
        let mut desk = Desk::default();
        for id in ["a", "b", "c", "d", "e"] {
            desk.arrive(&ask(id));
        }
        let refused = shown(&desk.arrive(&ask("f")));
        assert!(refused[0].starts_with("failed f: busy"), "{refused:?}");
        desk.finished(success());
        assert_eq!(shown(&desk.arrive(&ask("f"))), ["init f 4"]);
    }

    #[test]
    fn a_request_is_cancelled_wherever_it_is() {
        let mut desk = Desk::default();
        desk.arrive(&ask("a"));
        desk.arrive(&ask("b"));
        assert_eq!(shown(&desk.arrive(&cancel("b"))), ["failed b: cancelled"]);
        assert_eq!(shown(&desk.arrive(&cancel("a"))), ["cancel"]);
        desk.finished(failure("cancelled".into()));
        assert_eq!(shown(&desk.arrive(&cancel("a"))), ["failed a: cancelled"]);
        let unknown = shown(&desk.arrive(&cancel("z")));
        assert!(unknown[0].contains("no request"), "{unknown:?}");
    }

    #[test]
    fn a_retained_request_that_is_taken_back_disturbs_nothing() {
        let mut desk = Desk::default();
        desk.arrive(&ask("a"));
        assert!(desk.arrive(b"").is_empty());
        assert_eq!(shown(&desk.finished(success())), ["successful a"]);
    }

    #[test]
    fn what_cannot_be_read_is_answered_with_a_reason() {
        let mut desk = Desk::default();
        let answer = shown(&desk.arrive(br#"{"id":"a","paths":["/"]}"#));
        assert!(answer[0].starts_with("failed a: ") && answer[0].contains("paths"));
        let answer = shown(&desk.arrive(b"hello"));
        assert!(answer[0].starts_with("failed refused: "), "{answer:?}");
    }

    proptest! {
        /// Whatever comes, one request is under way at a time, memory is bounded, and every request
        /// that was begun is answered once.
        #[test]
        fn it_never_loses_count(steps in proptest::collection::vec((0u8..3, 0u8..60), 0..300)) {
            let mut desk = Desk::default();
            let (mut begun, mut ended) = (0, 0);
            for (step, id) in steps {
                let orders = match step {
                    0 => desk.arrive(&ask(&id.to_string())),
                    1 => desk.arrive(&cancel(&id.to_string())),
                    _ => {
                        ended += u32::from(desk.running.is_some());
                        desk.finished(success())
                    }
                };
                begun += orders.iter().filter(|o| matches!(o, Order::Start(_))).count() as u32;
                prop_assert_eq!(begun - ended, u32::from(desk.running.is_some()));
                prop_assert!(desk.running.is_some() || desk.waiting.is_empty());
                prop_assert!(desk.waiting.len() <= MAX_WAITING && desk.done.len() <= MAX_REMEMBERED);
            }
        }
    }
}
