//! What one connection has received and not yet acknowledged. Pure.
//!
//! Deliveries are numbered in receive order and settled in that order, so an acknowledgement is one
//! number: everything up to it. PUBACKs therefore leave in receive order too (MQTT 5.0 section 4.6).

use std::collections::VecDeque;

/// The unacknowledged deliveries of one connection, bounded in bytes by its owner and in packets
/// by the receive maximum it announced.
#[derive(Debug)]
pub(crate) struct Window {
    /// Oldest first; `packet_id` 0 is QoS 0 and wants no PUBACK.
    open: VecDeque<Open>,
    /// Number of the next delivery.
    next: u64,
    bytes: usize,
    limit_packets: usize,
    limit_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    packet_id: u16,
    bytes: u32,
}

impl Window {
    pub(crate) fn new(limit_packets: u16, limit_bytes: usize) -> Window {
        Window {
            open: VecDeque::new(),
            next: 0,
            bytes: 0,
            limit_packets: usize::from(limit_packets),
            limit_bytes,
        }
    }

    /// Takes in a delivery; returns its number.
    pub(crate) fn admit(&mut self, packet_id: u16, bytes: usize) -> u64 {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.open.push_back(Open { packet_id, bytes });
        self.bytes += bytes as usize;
        let number = self.next;
        self.next += 1;
        number
    }

    /// Settles everything up to and including `number`, giving each packet id that wants a PUBACK,
    /// in receive order. Settling twice does nothing.
    pub(crate) fn settle(&mut self, number: u64, mut puback: impl FnMut(u16)) {
        let first = self.next - self.open.len() as u64;
        let settled = number.saturating_add(1).saturating_sub(first);
        let settled = usize::try_from(settled).unwrap_or(usize::MAX);
        for open in self.open.drain(..settled.min(self.open.len())) {
            self.bytes -= open.bytes as usize;
            if open.packet_id != 0 {
                puback(open.packet_id);
            }
        }
    }

    /// Whether the owner has to stop reading until something is settled.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= self.limit_bytes || self.open.len() >= self.limit_packets
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn packets(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settle(window: &mut Window, number: u64) -> Vec<u16> {
        let mut acks = Vec::new();
        window.settle(number, |id| acks.push(id));
        acks
    }

    #[test]
    fn acknowledgements_leave_in_receive_order_and_once() {
        let mut window = Window::new(10, 1000);
        for id in [5, 3, 0, 9] {
            window.admit(id, 10);
        }
        assert_eq!(settle(&mut window, 1), [5, 3]);
        assert!(settle(&mut window, 1).is_empty());
        assert_eq!(settle(&mut window, 3), [9]);
        assert_eq!((window.bytes(), window.packets()), (0, 0));
    }

    #[test]
    fn a_number_from_the_future_settles_what_there_is() {
        let mut window = Window::new(10, 1000);
        window.admit(1, 10);
        assert_eq!(settle(&mut window, u64::MAX), [1]);
        assert_eq!(window.admit(2, 10), 1);
    }

    #[test]
    fn full_by_bytes_or_by_packets() {
        let mut window = Window::new(2, 100);
        window.admit(1, 100);
        assert!(window.is_full());
        settle(&mut window, 0);
        window.admit(2, 1);
        assert!(!window.is_full());
        window.admit(3, 1);
        assert!(window.is_full());
    }

    proptest! {
        #[test]
        fn every_admitted_packet_is_acknowledged_exactly_once(
            steps in proptest::collection::vec((1usize..20, 0u64..40), 1..50),
        ) {
            let mut window = Window::new(u16::MAX, usize::MAX);
            let (mut sent, mut acked) = (Vec::new(), Vec::new());
            for (count, settled) in steps {
                for _ in 0..count {
                    let id = (sent.len() % 65_535) as u16 + 1;
                    prop_assert_eq!(window.admit(id, 3), sent.len() as u64);
                    sent.push(id);
                }
                window.settle(settled, |id| acked.push(id));
                prop_assert_eq!(window.packets() + acked.len(), sent.len());
                prop_assert_eq!(window.bytes(), 3 * window.packets());
            }
            window.settle(u64::MAX, |id| acked.push(id));
            prop_assert_eq!(acked, sent);
        }
    }
}
