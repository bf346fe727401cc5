//! Many upstream channels in, one well-ordered stream of messages out.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam_channel::{Receiver, Select, TryRecvError};

use crate::flow::message::{Epoch, Message, Severed};
use crate::flow::meter::Meter;
use crate::flow::time::Timestamp;

/// The receiving end of a stage: the lowest watermark of the inputs, their barriers aligned, one `End`.
#[derive(Debug)]
pub struct Inbox {
    inputs: Vec<Input>,
    /// The last watermark handed out: the lowest of the inputs'.
    watermark: Timestamp,
    meter: Arc<Meter>,
}

#[derive(Debug)]
struct Input {
    receiver: Receiver<Message>,
    watermark: Timestamp,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Has shown the barrier, and is not read again until every other input has.
    Held(Epoch),
    /// Has closed its last epoch with `End`.
    Ended(Epoch),
}

impl Inbox {
    /// An inbox that reads from all of `receivers`.
    pub fn new(receivers: Vec<Receiver<Message>>, meter: Arc<Meter>) -> Self {
        assert!(!receivers.is_empty(), "a stage without input has nothing to wait for");
        let input = |receiver| Input { receiver, watermark: Timestamp::START, state: State::Open };
        Self { inputs: receivers.into_iter().map(input).collect(), watermark: Timestamp::START, meter }
    }

    /// Waits for the next message. After `End` there is none.
    pub fn recv(&mut self) -> Result<Message, Severed> {
        loop {
            let Some((index, message)) = self.select()? else {
                return Ok(self.release());
            };
            let input = &mut self.inputs[index];
            match message {
                Message::Batch(batch) => {
                    self.meter.rows_in.fetch_add(batch.num_rows() as u64, Relaxed);
                    self.meter.batches_in.fetch_add(1, Relaxed);
                    return Ok(Message::Batch(batch));
                }
                Message::Barrier(epoch) => input.state = State::Held(epoch),
                // An exhausted input has said `Watermark(END)` before, so it holds nobody back; one
                // that was stopped goes on where it was after a restart, so it still does.
                Message::End(epoch) => input.state = State::Ended(epoch),
                Message::Watermark(at) => {
                    debug_assert!(input.watermark <= at, "a watermark went back");
                    input.watermark = input.watermark.max(at);
                    if let Some(at) = self.raise() {
                        return Ok(Message::Watermark(at));
                    }
                }
            }
        }
    }

    /// The next message of any open input; `None` once no input is open.
    fn select(&self) -> Result<Option<(usize, Message)>, Severed> {
        // Most stages have one input, and a plain receive costs a tenth of a select.
        if let [Input { receiver, state: State::Open, .. }] = self.inputs.as_slice() {
            return match receiver.try_recv() {
                Ok(message) => Ok(Some((0, message))),
                Err(TryRecvError::Disconnected) => Err(Severed),
                Err(TryRecvError::Empty) => {
                    let message = Meter::timed(&self.meter.waiting_ns, || receiver.recv());
                    Ok(Some((0, message.map_err(|_| Severed)?)))
                }
            };
        }
        let mut open = Vec::with_capacity(self.inputs.len());
        let mut select = Select::new();
        for (index, input) in self.inputs.iter().enumerate() {
            if input.state == State::Open {
                select.recv(&input.receiver);
                open.push(index);
            }
        }
        if open.is_empty() {
            return Ok(None);
        }
        let ready = Meter::timed(&self.meter.waiting_ns, || select.select());
        let index = open[ready.index()];
        let message = ready.recv(&self.inputs[index].receiver).map_err(|_| Severed)?;
        Ok(Some((index, message)))
    }

    /// Every input is held or has ended: lets the held ones go on, or ends.
    fn release(&mut self) -> Message {
        let (mut aligned, mut last) = (None, Epoch(0));
        for input in &mut self.inputs {
            match input.state {
                State::Held(epoch) => {
                    assert!(aligned.is_none_or(|first| first == epoch), "barriers of two epochs met");
                    aligned = Some(epoch);
                    input.state = State::Open;
                }
                State::Ended(epoch) => last = last.max(epoch),
                State::Open => unreachable!("no input is open here"),
            }
        }
        aligned.map_or(Message::End(last), Message::Barrier)
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
