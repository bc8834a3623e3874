//! The newest groups, kept in memory for readers at the tail. Bounded in bytes; what it holds is
//! durable and contiguous: every durable record from `from` on.

use std::collections::VecDeque;

use bytes::Bytes;

pub(crate) struct Tail {
    groups: VecDeque<Group>,
    /// Everything durable from here on is in memory.
    from: u64,
    bytes: usize,
    limit: usize,
}

#[derive(Clone)]
pub(crate) struct Group {
    pub(crate) first: u64,
    /// One past the last offset.
    pub(crate) end: u64,
    pub(crate) frames: Bytes,
    /// Memory it keeps alive.
    pub(crate) cost: usize,
}

pub(crate) enum Lookup<'a> {
    /// Not in memory any more.
    Behind,
    /// The group with the first durable record at or after the offset.
    At(&'a Group),
    /// Nothing durable at or after the offset yet.
    End,
}

impl Tail {
    /// An empty tail of a journal whose next offset is `from`.
    pub(crate) fn new(from: u64, limit: usize) -> Tail {
        Tail {
            groups: VecDeque::new(),
            from,
            bytes: 0,
            limit,
        }
    }

    /// Adds a group; what has to go for it is put into `dropped`.
    pub(crate) fn push(
        &mut self,
        first: u64,
        end: u64,
        frames: Bytes,
        cost: usize,
        dropped: &mut Vec<Group>,
    ) {
        self.groups.push_back(Group {
            first,
            end,
            frames,
            cost,
        });
        self.bytes += cost;
        while self.bytes > self.limit
            && let Some(oldest) = self.groups.pop_front()
        {
            self.bytes -= oldest.cost;
            self.from = oldest.end;
            dropped.push(oldest);
        }
    }

    /// What is below `offset`, where a group ends, is not in memory any more.
    pub(crate) fn forget_below(&mut self, offset: u64) {
        while self
            .groups
            .front()
            .is_some_and(|group| group.first < offset)
            && let Some(group) = self.groups.pop_front()
        {
            self.bytes -= group.cost;
            self.from = group.end;
        }
        self.from = self.from.max(offset);
    }

    pub(crate) fn lookup(&self, offset: u64) -> Lookup<'_> {
        if offset < self.from {
            return Lookup::Behind;
        }
        let at = self.groups.partition_point(|group| group.end <= offset);
        self.groups.get(at).map_or(Lookup::End, Lookup::At)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(tail: &Tail, offset: u64) -> Option<u64> {
        match tail.lookup(offset) {
            Lookup::At(group) => Some(group.first),
            Lookup::Behind | Lookup::End => None,
        }
    }

    #[test]
    fn the_oldest_groups_go_when_the_limit_is_passed() {
        let mut tail = Tail::new(5, 100);
        tail.push(5, 8, Bytes::new(), 60, &mut Vec::new());
        tail.push(10, 12, Bytes::new(), 40, &mut Vec::new());
        assert_eq!(
            (found(&tail, 5), found(&tail, 8), found(&tail, 11)),
            (Some(5), Some(10), Some(10))
        );
        tail.push(12, 13, Bytes::new(), 1, &mut Vec::new());
        assert!(matches!(tail.lookup(7), Lookup::Behind));
        assert_eq!(found(&tail, 8), Some(10));
        assert!(matches!(tail.lookup(13), Lookup::End));
    }

    #[test]
    fn a_group_over_the_limit_is_not_kept() {
        let mut tail = Tail::new(0, 100);
        tail.push(0, 3, Bytes::new(), 101, &mut Vec::new());
        assert!(matches!(tail.lookup(2), Lookup::Behind));
        assert!(matches!(tail.lookup(3), Lookup::End));
    }
}
