//! Where a record comes from, as user properties for those who are told (`thinglog-offset`,
//! `thinglog-received`, `thinglog-address`, `thinglog-principal`).

use std::net::IpAddr;

use thinglog_journal::Record as JournalRecord;

use crate::{
    codec::put_user_property,
    record::{NO_ADDRESS, Record},
};

/// Writes stamps; keeps what one has in common with the next.
#[derive(Debug)]
pub(crate) struct Stamps {
    /// `<journal id>/`, the beginning of every `thinglog-offset`.
    journal: String,
    /// The address of the last stamp, encoded.
    address: (IpAddr, Vec<u8>),
}

impl Stamps {
    pub(crate) fn new(journal: u64) -> Stamps {
        Stamps {
            journal: format!("{journal:016x}/"),
            address: (NO_ADDRESS, Vec::new()),
        }
    }

    /// Appends the stamp of a record, encoded.
    pub(crate) fn write(&mut self, at: &JournalRecord, record: &Record<'_>, out: &mut Vec<u8>) {
        let mut digits = [0u8; 20];
        let mut place = [0u8; 40];
        let prefix = self.journal.len();
        place[..prefix].copy_from_slice(self.journal.as_bytes());
        let offset = decimal(at.offset, &mut digits);
        place[prefix..prefix + offset.len()].copy_from_slice(offset);
        let place = &place[..prefix + offset.len()];
        put_user_property(out, "thinglog-offset", place);
        let received = decimal(at.time, &mut digits);
        put_user_property(out, "thinglog-received", received);
        if self.address.0 != record.address || self.address.1.is_empty() {
            self.address = (record.address, Vec::new());
            let text = record.address.to_string();
            put_user_property(&mut self.address.1, "thinglog-address", text.as_bytes());
        }
        out.extend_from_slice(&self.address.1);
        if let Some(principal) = record.principal {
            put_user_property(out, "thinglog-principal", principal.as_bytes());
        }
    }
}

fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_full() {
        let mut digits = [0; 20];
        assert_eq!(decimal(0, &mut digits), b"0");
        assert_eq!(decimal(u64::MAX, &mut digits), b"18446744073709551615");
    }
}
