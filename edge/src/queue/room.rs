//! Who gives way when memory is full: the least grave first, of the source that holds most of it, the
//! oldest first; never more than needed.

use thinglog_schemas::batch::Entry;

use super::{Carried, Queue, lane::Lane};

/// Events that were given up and wait to be freed, no more than a 64th of the memory; and what one of them
/// may cost, bytes: larger ones are freed at once.
const MOST_GIVEN_UP: usize = 64;
const SMALL: usize = 1 << 10;

/// What gave way when memory was full last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tight {
    /// Nothing less grave is here (but for sources that wait).
    class: usize,
    /// The lane that gave up some of it; none, when there was nothing of that class either.
    victim: Option<usize>,
}

/// Events that memory has no room for: those below a class, and those of it whose own source would give way
/// for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refuses {
    pub(crate) class: usize,
    /// The [`name_hash`](super::name_hash) of that source; `None`: there is nothing of that class to give way for any.
    pub(crate) source: Option<u32>,
    /// Bytes that there is room for.
    pub(crate) free: usize,
}

impl Queue {
    /// The oldest event that was given up and is still to be freed: by who gives one in, once it has
    /// released the lock.
    pub(crate) fn take_given_up(&mut self) -> Option<Entry<Carried>> {
        self.given_up.pop_front()
    }

    /// Whether `cost` fits, or does once the oldest events of the least grave classes, up to `class`, have
    /// given way. False when what remains is graver (or belongs to sources that wait); nothing is given up
    /// then.
    pub(super) fn find_room(&mut self, cost: usize, class: usize) -> bool {
        if self.outside + cost > self.options.memory_bytes {
            return false;
        }
        self.squeeze_ring(cost, self.options.memory_bytes);
        let least = self.tight.map_or(0, |tight| tight.class);
        let missing = self.missing(cost);
        if missing == 0 {
            self.tight = self.tight.filter(|_| class >= least);
            return true;
        }
        if !self.could_give(missing, least, class) {
            return false;
        }
        for class in least..=class {
            while self.missing(cost) > 0 {
                let Some(victim) = self.victim(class) else {
                    break;
                };
                self.give_up_from(victim, class);
                let victim = Some(victim);
                self.tight = Some(Tight { class, victim });
            }
        }
        true
    }

    /// Bytes that have to go for `cost` to fit.
    fn missing(&self, cost: usize) -> usize {
        (self.used() + cost).saturating_sub(self.options.memory_bytes)
    }

    /// Whether classes from `least` to `class` hold that much to give up.
    fn could_give(&mut self, bytes: usize, least: usize, class: usize) -> bool {
        let first = (least..=class).find_map(|class| Some((class, self.victim(class)?)));
        let Some((first, victim)) = first else {
            if class >= least {
                let victim = None;
                self.tight = Some(Tight { class, victim });
            }
            return false;
        };
        let of_lane = |lane: &Lane| -> usize {
            let classes = first..=class;
            classes.map(|class| lane.class_bytes(class)).sum()
        };
        let largest = self.lanes[victim].as_ref().map_or(0, of_lane);
        let impatient = self.lanes.iter().flatten().filter(|lane| !lane.patient);
        largest >= bytes || impatient.map(of_lane).sum::<usize>() >= bytes
    }

    /// Which events may as well be refused before they come here. `None` when memory is not full, or when
    /// errors have more to do than to be queued.
    pub(crate) fn refuses(&self) -> Option<Refuses> {
        let plain = self.ring.is_none() && !self.hasten_errors;
        let Tight { class, victim } = self.tight.filter(|_| plain)?;
        let lane = victim.map(|victim| self.lanes[victim].as_ref());
        Some(Refuses {
            class,
            source: lane.map(|lane| lane.map_or(0, |lane| lane.name_hash)),
            free: self.options.memory_bytes.saturating_sub(self.used()),
        })
    }

    /// The impatient lane that holds most of a class. Looked for anew only now and then: a full
    /// queue gives something up for every event.
    fn victim(&mut self, class: usize) -> Option<usize> {
        const KEEP: u32 = 64;
        let has_some = |lane: &Lane| !lane.patient && lane.class_bytes(class) > 0;
        if let Some((index, uses)) = &mut self.victims[class]
            && *uses > 0
            && self.lanes[*index].as_ref().is_some_and(has_some)
        {
            *uses -= 1;
            return Some(*index);
        }
        let lanes = self.lanes.iter().enumerate();
        let largest = lanes
            .filter_map(|(index, lane)| Some((lane.as_ref().filter(|l| has_some(l))?, index)))
            .max_by_key(|(lane, _)| lane.class_bytes(class))
            .map(|(_, index)| index);
        self.victims[class] = largest.map(|index| (index, KEEP));
        largest
    }

    fn give_up_from(&mut self, index: usize, class: usize) {
        let Some(lane) = self.lanes[index].as_mut() else {
            return;
        };
        if let Some((entry, cost, awaited)) = lane.give_up(class) {
            let most = self.options.memory_bytes / (64 * SMALL);
            if cost <= SMALL && self.given_up.len() < most.min(MOST_GIVEN_UP) {
                self.given_up.push_back(entry);
            }
            self.bytes -= cost;
            self.events -= 1;
            self.counters.dropped += 1;
            self.flush_losses += u64::from(awaited);
        }
    }
}
