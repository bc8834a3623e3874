//! A directory as version 1 of the layout wrote it, byte by byte: what exists must keep loading.

use super::*;

const IDENTITY: &[u8] = include_bytes!("fixtures/v1/journal");
const CLOSED: &[u8] = include_bytes!("fixtures/v1/00000000000000000000.seg");
const CLOSED_INDEX: &[u8] = include_bytes!("fixtures/v1/00000000000000000000.idx");
const LAST: &[u8] = include_bytes!("fixtures/v1/00000000000000000003.seg");

/// What was appended when the fixture was made.
fn expected() -> Vec<(u64, u64, Vec<u8>)> {
    vec![
        (0, 1_000, b"first".to_vec()),
        (1, 2_000, b"".to_vec()),
        (2, 3_000, vec![0xA5; 900]),
        (3, 4_000, "last \u{1F4A1}".as_bytes().to_vec()),
    ]
}

fn install(fs: &SimFs) {
    let files: [(&str, &[u8]); 4] = [
        ("journal", IDENTITY),
        ("00000000000000000000.seg", CLOSED),
        ("00000000000000000000.idx", CLOSED_INDEX),
        ("00000000000000000003.seg", LAST),
    ];
    for (name, bytes) in files {
        fs.tamper(&Path::new(DIR).join(name), |content| {
            *content = bytes.to_vec()
        });
    }
}

#[test]
fn version_1_loads() {
    let fs = SimFs::new(1);
    install(&fs);
    let (journal, recovery) = boot(&fs, small());
    assert_eq!(
        recovery,
        Recovery {
            next: 4,
            ..Recovery::default()
        }
    );
    assert_eq!(journal.id(), 0x0123_4567_89AB_CDEF);
    assert_eq!(drain(&mut journal.reader(0)), expected());
    assert_eq!(journal.offset_at(2_500).unwrap(), 2);
}

#[test]
fn version_1_is_still_what_is_written() {
    let fs = SimFs::new(1);
    fs.tamper(&Path::new(DIR).join("journal"), |content| {
        *content = IDENTITY.to_vec()
    });
    let (journal, _) = boot(
        &fs,
        Options {
            segment_bytes: 1 << 10,
            ..small()
        },
    );
    for (_, time, payload) in expected() {
        put(&journal, time, &payload);
    }
    fs.kill();
    drop(journal);
    let content = |name: &str| fs.content(&Path::new(DIR).join(name)).unwrap();
    assert_eq!(content("00000000000000000000.seg"), CLOSED);
    assert_eq!(content("00000000000000000000.idx"), CLOSED_INDEX);
    assert_eq!(content("00000000000000000003.seg"), LAST);
}
