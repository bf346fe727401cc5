//! The pipes: order, alignment, endings.

use std::sync::{Arc, Mutex};
use std::thread;

use arrow::array::cast::AsArray;
use arrow::array::types::Int64Type;
use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use crossbeam_channel::{Receiver, Sender, bounded};
use proptest::prelude::*;
use streamgauge::engine::stage::{NoCheckpoint, SinkStage, StageError, run_operator};
use streamgauge::flow::batch::Batch;
use streamgauge::flow::inbox::Inbox;
use streamgauge::flow::message::{Epoch, Message, Severed};
use streamgauge::flow::meter::Meter;
use streamgauge::flow::outbox::{Emit, Outbox};
use streamgauge::flow::time::Timestamp;
use streamgauge::operator::{Operator, OperatorError};
use streamgauge::sink::{Sink, SinkError, Unpublished};
use streamgauge::telemetry::Health;

/// One row with one number.
fn batch(number: i64) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, false)]);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(vec![number]))]).unwrap()
}

fn number(batch: &RecordBatch) -> i64 {
    batch.column(0).as_primitive::<Int64Type>().value(0)
}

fn at(micros: i64) -> Message {
    Message::Watermark(Timestamp::from_micros(micros))
}

fn inbox(receivers: Vec<Receiver<Message>>) -> Inbox {
    Inbox::new(receivers, Arc::new(Meter::default()))
}

fn outbox(outputs: Vec<Sender<Message>>) -> Outbox {
    Outbox::new(outputs, Vec::new(), 1_000, Arc::new(Meter::default()))
}

/// Sends all and closes, from a thread of its own.
fn feed(capacity: usize, messages: Vec<Message>) -> Receiver<Message> {
    let (sender, receiver) = bounded(capacity);
    thread::spawn(move || messages.into_iter().try_for_each(|message| sender.send(message)));
    receiver
}

/// Everything until `End`, or until it is cut off.
fn drain(mut inbox: Inbox) -> (Vec<Message>, Option<Severed>) {
    let mut messages = Vec::new();
    loop {
        match inbox.recv() {
            Ok(message) => {
                let last = matches!(message, Message::End(_));
                messages.push(message);
                if last {
                    return (messages, None);
                }
            }
            Err(severed) => return (messages, Some(severed)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    // Whatever the interleaving of the inputs: watermarks go up, barriers align, rows of the next epoch never overtake
    // the barrier, `End` comes once and last.
    #[test]
    fn messages_stay_in_order(
        scripts in prop::collection::vec(prop::collection::vec((0_i64..9, any::<bool>()), 0..12), 1..4),
        epochs in 0_u64..4,
    ) {
        let script = |steps: &Vec<(i64, bool)>| {
            let mut messages = Vec::new();
            let mut watermark = i64::MIN + 1;
            for epoch in 0..=epochs {
                for (step, rows) in steps {
                    if *rows {
                        messages.push(Message::Batch(batch(epoch as i64).into()));
                    }
                    watermark += step;
                    messages.push(at(watermark));
                }
                if epoch < epochs {
                    messages.push(Message::Barrier(Epoch(epoch)));
                }
            }
            messages.push(Message::End(Epoch(epochs)));
            messages
        };
        let rows: usize = scripts.iter().flatten().filter(|(_, rows)| *rows).count() * (epochs as usize + 1);
        let (messages, severed) = drain(inbox(scripts.iter().map(|steps| feed(1, script(steps))).collect()));
        prop_assert_eq!(severed, None);
        let (mut epoch, mut last, mut seen) = (0, Timestamp::START, 0);
        for message in &messages {
            match message {
                Message::Batch(batch) => {
                    seen += 1;
                    prop_assert_eq!(number(batch), epoch as i64);
                }
                Message::Watermark(at) => {
                    prop_assert!(last < *at);
                    last = *at;
                }
                Message::Barrier(barrier) => {
                    prop_assert_eq!(*barrier, Epoch(epoch));
                    epoch += 1;
                }
                Message::End(end) => prop_assert_eq!(*end, Epoch(epochs)),
                Message::Mark(_) | Message::Stop(_) => prop_assert!(false, "nobody sent it"),
            }
        }
        prop_assert_eq!((epoch, seen), (epochs, rows));
        prop_assert_eq!(messages.iter().filter(|message| matches!(message, Message::End(_))).count(), 1);
    }
}

#[test]
fn the_watermark_is_the_lowest_of_the_inputs() {
    let a = feed(9, vec![at(5), at(10), Message::End(Epoch(0))]);
    let b = feed(9, vec![at(3), at(7), Message::End(Epoch(0))]);
    let (messages, _) = drain(inbox(vec![a, b]));
    let watermarks: Vec<i64> = messages
        .iter()
        .filter_map(|message| match message {
            Message::Watermark(at) => Some(at.micros()),
            _ => None,
        })
        .collect();
    assert!(watermarks.iter().all(|at| [3, 5, 7].contains(at)), "{watermarks:?}");
    assert_eq!(watermarks.last(), Some(&7));
}

#[test]
fn an_exhausted_input_holds_nobody_back_in_either_order() {
    let end = || Message::Watermark(Timestamp::END);
    for early_first in [true, false] {
        let early = feed(9, vec![end(), Message::End(Epoch(0))]);
        let long =
            feed(9, vec![Message::Barrier(Epoch(0)), at(8), Message::Barrier(Epoch(1)), end(), Message::End(Epoch(2))]);
        let inputs = if early_first { vec![early, long] } else { vec![long, early] };
        let (messages, severed) = drain(inbox(inputs));
        assert_eq!(severed, None);
        let expected = [Message::Barrier(Epoch(0)), at(8), Message::Barrier(Epoch(1)), end(), Message::End(Epoch(2))];
        assert_eq!(messages, expected);
    }
}

#[test]
fn a_stopped_input_holds_event_time_where_it_is() {
    // What was stopped goes on there after a restart: its rows must not be late then.
    let stopped = feed(9, vec![at(5), Message::End(Epoch(0))]);
    let running = feed(9, vec![at(100), Message::End(Epoch(0))]);
    let (messages, _) = drain(inbox(vec![stopped, running]));
    assert_eq!(messages, [at(5), Message::End(Epoch(0))]);
}

#[test]
fn a_batch_larger_than_the_bound_goes_out_in_slices() {
    let (sender, receiver) = bounded(9);
    let meter = Arc::new(Meter::default());
    let mut outbox = Outbox::new(vec![sender], Vec::new(), 2, meter);
    let schema = batch(0).schema();
    let five = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5]))]).unwrap();
    outbox.emit(five.into()).unwrap();
    drop(outbox);
    let rows: Vec<usize> = receiver
        .iter()
        .map(|message| match message {
            Message::Batch(batch) => batch.num_rows(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(rows, [2, 2, 1]);
}

/// An epoch, and the numbers of its rows.
type Committed = (u64, Vec<i64>);

/// A sink that remembers, and fails as often as it is told.
#[derive(Clone, Default)]
struct Seen {
    open: Arc<Mutex<Vec<i64>>>,
    committed: Arc<Mutex<Vec<Committed>>>,
    failures: Arc<Mutex<usize>>,
}

impl Sink for Seen {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return Err(SinkError::Retry("not now".to_owned()));
        }
        self.open.lock().unwrap().push(number(batch));
        Ok(())
    }

    fn prepare(&mut self, epoch: Epoch, _: bool) -> Result<Unpublished, SinkError> {
        let rows = std::mem::take(&mut *self.open.lock().unwrap());
        self.committed.lock().unwrap().push((epoch.0, rows));
        Ok(Unpublished::default())
    }
}

fn sink_stage() -> SinkStage {
    SinkStage {
        name: "seen".to_owned(),
        health: Arc::new(Health::default()),
        disk: streamgauge::disk::real(),
        written: Box::new(|_| ()),
        reached: Box::new(|_| ()),
    }
}

fn run_sink(seen: &Seen, messages: Vec<Message>) -> Result<(), StageError> {
    let seen = seen.clone();
    sink_stage().run(inbox(vec![feed(9, messages)]), move || Ok(Box::new(seen.clone())), &mut NoCheckpoint)
}

#[test]
fn a_stream_that_is_cut_off_commits_nothing() {
    let seen = Seen::default();
    let error = run_sink(&seen, vec![Message::Batch(batch(1).into())]).unwrap_err();
    assert!(matches!(error, StageError::Severed(_)), "{error}");
    assert_eq!(*seen.committed.lock().unwrap(), []);
}

#[test]
fn end_commits_what_came_after_the_last_barrier() {
    let seen = Seen::default();
    let messages = vec![
        Message::Batch(batch(1).into()),
        Message::Barrier(Epoch(0)),
        Message::Batch(batch(2).into()),
        Message::End(Epoch(1)),
    ];
    run_sink(&seen, messages).unwrap();
    assert_eq!(*seen.committed.lock().unwrap(), [(0, vec![1]), (1, vec![2])]);
}

#[test]
fn a_sink_that_fails_for_a_while_loses_and_repeats_nothing() {
    let seen = Seen { failures: Arc::new(Mutex::new(2)), ..Seen::default() };
    run_sink(&seen, vec![Message::Batch(batch(1).into()), Message::Batch(batch(2).into()), Message::End(Epoch(0))])
        .unwrap();
    assert_eq!(*seen.committed.lock().unwrap(), [(0, vec![1, 2])]);
}

struct Pass;

impl Operator for Pass {
    fn process(&mut self, batch: Batch, out: &mut dyn Emit) -> Result<(), OperatorError> {
        Ok(out.emit(batch)?)
    }
}

// A diamond with the smallest channels: one stream split in two and joined again. Barriers must neither block it for
// good nor be overtaken.
#[test]
fn a_diamond_does_not_deadlock() {
    let (to_left, left_in) = bounded(1);
    let (to_right, right_in) = bounded(1);
    let (left_out, left) = bounded(1);
    let (right_out, right) = bounded(1);
    let split = thread::spawn(move || {
        let mut out = outbox(vec![to_left, to_right]);
        for epoch in 0..200 {
            (0..7).try_for_each(|_| out.emit(batch(epoch).into()))?;
            out.send(at(epoch))?;
            out.send(Message::Barrier(Epoch(epoch as u64)))?;
        }
        out.send(Message::End(Epoch(200)))
    });
    let pass = |input, output| {
        thread::spawn(move || run_operator(inbox(vec![input]), Box::new(Pass), outbox(vec![output]), &mut NoCheckpoint))
    };
    let operators = [pass(left_in, left_out), pass(right_in, right_out)];
    let (messages, severed) = drain(inbox(vec![left, right]));
    assert_eq!(severed, None);
    let (mut rows, mut epoch) = (0, 0);
    for message in messages {
        match message {
            Message::Batch(batch) => {
                rows += 1;
                assert_eq!(number(&batch), epoch as i64);
            }
            Message::Barrier(barrier) => {
                assert_eq!(barrier.0, epoch);
                epoch += 1;
            }
            _ => (),
        }
    }
    assert_eq!((rows, epoch), (2 * 7 * 200, 200));
    split.join().unwrap().unwrap();
    operators.into_iter().for_each(|operator| operator.join().unwrap().unwrap());
}
