//! Where streams meet, what comes out is a function of the streams alone: any graph of merges, at any capacity, on any
//! schedule, gives what sorting their slices gives.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arrow::array::cast::AsArray;
use arrow::array::types::Int64Type;
use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use crossbeam_channel::{Sender, bounded};
use proptest::prelude::*;
use proptest::sample::Index;
use streamgauge::flow::inbox::Inbox;
use streamgauge::flow::message::{Epoch, Mark, Message};
use streamgauge::flow::meter::Meter;
use streamgauge::flow::outbox::Outbox;
use streamgauge::flow::time::Timestamp;

use crate::support::numbered::mix;

/// What a graph may take at most; then it stands still.
const WATCHDOG: Duration = Duration::from_secs(20);

type Stream = Vec<Message>;

fn batch(number: i64) -> Message {
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, false)]);
    let column = Arc::new(Int64Array::from(vec![number]));
    Message::Batch(RecordBatch::try_new(Arc::new(schema), vec![column]).unwrap().into())
}

/// Short enough to be read where a case fails.
fn text(stream: &[Message]) -> Vec<String> {
    let one = |message: &Message| match message {
        Message::Batch(batch) => batch.column(0).as_primitive::<Int64Type>().value(0).to_string(),
        Message::Watermark(Timestamp::END) => "w end".to_owned(),
        Message::Watermark(at) => format!("w{}", at.micros()),
        Message::Mark(mark) => format!("m{}.{}", mark.at.micros(), mark.number),
        Message::Barrier(epoch) => format!("b{}", epoch.0),
        Message::Stop(epoch) => format!("s{}", epoch.0),
        Message::End(epoch) => format!("e{}", epoch.0),
    };
    stream.iter().map(one).collect()
}

/// What a source says: epochs of slices, and what follows the last mark of each.
#[derive(Clone, Debug)]
struct Script {
    epochs: Vec<Vec<(Vec<Step>, i64)>>,
    rests: Vec<Vec<Step>>,
    stops: Vec<bool>,
    /// It is exhausted in the end, perhaps epochs before the others.
    exhausted: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Row,
    Rise(i64),
}

impl Script {
    fn stream(&self, source: i64) -> Stream {
        let (mut stream, mut row, mut watermark) = (Stream::new(), source * 1_000, 0);
        let mut mark = Mark { at: Timestamp::from_micros(0), number: 0 };
        let mut steps = |steps: &[Step], stream: &mut Stream| {
            for step in steps {
                stream.push(match step {
                    Step::Row => batch(row),
                    Step::Rise(by) => Message::Watermark(Timestamp::from_micros(watermark + by)),
                });
                row += 1;
                watermark += if let Step::Rise(by) = step { *by } else { 0 };
            }
        };
        let last = self.exhausted.unwrap_or(self.epochs.len() - 1).min(self.epochs.len() - 1);
        for epoch in 0..=last {
            for (slice, later) in &self.epochs[epoch] {
                steps(slice, &mut stream);
                mark = Mark { at: Timestamp::from_micros(mark.at.micros() + later), number: mark.number + 1 };
                stream.push(Message::Mark(mark));
            }
            steps(&self.rests[epoch], &mut stream);
            let number = Epoch(epoch as u64);
            if epoch < last {
                stream.push(if self.stops[epoch] { Message::Stop(number) } else { Message::Barrier(number) });
            } else {
                stream.extend(self.exhausted.map(|_| Message::Watermark(Timestamp::END)));
                stream.push(Message::End(number));
            }
        }
        stream
    }
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(prop_oneof![4 => Just(Step::Row), 1 => (1_i64..9).prop_map(Step::Rise)], 0..5)
}

fn any_script(epochs: usize) -> impl Strategy<Value = Script> {
    let slices = prop::collection::vec((any_steps(), 0_i64..3), 0..6);
    (
        prop::collection::vec(slices, epochs),
        prop::collection::vec(any_steps(), epochs),
        prop::collection::vec(prop::bool::weighted(0.2), epochs),
        prop::option::of(0..epochs),
    )
        .prop_map(|(epochs, rests, stops, exhausted)| Script { epochs, rests, stops, exhausted })
}

/// One epoch of a stream, taken apart.
#[derive(Clone, Debug, Default)]
struct Part {
    slices: Vec<(Mark, Vec<Message>)>,
    rest: Vec<Message>,
    end: Option<Message>,
}

fn parts(stream: &[Message]) -> Vec<Part> {
    let (mut parts, mut part) = (Vec::new(), Part::default());
    for message in stream {
        match message {
            Message::Mark(mark) => part.slices.push((*mark, std::mem::take(&mut part.rest))),
            Message::Barrier(_) | Message::Stop(_) | Message::End(_) => {
                part.end = Some(message.clone());
                parts.push(std::mem::take(&mut part));
            }
            other => part.rest.push(other.clone()),
        }
    }
    parts
}

/// The merge of streams by sorting: epoch by epoch, slices in the order of their marks, then of the inputs; slices of one mark
/// become one. What follows the last mark goes last, but where it is the end of an exhausted input, which holds nobody back.
fn merged(inputs: &[&Stream]) -> Stream {
    if let [one] = inputs {
        return (*one).clone();
    }
    let inputs: Vec<Vec<Part>> = inputs.iter().map(|stream| parts(stream)).collect();
    let mut out = Merging { watermarks: vec![Timestamp::START; inputs.len()], ..Merging::default() };
    for epoch in 0..inputs.iter().map(Vec::len).max().unwrap_or(0) {
        let here: Vec<(usize, &Part)> =
            inputs.iter().enumerate().filter_map(|(input, parts)| Some((input, parts.get(epoch)?))).collect();
        let exhausted = |part: &Part| part.rest.contains(&Message::Watermark(Timestamp::END));
        let mut marks: Vec<Mark> = here.iter().flat_map(|(_, part)| part.slices.iter().map(|slice| slice.0)).collect();
        marks.sort_unstable();
        marks.dedup();
        for before in [None].into_iter().chain(marks.iter().copied().map(Some)) {
            if let Some(mark) = before {
                for (input, part) in &here {
                    let slices = part.slices.iter().filter(|slice| slice.0 == mark);
                    slices.for_each(|slice| out.take(*input, &slice.1));
                }
                out.stream.push(Message::Mark(mark));
            }
            let ends = |part: &Part| exhausted(part) && part.slices.last().map(|slice| slice.0) == before;
            here.iter().filter(|(_, part)| ends(part)).for_each(|(input, part)| out.take(*input, &part.rest));
        }
        here.iter().filter(|(_, part)| !exhausted(part)).for_each(|(input, part)| out.take(*input, &part.rest));
        let ends = || here.iter().filter_map(|(_, part)| part.end.clone());
        let stop = ends().find(|end| matches!(end, Message::Stop(_)));
        let barrier = ends().find(|end| matches!(end, Message::Barrier(_)));
        let last = inputs.iter().all(|parts| parts.len() <= epoch + 1);
        out.stream.extend(stop.or(barrier).or_else(|| last.then(|| Message::End(Epoch(epoch as u64)))));
    }
    out.stream
}

#[derive(Default)]
struct Merging {
    stream: Stream,
    watermarks: Vec<Timestamp>,
    said: Option<Timestamp>,
}

impl Merging {
    fn take(&mut self, input: usize, messages: &[Message]) {
        for message in messages {
            let Message::Watermark(at) = message else {
                self.stream.push(message.clone());
                continue;
            };
            self.watermarks[input] = *at;
            let lowest = *self.watermarks.iter().min().unwrap();
            if lowest > self.said.unwrap_or(Timestamp::START) {
                self.said = Some(lowest);
                self.stream.push(Message::Watermark(lowest));
            }
        }
    }
}

/// The edges of a graph: by stage, the sources first, which of the stages before it each reads. The last reads all that
/// nobody else does.
fn graph(sources: usize, picks: &[Vec<Index>]) -> Vec<Vec<usize>> {
    let mut inputs: Vec<Vec<usize>> = vec![Vec::new(); sources];
    for picks in picks {
        let mut from: Vec<usize> = Vec::new();
        for pick in picks {
            let stage = pick.index(inputs.len());
            if !from.contains(&stage) {
                from.push(stage);
            }
        }
        inputs.push(from);
    }
    let read: Vec<usize> = inputs.iter().flatten().copied().collect();
    inputs.push((0..inputs.len()).filter(|stage| !read.contains(stage)).collect());
    inputs
}

/// Runs a graph on threads that dawdle at random; `None` if it stands still.
fn run(streams: &[Stream], inputs: &[Vec<usize>], capacity: usize, seed: u64) -> Option<Stream> {
    let mut senders: Vec<Vec<Sender<Message>>> = vec![Vec::new(); inputs.len()];
    let mut inboxes = Vec::new();
    for from in inputs {
        let mut receivers = Vec::new();
        for stage in from {
            let (sender, receiver) = bounded(capacity);
            senders[*stage].push(sender);
            receivers.push(receiver);
        }
        inboxes.push((!receivers.is_empty()).then(|| Inbox::new(receivers, Arc::default())));
    }
    let (result, collected) = bounded(1);
    for (stage, (inbox, senders)) in inboxes.into_iter().zip(senders).enumerate() {
        let mut outbox = Outbox::new(senders, Vec::new(), 1_000, Arc::new(Meter::default()));
        let script = streams.get(stage).cloned().unwrap_or_default();
        let result = (stage + 1 == inputs.len()).then(|| result.clone());
        thread::spawn(move || {
            let mut random = seed ^ mix(stage as u64);
            let (mut script, mut all, mut inbox) = (script.into_iter(), Stream::new(), inbox);
            loop {
                let message = match &mut inbox {
                    Some(inbox) => inbox.recv().unwrap(),
                    None => script.next().unwrap(),
                };
                random = mix(random);
                match random % 16 {
                    0 => thread::sleep(Duration::from_micros(random >> 32 & 127)),
                    1..4 => thread::yield_now(),
                    _ => {}
                }
                all.push(message.clone());
                let last = matches!(message, Message::End(_));
                outbox.send(message).unwrap();
                if last {
                    break;
                }
            }
            result.map(|result| result.send(all).unwrap())
        });
    }
    collected.recv_timeout(WATCHDOG).ok()
}

/// What the last stage of a graph must see.
fn expected(streams: &[Stream], inputs: &[Vec<usize>]) -> Stream {
    let mut known: Vec<Stream> = streams.to_vec();
    for from in &inputs[streams.len()..] {
        let merged = merged(&from.iter().map(|stage| &known[*stage]).collect::<Vec<_>>());
        known.push(merged);
    }
    known.pop().unwrap()
}

fn check(streams: &[Stream], inputs: &[Vec<usize>], capacity: usize, seed: u64) -> Result<(), String> {
    let expected = text(&expected(streams, inputs));
    let Some(actual) = run(streams, inputs, capacity, seed) else {
        return Err(format!("{inputs:?} at capacity {capacity} stands still; {expected:?} was expected"));
    };
    let actual = text(&actual);
    if actual != expected {
        return Err(format!("{inputs:?} at capacity {capacity} gave\n{actual:?}\nand not\n{expected:?}"));
    }
    Ok(())
}

fn any_streams() -> impl Strategy<Value = Vec<Stream>> {
    let scripts = (1_usize..4).prop_flat_map(|epochs| prop::collection::vec(any_script(epochs), 2..4));
    scripts.prop_map(|scripts| scripts.iter().zip(0..).map(|(script, source)| script.stream(source)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_merge_is_the_sort_of_its_slices(streams in any_streams(), capacity in 1_usize..4, seed: u64) {
        let inputs = graph(streams.len(), &[]);
        for seed in [seed, !seed] {
            check(&streams, &inputs, capacity, seed).map_err(TestCaseError::fail)?;
        }
    }

    #[test]
    fn a_graph_of_merges_is_one_function_and_never_stands_still(
        streams in any_streams(),
        picks in prop::collection::vec(prop::collection::vec(any::<Index>(), 1..4), 1..6),
        capacity in 1_usize..3,
        seed: u64,
    ) {
        let inputs = graph(streams.len(), &picks);
        check(&streams, &inputs, capacity, seed).map_err(TestCaseError::fail)?;
    }
}

/// `rows` rows a slice, and so many slices.
fn steady(source: i64, rows: usize, slices: usize) -> Stream {
    let slice = || (vec![Step::Row; rows], 1);
    let epochs = vec![(0..slices).map(|_| slice()).collect(), Vec::new()];
    Script { epochs, rests: vec![Vec::new(); 2], stops: vec![false; 2], exhausted: Some(1) }.stream(source)
}

/// A source that meets another one, and then what came of that: one branch needs a whole slice more than the other is read.
#[test]
fn a_stream_may_meet_what_was_made_of_it() {
    let streams = [steady(0, 4, 5), steady(1, 2, 5)];
    for inputs in [vec![vec![2, 0]], vec![vec![0, 2]], vec![vec![2, 1, 0]]] {
        let inputs: Vec<Vec<usize>> = [vec![], vec![], vec![0, 1]].into_iter().chain(inputs).collect();
        check(&streams, &inputs, 1, 7).unwrap();
    }
}

/// Marks that two sources have in common, though they know nothing of each other, are in order too.
#[test]
fn one_mark_of_two_inputs_is_one_mark() {
    let (a, b) = (steady(0, 1, 2), steady(1, 1, 2));
    let merged = text(&run(&[a, b], &[vec![], vec![], vec![0, 1]], 1, 1).unwrap());
    assert_eq!(merged, ["0", "1000", "m1.1", "1", "1001", "m2.2", "b0", "w end", "e1"]);
}
