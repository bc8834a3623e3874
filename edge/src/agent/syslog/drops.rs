//! Datagrams that the kernel dropped because a socket's buffer was full: the last column of
//! /proc/net/udp and udp6 (proc(5)), in the line of the socket's inode.

use std::{fs, os::fd::AsFd};

/// Watches one UDP socket.
#[derive(Debug)]
pub(super) struct Drops {
    inode: u64,
    seen: u64,
}

impl Drops {
    /// `None` where the system does not say.
    pub(super) fn of(socket: impl AsFd) -> Option<Drops> {
        let inode = rustix::fs::fstat(socket).ok()?.st_ino;
        let drops = Drops { inode, seen: 0 };
        drops.now().map(|seen| Drops { seen, ..drops })
    }

    /// How many came since the last call.
    pub(super) fn more(&mut self) -> u64 {
        let now = self.now().unwrap_or(self.seen);
        let more = now.saturating_sub(self.seen);
        self.seen = now;
        more
    }

    fn now(&self) -> Option<u64> {
        let tables = ["/proc/self/net/udp", "/proc/self/net/udp6"].into_iter();
        let mut texts = tables.filter_map(|table| fs::read_to_string(table).ok());
        texts.find_map(|text| dropped(&text, self.inode))
    }
}

fn dropped(table: &str, inode: u64) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let found = columns.nth(9)?.parse() == Ok(inode);
        found.then(|| columns.last()?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_socket_is_found() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  373: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 18522 2 0000000000000000 0
  834: 00000000:0202 00000000:0000 07 00000000:00033400 00:00000000 00000000     0        0 20311 2 0000000000000000 4711
";
        assert_eq!(dropped(table, 20311), Some(4711));
        assert_eq!(dropped(table, 18522), Some(0));
        assert_eq!(dropped(table, 7), None);
    }

    #[test]
    fn what_a_full_socket_dropped_is_counted() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let Some(mut drops) = Drops::of(&socket) else {
            eprintln!("SKIP: this system has no /proc/net/udp");
            return;
        };
        assert_eq!(drops.more(), 0);
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let sent = 20_000;
        for _ in 0..sent {
            sender.send_to(&[b'x'; 1000], address).unwrap();
        }
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 2000];
        let received = std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count() as u64;
        assert!(received < sent);
        assert_eq!(drops.more(), sent - received);
        assert_eq!(drops.more(), 0);
    }
}
