//! Many upstream channels in, one well-ordered stream of messages out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam_channel::{Receiver, Select, TryRecvError};

use crate::flow::message::{Epoch, Mark, Message, Severed};
use crate::flow::meter::Meter;
use crate::flow::time::Timestamp;

/// The receiving end of a stage: the lowest watermark of the inputs, their barriers aligned, one `End`.
///
/// Where several inputs meet, the order of what comes out is a function of the streams alone, never of threads: each stream
/// is cut into slices by its marks, and slices go in the order of their marks, then of the inputs; those of one mark become
/// one. An input is read until its slice is whole, so at most one slice of each waits here.
///
/// That marks go strictly up, also behind a merge, is what keeps a graph from standing still where a stream meets what was
/// made of it: an input that is not read shows the first mark of its sources beyond the last that was handed out, so each
/// source has sent everything that the other inputs need to show theirs.
#[derive(Debug)]
pub struct Inbox {
    inputs: Vec<Input>,
    /// The input whose slice is being handed out.
    current: Option<usize>,
    /// The last watermark handed out: the lowest of the inputs'.
    watermark: Timestamp,
    meter: Arc<Meter>,
}

#[derive(Debug)]
struct Input {
    receiver: Receiver<Message>,
    watermark: Timestamp,
    /// What was read of the slice, where inputs meet.
    slice: VecDeque<Message>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The slice is whole, and this is its mark.
    Sliced(Mark),
    /// The slice is whole. Has shown the barrier, and is not read again until every other input has.
    Held {
        epoch: Epoch,
        stop: bool,
    },
    /// The slice is whole. Has closed its last epoch with `End`.
    Ended(Epoch),
}

/// When a whole slice goes: the lowest first.
type Turn = (u8, Option<Mark>, usize);

impl Inbox {
    /// An inbox that reads from all of `receivers`.
    pub fn new(receivers: Vec<Receiver<Message>>, meter: Arc<Meter>) -> Self {
        assert!(!receivers.is_empty(), "a stage without input has nothing to wait for");
        let input =
            |receiver| Input { receiver, watermark: Timestamp::START, slice: VecDeque::new(), state: State::Open };
        let inputs = receivers.into_iter().map(input).collect();
        Self { inputs, current: None, watermark: Timestamp::START, meter }
    }

    /// Waits for the next message. After `End` there is none.
    pub fn recv(&mut self) -> Result<Message, Severed> {
        loop {
            if let [input] = self.inputs.as_slice() {
                // Most stages have one input, and a plain receive costs a tenth of a select.
                let message = self.receive(input)?;
                if let Some(message) = self.pass(0, message) {
                    return Ok(message);
                }
            } else if let Some(message) = self.merged()? {
                return Ok(message);
            }
        }
    }

    /// Does one step towards the next message of several inputs.
    fn merged(&mut self) -> Result<Option<Message>, Severed> {
        if let Some(index) = self.current {
            let input = &mut self.inputs[index];
            if let Some(message) = input.slice.pop_front() {
                return Ok(self.pass(index, message));
            }
            self.current = None;
            if let State::Sliced(mark) = input.state {
                input.state = State::Open;
                // One slice for all inputs of this mark: before it is over nothing more is read, and no mark comes twice.
                self.current = self.inputs.iter().position(|input| input.state == State::Sliced(mark));
                return Ok(self.current.is_none().then_some(Message::Mark(mark)));
            }
        }
        while self.inputs.iter().any(|input| input.state == State::Open) {
            let (index, message) = self.select()?;
            self.inputs[index].take(message);
        }
        self.current = self.turns().min().map(|(_, _, index)| index);
        Ok(if self.current.is_none() { Some(self.release()) } else { None })
    }

    /// The slices that can go. Those that end with a barrier go last, as every other slice of the epoch is before it; those
    /// of an exhausted input first, so that it holds nobody back.
    fn turns(&self) -> impl Iterator<Item = Turn> {
        self.inputs.iter().enumerate().filter_map(|(index, input)| match input.state {
            State::Sliced(mark) => Some((1, Some(mark), index)),
            _ if input.slice.is_empty() => None,
            State::Ended(_) if input.is_exhausted() => Some((0, None, index)),
            _ => Some((2, None, index)),
        })
    }

    /// What the stage sees of a message, if anything.
    fn pass(&mut self, index: usize, message: Message) -> Option<Message> {
        match message {
            Message::Batch(batch) => {
                self.meter.rows_in.fetch_add(batch.num_rows() as u64, Relaxed);
                self.meter.batches_in.fetch_add(1, Relaxed);
                Some(Message::Batch(batch))
            }
            Message::Watermark(at) => {
                let input = &mut self.inputs[index];
                debug_assert!(input.watermark <= at, "a watermark went back");
                input.watermark = input.watermark.max(at);
                self.raise().map(Message::Watermark)
            }
            mark => Some(mark),
        }
    }

    fn receive(&self, input: &Input) -> Result<Message, Severed> {
        match input.receiver.try_recv() {
            Ok(message) => Ok(message),
            Err(TryRecvError::Disconnected) => Err(Severed),
            Err(TryRecvError::Empty) => {
                Meter::timed(&self.meter.waiting_ns, || input.receiver.recv()).map_err(|_| Severed)
            }
        }
    }

    /// The next message of any input whose slice is not whole.
    fn select(&self) -> Result<(usize, Message), Severed> {
        let mut open = Vec::with_capacity(self.inputs.len());
        let mut select = Select::new();
        for (index, input) in self.inputs.iter().enumerate() {
            if input.state == State::Open {
                select.recv(&input.receiver);
                open.push(index);
            }
        }
        let ready = Meter::timed(&self.meter.waiting_ns, || select.select());
        let index = open[ready.index()];
        let message = ready.recv(&self.inputs[index].receiver).map_err(|_| Severed)?;
        Ok((index, message))
    }

    /// Every input is held or has ended, and all slices have gone: lets the held ones go on, or ends.
    fn release(&mut self) -> Message {
        let (mut aligned, mut stopped, mut last) = (None, false, Epoch(0));
        for input in &mut self.inputs {
            match input.state {
                State::Held { epoch, stop } => {
                    assert!(aligned.is_none_or(|first| first == epoch), "barriers of two epochs met");
                    (aligned, stopped) = (Some(epoch), stopped || stop);
                    input.state = State::Open;
                }
                State::Ended(epoch) => last = last.max(epoch),
                State::Open | State::Sliced(_) => unreachable!("every slice has gone, and no input is open here"),
            }
        }
        match aligned {
            Some(epoch) if stopped => Message::Stop(epoch),
            Some(epoch) => Message::Barrier(epoch),
            None => Message::End(last),
        }
    }

    /// The lowest watermark of all inputs, if it is news.
    fn raise(&mut self) -> Option<Timestamp> {
        let lowest = self.inputs.iter().map(|input| input.watermark).min()?;
        (self.watermark < lowest).then(|| {
            self.watermark = lowest;
            lowest
        })
    }
}

impl Input {
    /// Takes a message into the slice.
    fn take(&mut self, message: Message) {
        self.state = match message {
            Message::Mark(mark) => State::Sliced(mark),
            Message::Barrier(epoch) => State::Held { epoch, stop: false },
            Message::Stop(epoch) => State::Held { epoch, stop: true },
            Message::End(epoch) => State::Ended(epoch),
            other => return self.slice.push_back(other),
        };
    }

    /// An exhausted input has said `Watermark(END)` before its `End`; one that was stopped goes on where it was after a
    /// restart, so it still holds event time back.
    fn is_exhausted(&self) -> bool {
        self.slice.iter().any(|message| *message == Message::Watermark(Timestamp::END))
    }
}
