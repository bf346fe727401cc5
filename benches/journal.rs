//! What a journal costs: payloads a second through a keeper and its reader, and the processor time of each for a payload.
//!
//! ```sh
//! cargo bench --bench journal -- [--dir FOLDER]... [--payloads N]
//! ```
//!
//! A journal with `sync = "group"` in each folder (by default in the one for temporary files), given payloads of 100 bytes in
//! batches of one, a hundred and 8,192, and read while it is written: from memory, and, with next to no room there, from
//! its segments. Under `cargo test --benches` little is kept, and what was read is checked all the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded};
use streamgauge::disk;
use streamgauge::flow::message::Epoch;
use streamgauge::flow::meter::SourceMeter;
use streamgauge::flow::payload::{Delivery, Payloads};
use streamgauge::flow::time::Timestamp;
use streamgauge::ingest::feed::{BRIDGE_BATCHES, Crossing, Pace};
use streamgauge::ingest::journal::{Handle, JournalSettings, Keeper, Reader, Sync, ZEROS_BELOW, recover};
use tokio::sync::{mpsc, watch};

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BODY: [u8; 100] = [b'x'; 100];
const TOPICS: usize = 1_000;
/// As a pipeline has it where nothing else is set.
const BATCH: (usize, usize) = (8_192, 8 << 20);
/// Room in memory for what the reader has not read yet: plenty, and next to none.
const TAILS: [(&str, usize); 2] = [("memory", 64 << 20), ("disk", 4_096)];
/// So many segments are left behind the reader.
const SEGMENTS_BEHIND: u64 = 4;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Only `cargo bench` says so.
    let test = !arguments.iter().any(|argument| argument == "--bench");
    let after = |name: &str| {
        let names = arguments.iter().zip(arguments.iter().skip(1));
        names.filter(|(argument, _)| *argument == name).map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    let payloads = after("--payloads").first().map_or(if test { 20_000 } else { 3_000_000 }, |n| n.parse().unwrap());
    let mut folders: Vec<PathBuf> = after("--dir").into_iter().map(PathBuf::from).collect();
    if folders.is_empty() {
        folders.push(std::env::temp_dir());
    }
    println!("| folder | read from | payloads at once | payloads/s | keeper, ns | reader, ns | syncs |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: |");
    for folder in &folders {
        for (from, tail_bytes) in TAILS {
            for at_once in [1, 100, 8_192] {
                // Small pieces take long.
                let count = if at_once == 1 { payloads / 10 } else { payloads };
                let Found { seconds, keeper, reader, syncs } = measure(folder, count, at_once, tail_bytes);
                let each = |nanos: u64| nanos as f64 / count as f64;
                let (rate, keeper, reader) = (count as f64 / seconds, each(keeper), each(reader));
                let folder = folder.display();
                println!("| `{folder}` | {from} | {at_once} | {rate:.0} | {keeper:.0} | {reader:.0} | {syncs} |");
            }
        }
    }
}

/// Wall time, and processor time in nanoseconds.
struct Found {
    seconds: f64,
    keeper: u64,
    reader: u64,
    syncs: u64,
}

fn measure(folder: &Path, count: usize, at_once: usize, tail_bytes: usize) -> Found {
    let folder = tempfile::tempdir_in(folder).unwrap();
    let folder_path = folder.path().to_owned();
    let settings = JournalSettings {
        folder: folder_path,
        quota: 1 << 30,
        sync: Sync::Group,
        tail_bytes,
        keep: 0,
        segment: None,
        zeros_below: ZEROS_BELOW,
    };
    let disk = disk::real();
    let recovered = recover(&*disk, &settings, None, false).unwrap();
    let (_pace, paced) = watch::channel(Pace { epoch: Epoch(0), stop: false });
    let (safe, meter) = (watch::channel(0), Arc::new(SourceMeter::default()));
    let told = (safe.0, meter.clone());
    let (keeper, reader, handle) =
        Keeper::open(disk, &settings, &recovered, (Epoch(0), paced), told, (BATCH, Box::new(|_| ()))).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (bridge, crossings) = mpsc::channel(BRIDGE_BATCHES);
    let (emptied, again) = bounded(BRIDGE_BATCHES);
    let began = Instant::now();
    let reader = thread::scope(|scope| {
        scope.spawn(|| give(&bridge, &again, count, at_once));
        let runtime = runtime.handle();
        let keeping = scope.spawn(move || {
            keeper.run(crossings, runtime).unwrap();
            on_processor()
        });
        let reading = scope.spawn(|| {
            take(reader, &handle, &emptied, count);
            on_processor()
        });
        (keeping.join().unwrap(), reading.join().unwrap())
    });
    let (seconds, (keeper, reader)) = (began.elapsed().as_secs_f64(), reader);
    assert_eq!(*safe.1.borrow(), count as u64, "all are safe");
    Found { seconds, keeper, reader, syncs: meter.journal_syncs.load(std::sync::atomic::Ordering::Relaxed) }
}

/// As a feed does.
fn give(bridge: &mpsc::Sender<Crossing>, again: &Receiver<Payloads>, count: usize, at_once: usize) {
    let topics: Vec<Vec<u8>> = (0..TOPICS).map(|topic| format!("live/{topic:03}").into_bytes()).collect();
    for first in (0..count).step_by(at_once) {
        let mut payloads = again.try_recv().unwrap_or_default();
        for number in first..(first + at_once).min(count) {
            let delivery = Delivery { qos: 1, packet_id: (number % 60_000) as u16 + 1, ..Delivery::default() };
            payloads.push(&topics[number % TOPICS], &BODY, Timestamp::from_micros(number as i64), delivery);
        }
        bridge.blocking_send(Crossing::Payloads(payloads)).unwrap();
    }
    bridge.blocking_send(Crossing::End { exhausted: true, epoch: Epoch(0) }).unwrap();
}

/// As an intake does; and what was read is let go, as behind a checkpoint.
fn take(mut reader: Reader, handle: &Handle, emptied: &crossbeam_channel::Sender<Payloads>, count: usize) {
    let (mut taken, mut released) = (0, 0);
    loop {
        let read = reader.next(|wait| wait()).unwrap().expect("nobody severs it");
        match read.crossing {
            Crossing::Payloads(mut payloads) => {
                let numbers = payloads.iter().zip(taken..);
                let in_order = numbers.fold(true, |all, (payload, n)| all & (payload.arrival.micros() == n));
                assert!(in_order, "they come as they were given");
                taken += payloads.len() as i64;
                payloads.clear();
                let _ = emptied.try_send(payloads);
            }
            Crossing::End { .. } => break,
            _ => {}
        }
        if read.next.0.segment > released + SEGMENTS_BEHIND {
            released = read.next.0.segment;
            handle.release(read.next.0, 0).unwrap();
        }
    }
    assert_eq!(taken, count as i64);
}

/// Nanoseconds of processor time that this thread has used.
fn on_processor() -> u64 {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    statistics.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
}
