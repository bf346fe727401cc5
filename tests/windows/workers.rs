//! State goes to another number of workers by key groups, and they go on as one operator would.

use arrow::array::cast::AsArray;
use arrow::array::{RecordBatch, UInt8Array, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::UInt8Type;
use proptest::prelude::*;
use streamgauge::flow::state::Restored;
use streamgauge::flow::time::Timestamp;
use streamgauge::operator::Operator;
use streamgauge::operator::key_group::key_groups;
use streamgauge::operator::window::core::Windows;

use crate::case::{Case, Row, batch, cases, cut, read, setup, sorted, streams};
use crate::restart::{Out, Store};

/// Whether a worker has a key group: all of them have ranges of about the same size.
fn has(worker: usize, workers: usize) -> impl Fn(u8) -> bool {
    move |group| usize::from(group) * workers / 256 == worker
}

fn only(batch: &RecordBatch, groups: &UInt8Array, mine: impl Fn(u8) -> bool) -> RecordBatch {
    let rows = (0_u32..).zip(groups.values()).filter(|(_, group)| mine(**group)).map(|(row, _)| row);
    take_record_batch(batch, &UInt32Array::from_iter_values(rows)).unwrap()
}

/// What a part has of some key groups; all of one that has none.
fn share((name, rows): &Restored, mine: impl Fn(u8) -> bool) -> Restored {
    let groups = rows.column_by_name("key_group").map(|groups| groups.as_primitive::<UInt8Type>());
    (name.clone(), groups.map_or_else(|| rows.clone(), |groups| only(rows, groups, mine)))
}

fn restored(case: Case, parts: &[Restored]) -> Windows {
    let mut windows = Windows::new(setup(case)).unwrap();
    windows.restore(parts).unwrap();
    windows
}

/// Workers that see their rows of every batch, and each watermark.
struct Workers(Vec<Windows>);

impl Workers {
    fn feed(&mut self, case: Case, batches: &[&[Row]], mut seen: i64, out: &mut Out) -> i64 {
        let keys = if case.wide_keys { vec![1, 3] } else { vec![1] };
        for rows in batches {
            let batch = batch(case, rows);
            let columns: Vec<_> = keys.iter().map(|key| batch.column(*key).clone()).collect();
            let groups = key_groups(&columns, batch.num_rows()).unwrap();
            seen = seen.max(rows.iter().map(|row| row.0).max().unwrap());
            let workers = self.0.len();
            for (worker, windows) in self.0.iter_mut().enumerate() {
                windows.process(only(&batch, &groups, has(worker, workers)).into(), out).unwrap();
                windows.advance(Timestamp::from_micros(seen - case.disorder), out).unwrap();
            }
        }
        seen
    }

    fn end(&mut self, out: &mut Out) {
        self.0.iter_mut().for_each(|windows| windows.advance(Timestamp::END, out).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn workers_go_on_as_one_operator(
        case in cases(),
        rows in streams(40),
        cuts in prop::collection::vec(1usize..9, 1..20),
        places in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let batches = cut(&rows, &cuts);
        let (one, two) = (places.0.index(batches.len()), places.1.index(batches.len()));
        let (first, second) = (one.min(two), one.max(two));
        let mut whole = Workers(vec![Windows::new(setup(case)).unwrap()]);
        let mut out = Vec::new();
        let seen = whole.feed(case, &batches[..first], i64::MIN, &mut out);
        let mut store = Store::default();
        store.take(whole.0[0].snapshot().unwrap());
        out.clear();
        let seen_whole = whole.feed(case, &batches[first..], seen, &mut out);
        whole.end(&mut out);
        let (emissions, late) = read(case, &out);
        let expected = (sorted(emissions), sorted(late));
        for count in [1, 2, 3, 7] {
            let shares = (0..count).map(|worker| store.0.iter().map(|part| share(part, has(worker, count))).collect());
            let mut shares: Vec<Store> = shares.map(Store).collect();
            let mut workers = Workers(shares.iter().map(|share| restored(case, &share.0)).collect());
            let mut out = Vec::new();
            let seen = workers.feed(case, &batches[first..second], seen, &mut out);
            // And back to one.
            let mut parts = Vec::new();
            for (windows, share) in workers.0.iter_mut().zip(&mut shares) {
                share.take(windows.snapshot().unwrap());
                parts.append(&mut share.0);
            }
            let mut last = Workers(vec![restored(case, &parts)]);
            let mut last_out = Vec::new();
            prop_assert_eq!(last.feed(case, &batches[second..], seen, &mut last_out), seen_whole);
            last.end(&mut last_out);
            workers.feed(case, &batches[second..], seen, &mut Vec::new());
            last_out.splice(0..0, out);
            let (emissions, late) = read(case, &last_out);
            prop_assert_eq!(&(sorted(emissions), sorted(late)), &expected, "{} workers", count);
        }
    }
}
