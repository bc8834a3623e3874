use proptest::prelude::*;
use thinglog_schemas::query::EventQuery;
use zstd::bulk::Compressor;

use super::*;

/// A row that owns its texts.
#[derive(Clone, Debug)]
struct Owned {
    device: String,
    source: String,
    grade: u8,
    time: u64,
    received: u64,
    row: u64,
    id: EventId,
    message: String,
    attributes: String,
}

impl Owned {
    fn row(&self) -> Row<'_> {
        Row {
            device: &self.device,
            source: &self.source,
            grade: self.grade,
            time: self.time,
            received: self.received,
            row: self.row,
            id: self.id,
            message: &self.message,
            attributes: &self.attributes,
        }
    }
}

fn any_id() -> impl Strategy<Value = EventId> {
    let number = prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), 0..50u64];
    prop_oneof![
        Just(EventId::None),
        (0..3u64, number.clone()).prop_map(|(epoch, seq)| EventId::Spooled { epoch, seq }),
        (any::<u64>(), number.clone(), any::<u32>()).prop_map(|(journal, offset, index)| {
            EventId::Stored {
                journal,
                offset,
                index,
            }
        }),
        (0..2u64, number.clone(), number).prop_map(|(epoch, a, b)| EventId::Gap {
            epoch,
            from: a.min(b),
            to: a.max(b)
        }),
    ]
}

fn any_row() -> impl Strategy<Value = Owned> {
    let time = prop_oneof![
        Just(0),
        Just(u64::MAX),
        any::<u64>(),
        (0..9u64).prop_map(|s| s * 1_000_000_000)
    ];
    (
        ("[ab]", "[a-c]{1,2}", 1..=24u8, any::<(bool, bool)>()),
        (time.clone(), time, any::<u64>(), any_id()),
        (
            ".{0,12}",
            prop_oneof![Just(String::new()), Just("{\"a\":1}".to_owned())],
        ),
    )
        .prop_map(
            |(
                (device, source, severity, (a, b)),
                (time, received, row, id),
                (message, attributes),
            )| Owned {
                device,
                source,
                grade: severity | if a { ESTIMATED } else { 0 } | if b { TRUNCATED } else { 0 },
                time,
                received,
                row,
                id,
                message,
                attributes,
            },
        )
}

fn written(rows: &[Owned]) -> Vec<u8> {
    let mut builder = Builder::new();
    rows.iter().for_each(|row| builder.push(&row.row()));
    let mut out = Vec::new();
    builder
        .finish(&mut Compressor::new(1).unwrap(), &mut out)
        .unwrap();
    out
}

proptest! {
    #[test]
    fn rows_come_back(mut rows in proptest::collection::vec(any_row(), 1..40)) {
        rows.sort_by(|a, b| a.device.cmp(&b.device));
        let block = written(&rows);
        prop_assert_eq!(length(&head(&block).unwrap()), block.len());
        let mut unpack = Unpack::new().unwrap();
        let numbers = Numbers::read(&mut unpack, &block).unwrap();
        let ids = numbers.ids().unwrap();
        let messages = Messages::read(&mut unpack, &block).unwrap();
        let attributes = Messages::attributes(&mut unpack, &block).unwrap();
        let mut builder = Builder::new();
        for (device, range) in &numbers.devices {
            for index in range.clone() {
                let row = numbers.row(device, index, ids[index], messages.get(index), attributes.get(index));
                prop_assert_eq!(row, rows[index].row());
                builder.push(&row);
            }
        }
        prop_assert_eq!(numbers.facts(), builder.facts);
    }

    #[test]
    fn a_pattern_is_found_in_rows_as_in_each_message(
        messages in proptest::collection::vec(prop_oneof!["[ab\n]{0,3}", "[abä\u{212a}ſ]{0,3}", "[abks \r\n-]{0,3}", "[abK \r]{0,4}"], 1..12),
        pattern in prop::sample::select(vec!["a", "^b", "a$", r"\Ab\z", "(?m)^b$", "(?s)a.b", "^$", "", "ä", r"\bab", r"\n", "(?mR)a$", "a[^a]b", r"\B", r"\b{end}", r"a\b", r"\W", r"\s", "(?i)k", "(?i)S", r"[^\n]*$"]),
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
    ) {
        let mut builder = Builder::new();
        for message in &messages {
            let id = EventId::None;
            let (device, source, attributes) = ("a", "b", "");
            builder.push(&Row { device, source, grade: 9, time: 0, received: 0, row: 0, id, message, attributes });
        }
        let mut block = Vec::new();
        builder.finish(&mut Compressor::new(1).unwrap(), &mut block).unwrap();
        let texts = Messages::read(&mut Unpack::new().unwrap(), &block).unwrap();
        let query = EventQuery::parse(&format!("message ~ /{pattern}/")).unwrap();
        let pattern = query.pattern().unwrap();
        let (from, to) = (from.index(messages.len() + 1), to.index(messages.len() + 1));
        let expected = (from..to).find(|row| pattern.is_match(&messages[*row]));
        prop_assert_eq!(texts.find(pattern, &mut None, from..to), expected);
    }

    #[test]
    fn a_changed_byte_is_damage(rows in proptest::collection::vec(any_row(), 1..9), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut rows = rows;
        rows.sort_by(|a, b| a.device.cmp(&b.device));
        let mut block = written(&rows);
        let at = at.index(block.len());
        block[at] ^= 1 << bit;
        prop_assert!(Numbers::read(&mut Unpack::new().unwrap(), &block).is_err());
    }

    #[test]
    fn garbage_with_a_good_checksum_is_no_panic(mut block in proptest::collection::vec(any::<u8>(), 36..200), rows in 1..9u8) {
        block[..4].copy_from_slice(&MAGIC.to_le_bytes());
        block[8..12].copy_from_slice(&[rows, 0, 0, 0]);
        let column = (block.len() - HEAD) / 3;
        let frame: Vec<Vec<u8>> = block[HEAD..].chunks(column.max(1)).take(3).map(|raw| zstd::bulk::compress(raw, 1).unwrap()).collect();
        let raw: Vec<usize> = block[HEAD..].chunks(column.max(1)).take(3).map(<[u8]>::len).collect();
        if frame.len() < 3 { return Ok(()); }
        block.truncate(HEAD);
        for (which, frame) in frame.iter().enumerate() {
            let at = 12 + 8 * which;
            block[at..at + 4].copy_from_slice(&(frame.len() as u32).to_le_bytes());
            block[at + 4..at + 8].copy_from_slice(&(raw[which] as u32).to_le_bytes());
        }
        frame.iter().for_each(|frame| block.extend_from_slice(frame));
        let crc = crc32fast::hash(&block[8..]);
        block[4..8].copy_from_slice(&crc.to_le_bytes());
        let mut unpack = Unpack::new().unwrap();
        if let Ok(numbers) = Numbers::read(&mut unpack, &block) {
            numbers.facts();
            let _ = numbers.ids();
        }
        for texts in [Messages::read(&mut unpack, &block), Messages::attributes(&mut unpack, &block)].into_iter().flatten() {
            (0..usize::from(rows)).for_each(|index| drop(texts.get(index).to_owned()));
        }
    }
}
