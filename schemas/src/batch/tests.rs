use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::arbitrary::{attributes, severities, texts};

fn drops() -> impl Strategy<Value = Drop> {
    let reasons = (0..DropReason::ALL.len()).prop_map(|index| DropReason::ALL[index]);
    let range = any::<(u32, u32)>().prop_map(|(a, b)| (a.min(b).into(), a.max(b).into()));
    (range, 1u64.., severities(), reasons).prop_map(|((from, to), count, severity, reason)| Drop {
        from,
        to,
        count,
        severity,
        reason,
    })
}

/// Steps of seq and time from one event to the next; small, huge, backwards.
fn steps() -> impl Strategy<Value = (u64, i64)> {
    let time = prop_oneof![
        (-5i64..5).prop_map(|n| n * 1_000_000_000),
        (-5i64..500).prop_map(|n| n * 1_000_000),
        any::<i64>(),
    ];
    (prop_oneof![4 => Just(1u64), 1 => 1u64..1 << 40], time)
}

fn batches() -> impl Strategy<Value = Batch> {
    let entry = (steps(), severities(), texts(), any::<bool>(), attributes());
    let entries = prop::collection::vec(entry, 0..40);
    let head = any::<(u64, u32, u64, u64, u64, bool)>();
    (head, entries, prop::collection::vec(drops(), 0..3)).prop_map(|(head, parts, mut drops)| {
        let (epoch, first_seq, base, boot, sent_mono, synced) = head;
        let (mut seq, mut time) = (u64::from(first_seq), base);
        let mut entries = Vec::new();
        for ((seq_step, time_step), severity, message, truncated, attributes) in parts {
            entries.push(Entry {
                seq,
                time,
                severity,
                message,
                truncated,
                attributes,
            });
            seq += seq_step;
            time = time.wrapping_add(time_step as u64);
        }
        if entries.is_empty() && drops.is_empty() {
            drops.push(drop_of(7, 7));
        }
        let clock = ClockInfo {
            boot,
            sent_mono,
            synced,
        };
        Batch {
            epoch,
            first_seq: u64::from(first_seq),
            clock,
            drops,
            entries,
        }
    })
}

fn drop_of(from: u64, to: u64) -> Drop {
    let (severity, reason) = (Severity::DEBUG, DropReason::SpoolFull);
    Drop {
        from,
        to,
        count: 1,
        severity,
        reason,
    }
}

fn entry(seq: u64, message: &str) -> Entry {
    Entry {
        seq,
        time: 1_767_323_045_000_000_000 + seq * 1_000_000,
        severity: Severity::INFO,
        message: message.into(),
        truncated: false,
        attributes: Attributes::new(),
    }
}

fn batch(entries: Vec<Entry>) -> Batch {
    let clock = ClockInfo {
        boot: 3,
        sent_mono: 4,
        synced: true,
    };
    let first_seq = entries.first().map_or(0, |entry| entry.seq);
    Batch {
        epoch: 1,
        first_seq,
        clock,
        drops: Vec::new(),
        entries,
    }
}

fn encoded(batch: &Batch) -> Vec<u8> {
    let mut out = Vec::new();
    Encoder::new().encode(batch, &mut out).unwrap();
    out
}

fn decoded(payload: &[u8]) -> Result<Batch, DecodeError> {
    Decoder::new().decode(payload)
}

fn malformed_reason(payload: &[u8]) -> String {
    match decoded(payload) {
        Err(DecodeError::Malformed(reason)) => reason,
        other => panic!("expected a malformed batch, got {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_batch_round_trips(first in batches(), second in batches()) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        for batch in [first, second] {
            let mut out = b"before".to_vec();
            encoder.encode(&batch, &mut out).unwrap();
            prop_assert!(is_batch(&out[6..]) && std::str::from_utf8(&out[6..]).is_err());
            prop_assert_eq!(decoder.decode(&out[6..]), Ok(batch));
        }
    }

    #[test]
    fn a_truncated_payload_is_refused(batch in batches(), cut in any::<prop::sample::Index>()) {
        let payload = encoded(&batch);
        prop_assert!(decoded(&payload[..cut.index(payload.len())]).is_err());
    }

    #[test]
    fn a_flipped_byte_never_panics(batch in batches(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut payload = encoded(&batch);
        let at = at.index(payload.len());
        payload[at] ^= flip;
        let _ = decoded(&payload);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), flags in 0u8..2) {
        let _ = decoded(&bytes);
        let payload = [&MAGIC[..], &[VERSION, flags], &bytes].concat();
        let _ = decoded(&payload);
    }

    #[test]
    fn an_arbitrary_body_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0u32..40) {
        let payload = raw(&Header { count, ..header(bytes.len()) }, &bytes);
        let _ = decoded(&payload);
    }

    #[test]
    fn an_entry_that_was_fitted_fits_a_batch(
        message in texts(), times in 1usize..20_000, wide in 0usize..400, deep in 0usize..80, long in 0usize..400_000
    ) {
        let mut entry = entry(0, &message.repeat(times));
        let nested = (0..deep).fold(json!(1), |inner, _| json!({"inner": inner}));
        entry.attributes.insert("deep".into(), nested);
        entry.attributes.insert("long".into(), json!("é".repeat(long)));
        entry.attributes.insert("list".into(), json!(vec![Value::Null; long]));
        entry.attributes.extend((0..wide).map(|n| (format!("{n}{message}"), json!(n))));
        entry.fit();
        let batch = batch(vec![entry]);
        prop_assert_eq!(decoded(&encoded(&batch)), Ok(batch));
    }
}

fn header(body_len: usize) -> Header {
    Header {
        epoch: 1,
        first_seq: 0,
        count: 1,
        base_time: 0,
        time_unit: 1,
        boot: 0,
        sent_mono: 0,
        clock: 1,
        body_len: body_len as u32,
        drops: Vec::new(),
    }
}

/// A payload with that header and body, whatever they say.
fn raw(header: &Header, body: &[u8]) -> Vec<u8> {
    let mut payload = [&MAGIC[..], &[VERSION, 0]].concat();
    rmp_serde::encode::write(&mut payload, header).unwrap();
    payload.extend_from_slice(body);
    payload
}

/// One event of seq 0 with an empty message; `attributes` are the bytes of that column.
fn body(attributes: &[u8]) -> Vec<u8> {
    [
        &[0x96, 0x90, 0x91, 0x00, 0xC4, 0x01, 9, 0x91, 0xA0],
        attributes,
        &[0x90],
    ]
    .concat()
}

#[test]
fn the_layout_is_that_of_the_golden_fixture() {
    let golden = include_bytes!("../../fixtures/batch-v1-plain.bin");
    let mut bytes = Vec::new();
    bytes.extend([0xFF, b't', b'l', b'g', 0x01, 0x00]);
    bytes.push(0x9A); // header: 10 fields
    bytes.extend([0xCF, 0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF]); // epoch
    bytes.push(0x05); // first_seq
    bytes.push(0x03); // count
    bytes.extend([0xCF, 0x18, 0x86, 0xCE, 0x65, 0x73, 0x33, 0x0A, 0x00]); // base_time
    bytes.extend([0xCE, 0x00, 0x0F, 0x42, 0x40]); // time_unit: a millisecond
    bytes.push(0x2A); // boot
    bytes.extend([0xCD, 0x03, 0xE8]); // sent_mono
    bytes.push(0x01); // clock: synced
    bytes.push(0x34); // body_len: 52
    bytes.extend([0x91, 0x95, 0x05, 0x06, 0x02, 0x05, 0x00]); // a drop of 5-6, 2 of DEBUG, spool full
    bytes.push(0x96); // body: 6 columns
    bytes.extend([0x93, 0x02, 0x01, 0x03]); // seqs 7, 8, 11
    bytes.extend([0x93, 0x00, 0xCC, 0xFA, 0xFF]); // times: base, +250 ms, -1 ms
    bytes.extend([0xC4, 0x03, 9, 13, 17]); // INFO, WARN, ERROR
    bytes.push(0x93);
    bytes.extend(b"\xA5hello\xA3b\xC3\xA4\xA0"); // "hello", "bä", ""
    bytes.extend([0x91, 0x92, 0x02, 0x83]); // attributes of the third: a map of 3
    bytes.extend(b"\xA1a\xFE\xA1b\x92\xC3\xC0\xA1c\xCB\x3F\xE0\0\0\0\0\0\0"); // -2, [true, null], 0.5
    bytes.extend([0x91, 0x01]); // the second was cut
    assert_eq!(bytes, golden, "the fixture is not what the layout says");

    let batch = decoded(golden).unwrap();
    assert_eq!(batch, golden_batch());
    assert_eq!(encoded(&batch), golden, "the encoder writes something else");
}

fn golden_batch() -> Batch {
    let base = 0x1886_CE65_7333_0A00;
    let entry = |seq, time, severity, message: &str| Entry {
        severity,
        time,
        ..entry(seq, message)
    };
    let mut entries = vec![
        entry(7, base, Severity::INFO, "hello"),
        entry(8, base + 250_000_000, Severity::WARN, "bä"),
        entry(11, base + 249_000_000, Severity::ERROR, ""),
    ];
    entries[1].truncated = true;
    entries[2].attributes = [
        ("a", json!(-2)),
        ("b", json!([true, null])),
        ("c", json!(0.5)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into_iter()
    .collect();
    Batch {
        epoch: 0x0123_4567_89AB_CDEF,
        first_seq: 5,
        clock: ClockInfo {
            boot: 42,
            sent_mono: 1000,
            synced: true,
        },
        drops: vec![Drop {
            count: 2,
            ..drop_of(5, 6)
        }],
        entries,
    }
}

/// What compressed it may change with zstd; that it can be read may not.
#[test]
fn the_compressed_golden_fixture_is_read() {
    let golden = include_bytes!("../../fixtures/batch-v1-zstd.bin");
    assert_eq!(golden[5], FLAG_ZSTD);
    assert_eq!(decoded(golden).unwrap(), compressed_golden_batch());
}

fn compressed_golden_batch() -> Batch {
    let message = |n: u64| format!("GET /lamps/{n} 200 in {} ms", n * n % 97);
    let mut golden = batch((0..100).map(|n| entry(n, &message(n))).collect());
    golden.clock.synced = false;
    golden.entries[10]
        .attributes
        .insert("unit".into(), json!("nginx"));
    golden
}

#[test]
fn likes_compress_and_small_bodies_stay_plain() {
    let line = "2026-01-02 worker 7: request served from cache, status 200, 512 bytes";
    let payload = encoded(&batch((0..500).map(|n| entry(n, line)).collect()));
    assert_eq!(payload[5], FLAG_ZSTD);
    assert!(payload.len() < 500 * 4, "{} bytes", payload.len());
    let payload = encoded(&batch(vec![entry(0, line)]));
    assert_eq!(payload[5], 0);
    assert!(payload.len() < line.len() + 48, "{} bytes", payload.len());
}

#[test]
fn times_cost_no_more_than_their_precision() {
    let spaced = |step: u64| {
        let entry = |n| Entry {
            time: 123 + n * step,
            ..entry(n, "")
        };
        encoded(&batch((0..100).map(entry).collect())).len()
    };
    // The unit itself takes four bytes more.
    assert_eq!(
        spaced(1_000_000_000),
        spaced(1) + 4,
        "a second takes a byte like a nanosecond"
    );
    assert!(spaced(1_000_000) < spaced(1_234_567));
}

#[test]
fn last_seq_covers_events_and_drops() {
    let mut batch = batch(vec![entry(5, "a"), entry(9, "b")]);
    assert_eq!(batch.last_seq(), 9);
    batch.drops.push(drop_of(10, 12));
    assert_eq!(batch.last_seq(), 12);
    batch.entries.clear();
    assert_eq!(batch.last_seq(), 12);
}

#[test]
fn what_no_batch_can_say_is_refused_and_appends_nothing() {
    let good = || batch(vec![entry(5, "a"), entry(6, "b")]);
    let mut cases = Vec::new();
    cases.push(Batch {
        entries: Vec::<Entry>::new(),
        ..good()
    });
    cases.push(batch(vec![entry(6, "a"), entry(6, "b")]));
    cases.push(Batch {
        first_seq: 6,
        ..good()
    });
    cases.push(batch(vec![Entry {
        seq: u64::MAX,
        ..entry(5, "a")
    }]));
    cases.push(batch(vec![entry(0, &"x".repeat(MAX_MESSAGE + 1))]));
    cases.push(Batch {
        drops: vec![drop_of(3, 2)],
        ..good()
    });
    cases.push(Batch {
        drops: vec![Drop {
            count: 0,
            ..drop_of(2, 3)
        }],
        ..good()
    });
    for case in cases {
        let mut out = Vec::new();
        assert!(
            matches!(
                Encoder::new().encode(&case, &mut out),
                Err(EncodeError::Invalid(_))
            ),
            "{case:?}"
        );
        assert!(out.is_empty());
    }
}

#[test]
fn what_is_too_large_is_to_be_split() {
    let noise = |n: u64| {
        let mut state = n + 1;
        let next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            char::from(b' ' + (state >> 57) as u8 % 90)
        };
        std::iter::repeat_with(next)
            .take(100_000)
            .collect::<String>()
    };
    let long = "x".repeat(MAX_MESSAGE);
    let nodes = Value::from(vec![1; 1 << 14]);
    let mut wide = batch((0..17).map(|n| entry(n, "")).collect());
    wide.entries
        .iter_mut()
        .for_each(|entry| drop(entry.attributes.insert("a".into(), nodes.clone())));
    let cases = [
        batch((0..20).map(|n| entry(n, &noise(n))).collect()),
        batch((0..33).map(|n| entry(n, &long)).collect()),
        batch((0..65_537).map(|n| entry(n, "")).collect()),
        Batch {
            drops: vec![drop_of(0, 0); MAX_DROPS + 1],
            ..batch(vec![entry(0, "")])
        },
        wide,
    ];
    for case in cases {
        let mut out = b"before".to_vec();
        let result = Encoder::new().encode(&case, &mut out);
        assert!(
            matches!(result, Err(EncodeError::TooLarge(_))),
            "{result:?}"
        );
        assert_eq!(out, b"before");
    }
}

#[test]
fn foreign_bytes_are_refused_with_the_reason() {
    let good = encoded(&golden_batch());
    assert!(malformed_reason(b"").contains("FF 74 6C 67"));
    assert!(malformed_reason(&MAGIC).contains("version"));
    assert!(malformed_reason(&good[..5]).contains("ends"));
    let mut other = good.clone();
    other[4] = 2;
    assert_eq!(decoded(&other), Err(DecodeError::Version(2)));
    other[4] = 1;
    other[5] = 6;
    assert!(malformed_reason(&other).contains("flags"));
    let longer = [&good[..], &[0]].concat();
    assert!(malformed_reason(&longer).contains("53 bytes, announced 52"));
}

#[test]
fn counts_are_held_against_the_bytes_that_are_there() {
    let huge = Header {
        count: 60_000,
        ..header(10)
    };
    assert!(malformed_reason(&raw(&huge, &body(&[0x90])[..10])).contains("60000 events"));
    let over = Header {
        count: 70_000,
        ..header(300_000)
    };
    assert!(matches!(
        decoded(&raw(&over, &[])),
        Err(DecodeError::Limit(_))
    ));
    let large = Header {
        body_len: 9 << 20,
        ..header(0)
    };
    assert!(matches!(
        decoded(&raw(&large, &[])),
        Err(DecodeError::Limit(_))
    ));
    // An array of 2^32 - 1 values, of which none is there.
    let values = [
        0x91, 0x92, 0x00, 0x81, 0xA1, b'a', 0xDD, 0xFF, 0xFF, 0xFF, 0xFF,
    ];
    let bytes = body(&values);
    assert!(matches!(
        decoded(&raw(&header(bytes.len()), &bytes)),
        Err(DecodeError::Limit(_))
    ));
    let values = [
        0x91, 0x92, 0x00, 0x81, 0xA1, b'a', 0xDD, 0x00, 0x01, 0x00, 0x00,
    ];
    let bytes = body(&values);
    assert!(malformed_reason(&raw(&header(bytes.len()), &bytes)).contains("past the end"));
    assert!(matches!(
        decoded(&vec![0xFF; MAX_PAYLOAD + 1]),
        Err(DecodeError::Limit(_))
    ));
}

#[test]
fn deep_nesting_is_refused_without_recursing_into_it() {
    let nested = |depth: usize| {
        let arrays = [vec![0x91; depth], vec![0x01]].concat();
        let bytes = body(&[&[0x91, 0x92, 0x00, 0x81, 0xA1, b'a'], &arrays[..]].concat());
        decoded(&raw(&header(bytes.len()), &bytes))
    };
    assert!(nested(MAX_DEPTH).is_ok());
    assert!(matches!(nested(MAX_DEPTH + 1), Err(DecodeError::Limit(_))));
    assert!(matches!(nested(500_000), Err(DecodeError::Limit(_))));
}

#[test]
fn columns_must_agree() {
    let good = body(&[0x90]);
    assert!(decoded(&raw(&header(good.len()), &good)).is_ok());
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        malformed_reason(&raw(&header(bytes.len()), &bytes))
    };
    assert!(with(0, 0x95).contains("columns"));
    assert!(with(6, 25).contains("severity 25"));
    assert!(with(6, 0).contains("severity 0"));
    for at in 0..good.len() {
        for byte in [0x92, 0xC1, 0xDF] {
            with(at, byte);
        }
    }
    let twice = body(&[0x92, 0x92, 0x00, 0x80, 0x92, 0x00, 0x80]);
    assert!(malformed_reason(&raw(&header(twice.len()), &twice)).contains("index 0"));
}

#[test]
fn headers_are_checked() {
    let bytes = body(&[0x90]);
    let reason = |header: Header| malformed_reason(&raw(&header, &bytes));
    let header = || header(bytes.len());
    assert!(
        reason(Header {
            time_unit: 60,
            ..header()
        })
        .contains("time unit")
    );
    assert!(
        reason(Header {
            clock: 2,
            ..header()
        })
        .contains("clock")
    );
    assert!(
        reason(Header {
            first_seq: u64::MAX,
            ..header()
        })
        .contains("ascend")
    );
    assert!(
        reason(Header {
            count: 0,
            ..header()
        })
        .contains("no seq")
    );
    for drop in [
        (3, 2, 1, 9, 0),
        (0, u64::MAX, 1, 9, 0),
        (0, 0, 0, 9, 0),
        (0, 0, 1, 0, 0),
        (0, 0, 1, 9, 5),
    ] {
        assert!(
            reason(Header {
                drops: vec![drop],
                ..header()
            })
            .contains("drop"),
            "{drop:?}"
        );
    }
}

#[test]
fn a_decompression_bomb_is_stopped_at_the_announced_size() {
    let zeros = vec![0u8; 64 << 20];
    let bomb = zstd::bulk::compress(&zeros, 1).unwrap();
    drop(zeros);
    assert!(bomb.len() < MAX_PAYLOAD, "{} bytes", bomb.len());
    for announced in [3, 1000, MAX_BODY] {
        let mut payload = raw(&header(announced), &bomb);
        payload[5] = FLAG_ZSTD;
        let mut decoder = Decoder::new();
        let error = decoder.decode(&payload).unwrap_err();
        assert!(
            matches!(&error, DecodeError::Malformed(reason) if reason.contains("zstd")),
            "{error}"
        );
        assert_eq!(
            decoder.decode(&encoded(&golden_batch())),
            Ok(golden_batch()),
            "it still decodes"
        );
    }
}

#[test]
fn a_frame_shorter_than_announced_is_refused() {
    let mut payload = raw(
        &header(100),
        &zstd::bulk::compress(&body(&[0x90]), 3).unwrap(),
    );
    payload[5] = FLAG_ZSTD;
    assert!(malformed_reason(&payload).contains("announced 100"));
}

/// Writes the fixtures anew: `cargo test -p thinglog-schemas -- --ignored write_fixtures`. Only a new
/// version of the format is a reason to.
#[test]
#[ignore = "writes files"]
fn write_fixtures() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");
    std::fs::write(
        format!("{directory}/batch-v1-plain.bin"),
        encoded(&golden_batch()),
    )
    .unwrap();
    std::fs::write(
        format!("{directory}/batch-v1-zstd.bin"),
        encoded(&compressed_golden_batch()),
    )
    .unwrap();
}
