//! Who gives way when memory is full: the least grave first, of the source that holds most of it, the
//! oldest first; never more than needed.

use thinglog_schemas::batch::Entry;

use super::{
    Carried, Queue,
    lane::{CLASSES, Lane},
};

/// Events that were given up and wait to be freed, no more than a 64th of the memory; and what one of them
/// may cost, bytes: larger ones are freed at once.
const MOST_GIVEN_UP: usize = 64;
const SMALL: usize = 1 << 10;

impl Queue {
    /// The oldest event that was given up and is still to be freed: by who gives one in, once it has
    /// released the lock.
    pub(crate) fn take_given_up(&mut self) -> Option<Entry<Carried>> {
        self.given_up.pop_front()
    }

    /// Whether `cost` fits, or can be made to by giving up the oldest events of the least grave classes, up
    /// to `class`. False when what remains is graver (or belongs to sources that wait).
    pub(super) fn find_room(&mut self, cost: usize, class: usize) -> bool {
        if self.used() + cost <= self.options.memory_bytes {
            self.tight = None;
            return true;
        }
        let room = self.make_room(cost, class);
        if !room {
            self.tight = self.tight.max(Some(class));
        }
        room
    }

    fn make_room(&mut self, cost: usize, class: usize) -> bool {
        if self.outside + cost > self.options.memory_bytes {
            return false;
        }
        self.squeeze_ring(cost, self.options.memory_bytes);
        for class in 0..=class.min(CLASSES - 1) {
            while self.bytes + self.outside + cost > self.options.memory_bytes {
                let Some(victim) = self.victim(class) else {
                    break;
                };
                self.give_up_from(victim, class);
                self.tight = Some(class);
            }
        }
        self.bytes + self.outside + cost <= self.options.memory_bytes
    }

    /// The class up to which events may as well be refused before they come here: memory is full, and there
    /// is nothing less grave that would give way for them. `None` when there may be room, or when errors have
    /// more to do than to be queued.
    pub(crate) fn refuses(&self) -> Option<usize> {
        let full = self.used() + SMALL > self.options.memory_bytes;
        let plain = self.ring.is_none() && !self.hasten_errors;
        self.tight.filter(|_| full && plain)
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
