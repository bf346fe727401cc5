//! The writer on a disk that is full for a while.

use super::*;
use crate::disk::memory::MemoryDisk;
use crate::flow::message::Epoch;
use crate::flow::payload::Delivery;
use crate::ingest::journal::recover;

fn settings() -> JournalSettings {
    JournalSettings {
        folder: "journal".into(),
        quota: 1 << 20,
        sync: Sync::Group,
        tail_bytes: 0,
        keep: 0,
        segment: Some(4096),
        zeros_below: 0,
    }
}

fn open(disk: &SharedDisk) -> Writer {
    let recovered = recover(&**disk, &settings(), None, false).unwrap();
    Writer::open(disk.clone(), &settings(), &recovered, Shared::new(disk.clone(), &settings(), &recovered)).unwrap()
}

/// The mark of an attempt that found the disk full stands between records then. Where there is no room for another one, it
/// must not be written over as if it stood behind them.
#[test]
fn a_mark_that_was_left_in_vain_is_not_used() {
    let memory = MemoryDisk::new();
    let disk: SharedDisk = Arc::new(memory.clone());
    disk.create_folder(&settings().folder).unwrap();
    let mut writer = open(&disk);
    let mut large = Payloads::default();
    large.push(b"t", &[b'x'; 3000], Timestamp::from_micros(1), Delivery::default());
    for _ in 0..2 {
        writer.push_payloads(&large, 0).unwrap();
        writer.commit(true).unwrap();
        writer.finish().unwrap();
    }
    assert_eq!(writer.at.segment, 2, "a hole, which takes room when it is written to");
    memory.set_capacity(Some(memory.used()));
    writer.push(Mark::Barrier(Epoch(0))).unwrap();
    assert!(matches!(writer.commit(true), Err(Stuck::Full(_))));
    let mut epoch = 1;
    while writer.position().offset + 48 <= writer.segment_len {
        writer.push(Mark::Barrier(Epoch(epoch))).unwrap();
        epoch += 1;
    }
    assert_eq!(writer.at.segment, 2);
    memory.set_capacity(None);
    writer.commit(true).unwrap();
    writer.finish().unwrap();
    let next = writer.next();
    drop(writer);
    let disk: SharedDisk = Arc::new(memory.kill());
    let recovered = recover(&*disk, &settings(), None, false).unwrap();
    assert_eq!((recovered.next, recovered.epoch), (next, Some(Epoch(epoch - 1))));
}
