//! Files are the same however rows come, and whenever the run is started again.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::ipc::{reader::StreamReader, writer::StreamWriter};
use proptest::prelude::*;

use crate::component::Settings;
use crate::disk;
use crate::flow::message::Epoch;
use crate::flow::schema::{StreamSchema, timestamp_type};
use crate::flow::state::Restored;
use crate::flow::time::Span;
use crate::sink::parquet::bounds::Bounds;
use crate::sink::parquet::spec::ParquetSpec;
use crate::sink::parquet::writer::ParquetSink;
use crate::sink::{Sink, SinkContext, publish};

const EPOCH_SECS: i64 = 10;

#[derive(Clone, Debug)]
struct Case {
    /// Of each row its partition, and how long its text is; null where that is 0.
    rows: Vec<(u8, usize)>,
    /// How many rows each epoch has, and whether the run was stopped at its end.
    epochs: Vec<(usize, bool)>,
    max_partitions: usize,
    roll: Option<(Option<usize>, Option<u64>, Option<i64>)>,
    bounds: Bounds,
}

/// How the rows come: lengths of batches, over and over; and in which epochs the run is killed after how many batches.
#[derive(Clone, Debug)]
struct Way {
    batches: Vec<usize>,
    kills: Vec<Option<usize>>,
}

fn schema() -> StreamSchema {
    let columns = Schema::new(vec![
        Field::new("site", DataType::Int64, false),
        Field::new("text", DataType::Utf8, true),
        Field::new("number", DataType::Int64, false),
        Field::new("at", timestamp_type(), false),
    ]);
    StreamSchema { columns: Arc::new(columns), time: 3, out_of_orderness: Span::ZERO }
}

impl Case {
    fn batch(&self, from: usize, to: usize) -> RecordBatch {
        let rows = &self.rows[from..to];
        let numbers = Int64Array::from_iter_values((from..to).map(|row| row as i64));
        let at = arrow::compute::cast(&numbers, &timestamp_type()).unwrap();
        let text = rows.iter().map(|(site, len)| (*len > 0).then(|| format!("{site}").repeat(*len)));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| i64::from(row.0)))),
            Arc::new(StringArray::from_iter(text)),
            Arc::new(numbers),
            at,
        ];
        RecordBatch::try_new(schema().columns, columns).unwrap()
    }

    fn open(&self, root: &Path, epoch: usize, parts: &[Restored]) -> ParquetSink {
        let mut text = format!(
            "path = '{}'\npartition_by = ['site']\nmax_partitions = {}\ncompression = 'none'\n",
            root.display(),
            self.max_partitions
        );
        if let Some((rows, bytes, age)) = self.roll {
            text += &rows.map_or(String::new(), |rows| format!("roll.rows = {rows}\n"));
            text += &bytes.map_or(String::new(), |bytes| format!("roll.bytes = '{bytes}B'\n"));
            text += &age.map_or(String::new(), |age| format!("roll.age = '{age}s'\n"));
        }
        let (mut settings, faults) = Settings::of(&text);
        let spec: ParquetSpec = super::spec::read(&mut settings).unwrap();
        settings.finish();
        assert_eq!(*faults.borrow(), []);
        let context = SinkContext {
            pipeline: "plant".into(),
            name: "lake".into(),
            run: "r".into(),
            boards: Arc::default(),
            disk: disk::real(),
            epoch: Epoch(epoch as u64),
            epoch_every: Span::from_secs(EPOCH_SECS),
        };
        let mut sink = ParquetSink::open(&spec, &context, &schema()).unwrap();
        sink.bounds = self.bounds;
        sink.restore(parts).unwrap();
        sink
    }

    /// The published files, as a run leaves them.
    fn run(&self, way: &Way) -> BTreeMap<String, Vec<u8>> {
        // In memory where there is one: syncs are not what is tested.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let mut files = BTreeMap::new();
        let mut store: Vec<Restored> = Vec::new();
        let mut sink = self.open(folder.path(), 0, &store);
        let mut batches = way.batches.iter().cycle();
        let mut start = 0;
        for (epoch, (rows, stopped)) in self.epochs.iter().enumerate() {
            let end = start + rows;
            if let Some(written) = way.kills[epoch] {
                let mut from = start;
                for _ in 0..written {
                    let to = end.min(from + batches.next().unwrap());
                    sink.write(&self.batch(from, to)).unwrap();
                    from = to;
                }
                sink = self.open(folder.path(), epoch, &store);
            }
            while start < end {
                let to = end.min(start + batches.next().unwrap());
                sink.write(&self.batch(start, to)).unwrap();
                start = to;
            }
            let last = *stopped || epoch + 1 == self.epochs.len();
            let left = sink.prepare(Epoch(epoch as u64), last).unwrap();
            publish(&*disk::real(), &left.files).unwrap();
            for file in left.files {
                let name = file.to.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned();
                assert!(files.insert(name, std::fs::read(&file.to).unwrap()).is_none(), "published twice");
            }
            assert!(!last || left.parts.is_empty(), "the last barrier holds something back");
            let part = |part: crate::flow::state::Part| match part.rows {
                Some(rows) => (part.name, copied(&rows)),
                None => store.iter().find(|(name, _)| *name == part.name).expect("it was not listed before").clone(),
            };
            store = left.parts.into_iter().map(part).collect();
        }
        files
    }

    /// Row by row, by the words of the documentation: of each file its partition, its epoch, and its rows. Only where
    /// neither bytes nor memory close files.
    fn expected(&self) -> Vec<(i64, u64, Vec<i64>)> {
        struct Open {
            site: u8,
            opened: usize,
            rows: Vec<i64>,
        }
        let mut open: Vec<Open> = Vec::new();
        let mut done = Vec::new();
        let close =
            |file: Open, epoch: usize, done: &mut Vec<_>| done.push((i64::from(file.site), epoch as u64, file.rows));
        let (rows_max, age) = self.roll.map_or((None, None), |roll| (roll.0, roll.2));
        let mut numbers = 0..self.rows.len();
        for (epoch, (rows, stopped)) in self.epochs.iter().enumerate() {
            for row in numbers.by_ref().take(*rows) {
                let site = self.rows[row].0;
                if !open.iter().any(|file| file.site == site) {
                    if open.len() == self.max_partitions {
                        let oldest = (0..open.len()).min_by_key(|index| open[*index].rows.last()).unwrap();
                        close(open.remove(oldest), epoch, &mut done);
                    }
                    open.push(Open { site, opened: epoch, rows: Vec::new() });
                }
                let index = open.iter().position(|file| file.site == site).unwrap();
                open[index].rows.push(row as i64);
                if rows_max.is_some_and(|max| open[index].rows.len() == max) {
                    close(open.remove(index), epoch, &mut done);
                }
            }
            let last = *stopped || epoch + 1 == self.epochs.len() || self.roll.is_none();
            let epochs = age.map(|age| usize::try_from((age + EPOCH_SECS - 1) / EPOCH_SECS).unwrap().max(1));
            let (due, stay): (Vec<Open>, _) =
                open.into_iter().partition(|file| last || epochs.is_some_and(|n| epoch >= file.opened + n - 1));
            open = stay;
            due.into_iter().for_each(|file| close(file, epoch, &mut done));
        }
        done.sort();
        done
    }
}

/// As a checkpoint keeps it.
fn copied(rows: &RecordBatch) -> RecordBatch {
    let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref()).unwrap();
    writer.write(rows).unwrap();
    StreamReader::try_new(writer.into_inner().unwrap().as_slice(), None).unwrap().next().unwrap().unwrap()
}

/// Of each file its partition, its epoch and its rows.
fn contents(files: &BTreeMap<String, Vec<u8>>) -> Vec<(i64, u64, Vec<i64>)> {
    let read = |(name, bytes): (&String, &Vec<u8>)| {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::try_clone(&file).unwrap()).unwrap();
        let metadata = reader.metadata().file_metadata().key_value_metadata().unwrap();
        let epoch = metadata.iter().find(|entry| entry.key == "streamgauge.epoch").unwrap().value.clone().unwrap();
        assert!(name.contains(&format!("-{:0>8}-", epoch)), "{name} says that it is of epoch {epoch}");
        let numbers = reader.build().unwrap().flat_map(|rows| {
            rows.unwrap().column_by_name("number").unwrap().as_primitive::<Int64Type>().values().to_vec()
        });
        let numbers: Vec<i64> = numbers.collect();
        let site = name.strip_prefix("site=").unwrap().split_once('/').unwrap().0;
        (site.parse().unwrap(), epoch.parse().unwrap(), numbers)
    };
    let mut contents: Vec<_> = files.iter().map(read).collect();
    contents.sort();
    contents
}

const LOOSE: Bounds = Bounds {
    encode_rows: 8,
    check_rows: 8,
    check_bytes: 1 << 20,
    buffered_bytes: 1 << 30,
    held_bytes: 1 << 30,
    parts: 99,
};

fn bounds() -> impl Strategy<Value = Bounds> {
    let tight = (1_usize..12, 1_usize..20, 40_usize..2_000, 0_usize..4_000, 0_usize..2_000, 1_usize..4);
    let tight = tight.prop_map(|(encode_rows, check_rows, check_bytes, buffered_bytes, held_bytes, parts)| Bounds {
        encode_rows,
        check_rows,
        check_bytes,
        buffered_bytes,
        held_bytes,
        parts,
    });
    prop_oneof![Just(LOOSE), tight]
}

fn case() -> impl Strategy<Value = (Case, Way)> {
    let epochs = prop::collection::vec((0_usize..40, prop::bool::weighted(0.1)), 1..7);
    let roll = prop::option::weighted(
        0.8,
        prop_oneof![
            (1_usize..40).prop_map(|rows| (Some(rows), None, None)),
            (1_i64..45).prop_map(|age| (None, None, Some(age))),
            (1_u64..1_500).prop_map(|bytes| (None, Some(bytes), None)),
            (1_usize..60, 500_u64..4_000, 1_i64..60).prop_map(|(r, b, a)| (Some(r), Some(b), Some(a))),
            (10_usize..60, 1_i64..60).prop_map(|(r, a)| (Some(r), None, Some(a))),
        ],
    );
    (epochs, 1_usize..5, roll, bounds()).prop_flat_map(|(epochs, max_partitions, roll, bounds)| {
        let rows: usize = epochs.iter().map(|epoch| epoch.0).sum();
        let text = prop_oneof![3 => 0_usize..4, 1 => 0_usize..80];
        let rows = prop::collection::vec((0_u8..6, text), rows);
        let kills = prop::collection::vec(prop::option::of(0_usize..3), epochs.len());
        (rows, prop::collection::vec(1_usize..30, 1..5), kills).prop_map(move |(rows, batches, kills)| {
            let epochs = epochs.clone();
            (Case { rows, epochs, max_partitions, roll, bounds }, Way { batches, kills })
        })
    })
}

fn same(case: &Case, way: &Way) {
    let whole = Way { batches: vec![usize::MAX / 2], kills: vec![None; case.epochs.len()] };
    let expected = case.run(&whole);
    let cut = case.run(way);
    let names = |files: &BTreeMap<String, Vec<u8>>| {
        files.iter().map(|(name, bytes)| (name.clone(), bytes.len())).collect::<Vec<_>>()
    };
    assert_eq!(names(&expected), names(&cut));
    assert!(expected == cut, "the same names, other bytes");
    let contents = contents(&expected);
    let mut numbers: Vec<i64> = contents.iter().flat_map(|file| file.2.iter().copied()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..case.rows.len() as i64).collect::<Vec<_>>(), "every row once");
    let by_rows = case.roll.is_none_or(|roll| roll.1.is_none());
    if by_rows && case.bounds.held_bytes == LOOSE.held_bytes {
        assert_eq!(contents, case.expected());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn files_are_a_function_of_rows_and_barriers((case, way) in case()) {
        same(&case, &way);
    }
}

#[test]
fn a_row_group_that_was_ended_early_is_ended_there_again() {
    // The first partition is the larger one by far, and gets no rows in the second epoch, in which memory is short.
    let mut rows = vec![(0, 60); 20];
    rows.extend([(1, 30); 30]);
    rows.extend([(0, 60); 20]);
    let case = Case {
        rows,
        epochs: vec![(20, false), (30, false), (20, false)],
        max_partitions: 4,
        roll: Some((None, None, Some(100))),
        bounds: Bounds { encode_rows: 7, check_rows: 5, buffered_bytes: 6_000, ..LOOSE },
    };
    same(&case, &Way { batches: vec![3], kills: vec![None, None, Some(1)] });
    same(&case, &Way { batches: vec![11], kills: vec![None, Some(2), None] });
}

#[test]
fn parts_are_written_once_and_go_with_their_file() {
    let case = Case {
        rows: vec![(1, 2), (2, 2), (1, 2), (1, 2)],
        epochs: vec![(2, false), (1, false), (0, false), (1, false)],
        max_partitions: 4,
        roll: Some((Some(3), None, None)),
        bounds: LOOSE,
    };
    let folder = tempfile::tempdir().unwrap();
    let mut sink = case.open(folder.path(), 0, &[]);
    let mut seen = Vec::new();
    let mut start = 0;
    for (epoch, (rows, _)) in case.epochs.iter().enumerate() {
        sink.write(&case.batch(start, start + rows)).unwrap();
        start += rows;
        let left = sink.prepare(Epoch(epoch as u64), false).unwrap();
        let parts = left.parts.into_iter().map(|part| (part.name, part.rows.map(|rows| rows.num_rows())));
        seen.push((parts.collect::<Vec<_>>(), left.files.iter().map(|file| file.rows).collect::<Vec<_>>()));
    }
    let part = |name: &str, rows| (name.to_owned(), rows);
    let (first, second, third) = ("00000000-0-00000000", "00000000-1-00000000", "00000000-0-00000001");
    assert_eq!(
        seen,
        [
            (vec![part(first, Some(1)), part(second, Some(1))], vec![]),
            (vec![part(first, None), part(third, Some(1)), part(second, None)], vec![]),
            (vec![part(first, None), part(third, None), part(second, None)], vec![]),
            (vec![part(second, None)], vec![3]),
        ]
    );
}

#[test]
fn a_part_of_another_shape_is_refused_with_what_to_do() {
    let case = Case {
        rows: vec![(1, 1)],
        epochs: vec![(1, false)],
        max_partitions: 1,
        roll: Some((Some(9), None, None)),
        bounds: LOOSE,
    };
    let folder = tempfile::tempdir().unwrap();
    let mut sink = case.open(folder.path(), 0, &[]);
    sink.write(&case.batch(0, 1)).unwrap();
    let part = sink.prepare(Epoch(0), false).unwrap().parts.remove(0);
    let rows = part.rows.unwrap();
    let narrow = rows.project(&[0, 2, 3]).unwrap();
    let why = case.open(folder.path(), 1, &[]).restore(&[(part.name.clone(), narrow)]).unwrap_err().to_string();
    assert!(why.contains("(site Int64, number Int64,") && why.contains("stop it, which closes its files"), "{why}");
    let bare = RecordBatch::try_new(schema().columns, rows.columns().to_vec()).unwrap();
    let why = case.open(folder.path(), 1, &[]).restore(&[(part.name, bare)]).unwrap_err().to_string();
    assert!(why.contains("has no `streamgauge.opened`"), "{why}");
}
