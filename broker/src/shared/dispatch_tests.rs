use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Three records of three devices each, and two members.
fn group(window: u16, members: &[ConnectionId]) -> Dispatch {
    let mut group = Dispatch::new(Cursor::at(0));
    for member in members {
        group.join(*member, window);
    }
    group
}

fn offer(group: &mut Dispatch, offset: u64, device: Device) -> Verdict {
    let offer = Offer {
        offset,
        device,
        bytes: 1,
    };
    group.offer(offer, |_| true)
}

#[test]
fn a_device_stays_with_its_holder_and_others_go_to_the_least_loaded() {
    let mut group = group(10, &[1, 2]);
    assert_eq!(offer(&mut group, 0, 7), Verdict::Give(1));
    assert_eq!(offer(&mut group, 1, 7), Verdict::Give(1));
    assert_eq!(offer(&mut group, 2, 8), Verdict::Give(2));
    assert_eq!(offer(&mut group, 3, 9), Verdict::Give(2), "one less");
    for offset in [0, 1] {
        assert!(group.acknowledge(1, offset));
    }
    assert_eq!(offer(&mut group, 4, 7), Verdict::Give(1), "nothing held");
    assert_eq!(group.cursor().position(), 2);
    assert!(!group.acknowledge(1, 2), "that is owed by another");
}

#[test]
fn a_member_that_never_acknowledges_stops_its_devices_and_no_others() {
    let mut group = group(2, &[1, 2]);
    assert_eq!(offer(&mut group, 0, 7), Verdict::Give(1));
    assert_eq!(offer(&mut group, 1, 7), Verdict::Give(1));
    assert_eq!(offer(&mut group, 2, 7), Verdict::Wait);
    for offset in 3..100 {
        assert_eq!(offer(&mut group, offset, 8), Verdict::Give(2));
        assert!(group.acknowledge(2, offset));
    }
    assert_eq!(group.due(10), [0u64; 0]);
    assert_eq!(group.cursor().position(), 0);
    group.leave(1);
    assert_eq!(group.due(10), [0, 1], "as much as the other takes");
    for offset in 0..3 {
        assert_eq!(offer(&mut group, offset, 7), Verdict::Give(2));
        assert!(group.acknowledge(2, offset));
    }
    assert_eq!(group.cursor().position(), 100);
}

#[test]
fn a_group_reads_a_million_records_ahead_and_no_further() {
    let mut group = group(5, &[1, 2]);
    assert_eq!(offer(&mut group, 0, 7), Verdict::Give(1));
    group.pass_over(REACH - 2, 0);
    assert!(group.may_read_on());
    group.pass_over(REACH - 1, 0);
    assert!(!group.may_read_on());
    assert!(group.acknowledge(1, 0));
    assert!(group.may_read_on());
}

#[test]
fn a_retired_member_keeps_what_it_was_sent_and_gets_no_more() {
    let mut group = group(5, &[1]);
    for offset in 0..3 {
        assert_eq!(offer(&mut group, offset, 7), Verdict::Give(1));
    }
    group.retire(1);
    group.give_back(1, &[1, 2]);
    group.join(2, 5);
    assert_eq!(offer(&mut group, 1, 7), Verdict::Wait, "0 is under way");
    assert_eq!(offer(&mut group, 3, 8), Verdict::Give(2));
    assert!(group.acknowledge(1, 0));
    assert_eq!(group.due(9), [1, 2]);
    assert_eq!(offer(&mut group, 1, 7), Verdict::Give(2));
}

#[test]
fn a_record_that_no_member_may_have_is_for_nobody() {
    let mut group = group(5, &[1, 2]);
    let one = Offer {
        offset: 0,
        device: 7,
        bytes: 1,
    };
    assert_eq!(group.offer(one, |_| false), Verdict::Nobody);
    group.pass_over(0, 7);
    let next = Offer { offset: 1, ..one };
    assert_eq!(group.offer(next, |member| member == 2), Verdict::Give(2));
    let other = Offer { offset: 2, ..one };
    assert_eq!(group.offer(other, |member| member == 1), Verdict::Wait);
    assert!(group.acknowledge(2, 1));
    assert_eq!(group.offer(other, |member| member == 1), Verdict::Give(1));
}

#[test]
fn what_waits_and_was_cut_is_done() {
    let mut group = group(1, &[1]);
    assert_eq!(offer(&mut group, 0, 7), Verdict::Give(1));
    for offset in 1..5 {
        assert_eq!(offer(&mut group, offset, 7), Verdict::Wait);
    }
    assert_eq!(group.drop_waiting(|offset| offset < 3), 2);
    assert!(group.acknowledge(1, 0));
    assert_eq!(group.cursor().position(), 3);
    assert_eq!(group.due(9), [3]);
}

/// What happens next in a run, as numbers that pick from what there is.
#[derive(Clone, Debug)]
enum Step {
    /// Read on: a record of this device, or one nobody wants.
    Read(Option<Device>),
    /// Read again what could go.
    Again,
    Join(u16),
    Leave(usize),
    Retire(usize),
    Acknowledge(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => proptest::option::weighted(0.9, 0..4u64).prop_map(Step::Read),
        3 => Just(Step::Again),
        1 => (1..5u16).prop_map(Step::Join),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => any::<usize>().prop_map(Step::Retire),
        8 => any::<usize>().prop_map(Step::Acknowledge),
    ]
}

/// A group beside what is plainly true of it.
#[derive(Debug, Default)]
struct Model {
    /// Device of every record that was read; `None` for those that nobody wants.
    records: Vec<Option<Device>>,
    /// Who has what.
    held: BTreeMap<u64, ConnectionId>,
    acknowledged: BTreeSet<u64>,
    members: BTreeSet<ConnectionId>,
    next_member: ConnectionId,
}

impl Model {
    /// A record goes to a member: nobody has it, it is not done, nobody else has anything of its
    /// device, and nothing older of it waits.
    fn given(&mut self, offset: u64, member: ConnectionId) {
        let device = self.records[offset as usize];
        assert!(self.members.contains(&member));
        assert!(!self.acknowledged.contains(&offset));
        for other in (0..self.records.len() as u64).filter(|o| self.records[*o as usize] == device)
        {
            if let Some(holder) = self.held.get(&other) {
                assert!(*holder == member && other < offset, "{other} {offset}");
            } else if other < offset {
                assert!(self.acknowledged.contains(&other), "{other} waits");
            }
        }
        self.held.insert(offset, member);
    }

    fn offer(&mut self, group: &mut Dispatch, offset: u64) -> bool {
        let Some(device) = self.records[offset as usize] else {
            group.pass_over(offset, 0);
            return false;
        };
        match offer(group, offset, device) {
            Verdict::Give(member) => {
                self.given(offset, member);
                true
            }
            verdict => {
                assert_eq!(verdict, Verdict::Wait);
                false
            }
        }
    }

    /// Reads again until nobody takes more.
    fn again(&mut self, group: &mut Dispatch) {
        loop {
            let due = group.due(7);
            let before = self.held.len();
            for offset in &due {
                self.offer(group, *offset);
            }
            if due.is_empty() {
                return;
            }
            assert!(self.held.len() > before, "{due:?} do not go");
        }
    }

    fn run(&mut self, group: &mut Dispatch, step: Step) {
        let pick = |from: &BTreeSet<ConnectionId>, n: usize| {
            (!from.is_empty()).then(|| *from.iter().nth(n % from.len()).unwrap())
        };
        match step {
            Step::Read(device) if group.may_read_on() => {
                let offset = self.records.len() as u64;
                self.records.push(device);
                self.offer(group, offset);
            }
            Step::Read(_) => {}
            Step::Again => self.again(group),
            Step::Join(window) => {
                self.next_member += 1;
                self.members.insert(self.next_member);
                group.join(self.next_member, window);
            }
            Step::Leave(n) => {
                if let Some(member) = pick(&self.members, n) {
                    self.members.remove(&member);
                    self.held.retain(|_, holder| *holder != member);
                    group.leave(member);
                }
            }
            Step::Retire(n) => {
                if let Some(member) = pick(&self.members, n) {
                    // The newer half was not sent yet.
                    let held = self.held.iter().filter(|(_, holder)| **holder == member);
                    let held: Vec<u64> = held.map(|(offset, _)| *offset).collect();
                    let unsent = &held[held.len() / 2..];
                    self.held.retain(|offset, _| !unsent.contains(offset));
                    group.retire(member);
                    group.give_back(member, unsent);
                }
            }
            Step::Acknowledge(n) => {
                if self.held.is_empty() {
                    return;
                }
                let (offset, member) = self.held.iter().nth(n % self.held.len()).unwrap();
                let (offset, member) = (*offset, *member);
                self.held.remove(&offset);
                self.acknowledged.insert(offset);
                assert!(group.acknowledge(member, offset));
                assert!(!group.acknowledge(member, offset));
            }
        }
    }

    fn check(&self, group: &Dispatch) {
        for (offset, device) in self.records.iter().enumerate() {
            let offset = offset as u64;
            let done = device.is_none() || self.acknowledged.contains(&offset);
            assert_eq!(group.is_done(offset), done, "{offset}");
        }
        let wanted = self.records.iter().flatten().count();
        let waiting = wanted - self.acknowledged.len() - self.held.len();
        assert_eq!(group.waiting(), waiting);
        assert_eq!(group.given(), self.held.len());
        assert_eq!(group.members(), self.members.len());
        for line in group.lines.values() {
            assert!(line.given > 0 || !line.waiting.is_empty(), "a line is left");
            assert_eq!(line.given > 0, line.holder.is_some());
        }
    }
}

proptest! {
    #[test]
    fn every_record_is_acknowledged_once_in_the_order_of_its_device_whoever_comes_and_goes(
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let mut group = Dispatch::new(Cursor::at(0));
        let mut model = Model::default();
        for step in steps {
            model.run(&mut group, step);
            model.check(&group);
        }
        // One member that acknowledges everything gets what is left.
        for member in std::mem::take(&mut model.members) {
            group.leave(member);
        }
        model.held.clear();
        model.run(&mut group, Step::Join(3));
        loop {
            model.again(&mut group);
            if model.held.is_empty() {
                break;
            }
            model.run(&mut group, Step::Acknowledge(0));
        }
        model.check(&group);
        prop_assert_eq!(group.cursor().position(), model.records.len() as u64);
        prop_assert!(group.lines.is_empty() && group.free.is_empty());
    }
}
