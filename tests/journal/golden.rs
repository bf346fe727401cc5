//! A journal that an older version wrote: it is read, and nothing is added to its segments, which older builds read.

use std::path::Path;
use std::sync::Arc;

use streamgauge::disk::memory::MemoryDisk;
use streamgauge::disk::{self, SharedDisk};
use streamgauge::ingest::journal::recover;

use crate::support::journal::{FOLDER, Item, keep, make_folder, monotone, payload, reopen, settings};

const BATCH: (usize, usize) = (16, 1 << 20);
/// Where the version stands in a segment's header.
const VERSION: std::ops::Range<usize> = 8..12;

/// What was given to the version that wrote it.
fn given() -> Vec<Item> {
    let group = |group: u16| {
        let time = i64::from(group);
        let payloads =
            (0..5).map(move |index| payload(group * 5 + index + 1, usize::from(group * 40 + index * 9), 5 + time));
        let tick = Item::Tick { now: 20 + time, listening: group.is_multiple_of(2) };
        let heard = (group == 2).then_some(Item::Heard(30));
        payloads.chain([tick]).chain(heard).chain([Item::Barrier(u64::from(group))])
    };
    monotone(&(0..6).flat_map(group).collect::<Vec<_>>(), i64::MIN)
}

#[test]
fn a_journal_of_version_1_is_read_and_goes_on_in_a_new_segment() {
    let memory: SharedDisk = Arc::new(MemoryDisk::new());
    make_folder(&memory);
    let folder = Path::new("testdata/journal/version-1");
    let mut segments: Vec<String> = disk::real().list(folder).unwrap();
    segments.sort();
    for name in &segments {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        assert_eq!(bytes[VERSION], [1, 0, 0, 0]);
        disk::write_whole(&*memory, &Path::new(FOLDER).join(name), &bytes).unwrap();
    }
    let read = |name: &String| disk::read(&*memory, &Path::new(FOLDER).join(name)).unwrap();
    let old: Vec<Vec<u8>> = segments.iter().map(read).collect();

    let found = reopen(&memory, &settings(), None, false, BATCH).unwrap();
    assert_eq!(found.items, given());

    let recovered = recover(&*memory, &settings(), None, false).unwrap();
    let more = vec![payload(77, 100, 50), Item::Barrier(6)];
    let kept = keep(&memory, &settings(), &recovered, std::slice::from_ref(&more), BATCH);
    assert_eq!((kept.safe, kept.error), (2, None));
    assert_eq!(segments.iter().map(read).collect::<Vec<_>>(), old, "nothing was added to the old segments");
    let last = read(&format!("{:012}.journal", segments.len() + 1));
    assert_eq!(last[VERSION], [2, 0, 0, 0]);

    let found = reopen(&memory, &settings(), None, false, BATCH).unwrap();
    assert_eq!(found.items, [given(), more].concat());
}
