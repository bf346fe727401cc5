//! Payloads to rows on one thread or several, without a change in their order.
//!
//! What a payload comes to depends on nothing but the payload in most formats, so batches of payloads are decoded apart from
//! each other; time, dead letters and counts are the [`intake`](crate::ingest::intake)'s, which takes them in the order in
//! which they were given. A format that remembers what came before has one decoder, whose state is in the checkpoint.
//!
//! ```toml
//! [sources.telemetry]
//! decoders = 2                     # threads; by the number of cores, up to four
//! ```

use arrow::array::RecordBatch;
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::flow::message::Severed;
use crate::flow::payload::Payloads;
use crate::format::{Decoder, Malformed, Request, Tolerated};

/// How many threads may decode the payloads of a source.
pub const DECODERS_MAX: usize = 64;

/// How many batches of payloads may be with one of several decoders: one that is decoded, and one that waits.
const BATCHES_A_DECODER: usize = 2;

/// How many decoders a source has at most that does not say: one feeds several operators on cores of their own.
const DEFAULT_DECODERS_MAX: usize = 4;

/// How many batches of payloads are with so many decoders at most.
pub const fn batches_ahead(decoders: usize) -> usize {
    if decoders == 1 { 1 } else { decoders * BATCHES_A_DECODER }
}

/// How many decoders a source has that does not say: as many as there are cores, up to a few, as to decode is most of the
/// work. Those that have nothing to do cost nothing.
pub fn default_decoders() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(DEFAULT_DECODERS_MAX))
}

/// What a batch of payloads came to.
pub struct Decoded {
    /// The payloads.
    pub payloads: Payloads,
    /// All their rows, in order.
    pub rows: RecordBatch,
    /// How many rows each payload gave.
    pub counts: Vec<u32>,
    /// Those that do not decode, by ascending index.
    pub malformed: Vec<(usize, Malformed)>,
    /// What was let pass of those that do, by ascending index.
    pub tolerated: Vec<(usize, Tolerated)>,
    /// What the decoder asks of senders.
    pub requests: Vec<Request>,
}

impl Decoded {
    fn of(decoder: &mut dyn Decoder, payloads: Payloads) -> Self {
        let mut counts = Vec::with_capacity(payloads.len());
        let (mut malformed, mut tolerated) = (Vec::new(), Vec::new());
        let is_tolerant = decoder.tolerated().is_some();
        while counts.len() < payloads.len() {
            let index = counts.len();
            let (count, rows) = decoder.push_some(&payloads, index);
            let rows = rows.unwrap_or_else(|why| {
                malformed.push((index, why));
                0
            });
            if is_tolerant {
                tolerated.extend(decoder.tolerated().filter(|some| !some.is_nothing()).map(|some| (index, some)));
            }
            counts.resize(index + count, u32::try_from(rows).expect("a batch has fewer rows than 2^32"));
        }
        let requests = decoder.requests();
        Self { rows: decoder.flush(), payloads, counts, malformed, tolerated, requests }
    }
}

/// The decoders of a source.
pub enum Decoding {
    /// On the intake's own thread.
    Here(Box<dyn Decoder>),
    /// On threads of their own, each of which gets every *n*th batch.
    Threads {
        /// The way to each of them and back.
        threads: Vec<(Sender<Payloads>, Receiver<Decoded>)>,
        /// Whose turn it is.
        next: usize,
    },
}

/// A thread that decodes.
pub struct DecoderThread {
    decoder: Box<dyn Decoder>,
    payloads: Receiver<Payloads>,
    decoded: Sender<Decoded>,
}

impl DecoderThread {
    /// Decodes until the intake is gone.
    pub fn run(mut self) {
        while let Ok(payloads) = self.payloads.recv() {
            if self.decoded.send(Decoded::of(&mut *self.decoder, payloads)).is_err() {
                return;
            }
        }
    }
}

/// What was given to be decoded, to be asked for in the same order.
pub enum Ticket {
    /// It is there already.
    Here(Box<Decoded>),
    /// The thread of this number has it.
    Thread(usize),
}

impl Decoding {
    /// One decoder decodes on the thread that asks; several get threads, to be run by the caller.
    pub fn of(mut decoders: Vec<Box<dyn Decoder>>) -> (Self, Vec<DecoderThread>) {
        if decoders.len() == 1 {
            return (Self::Here(decoders.remove(0)), Vec::new());
        }
        let (mut threads, mut runs) = (Vec::new(), Vec::new());
        for decoder in decoders {
            let (give, payloads) = bounded(BATCHES_A_DECODER);
            let (decoded, take) = bounded(BATCHES_A_DECODER);
            threads.push((give, take));
            runs.push(DecoderThread { decoder, payloads, decoded });
        }
        (Self::Threads { threads, next: 0 }, runs)
    }

    /// What the decoder knows from the payloads that were given; one of several knows nothing.
    pub fn state(&self) -> Option<String> {
        match self {
            Self::Here(decoder) => decoder.state(),
            Self::Threads { .. } => None,
        }
    }

    /// Goes on from a state. Several decoders remember nothing: the format was another one then.
    pub fn restore(&mut self, state: &str) -> Result<(), String> {
        match self {
            Self::Here(decoder) => decoder.restore(state),
            Self::Threads { .. } => Ok(()),
        }
    }

    /// How many batches may be given before one is asked for.
    pub fn ahead(&self) -> usize {
        match self {
            Self::Here(_) => batches_ahead(1),
            Self::Threads { threads, .. } => batches_ahead(threads.len()),
        }
    }

    /// Gives payloads to be decoded.
    pub fn give(&mut self, payloads: Payloads) -> Result<Ticket, Severed> {
        match self {
            Self::Here(decoder) => Ok(Ticket::Here(Box::new(Decoded::of(&mut **decoder, payloads)))),
            Self::Threads { threads, next } => {
                let thread = *next;
                threads[thread].0.send(payloads).map_err(|_| Severed)?;
                *next = (thread + 1) % threads.len();
                Ok(Ticket::Thread(thread))
            }
        }
    }

    /// Takes what was given first of all that was not taken yet.
    pub fn take(&mut self, ticket: Ticket) -> Result<Decoded, Severed> {
        match (ticket, self) {
            (Ticket::Here(decoded), _) => Ok(*decoded),
            (Ticket::Thread(thread), Self::Threads { threads, .. }) => threads[thread].1.recv().map_err(|_| Severed),
            (Ticket::Thread(_), Self::Here(_)) => Err(Severed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::thread;

    use arrow::array::cast::AsArray;
    use arrow::array::types::Int64Type;
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;
    use crate::flow::payload::{Delivery, Payload};
    use crate::flow::time::Timestamp;

    /// A row for every byte that is a digit; a payload with a `!` is none.
    struct Digits(Vec<i64>);

    impl Decoder for Digits {
        fn push(&mut self, payload: &Payload<'_>) -> Result<usize, Malformed> {
            if let Some(at) = payload.body.iter().position(|byte| *byte == b'!') {
                return Err(Malformed { at: Some(at), why: "!".to_owned() });
            }
            self.0.extend(payload.body.iter().map(|byte| i64::from(byte - b'0')));
            Ok(payload.body.len())
        }

        fn flush(&mut self) -> RecordBatch {
            let column: ArrayRef = Arc::new(Int64Array::from(std::mem::take(&mut self.0)));
            RecordBatch::try_from_iter([("n", column)]).unwrap()
        }
    }

    fn payloads(bodies: &[&str]) -> Payloads {
        let mut payloads = Payloads::default();
        for body in bodies {
            payloads.push(b"t", body.as_bytes(), Timestamp::START, Delivery::default());
        }
        payloads
    }

    #[test]
    fn a_state_of_another_format_is_no_matter() {
        for decoders in [1, 2] {
            let all = (0..decoders).map(|_| Box::new(Digits(Vec::new())) as Box<dyn Decoder>).collect();
            let (mut decoding, _threads) = Decoding::of(all);
            assert_eq!((decoding.restore("births"), decoding.state()), (Ok(()), None));
        }
    }

    fn decoded(decoders: usize) -> Vec<(Vec<i64>, Vec<u32>, Vec<usize>)> {
        let make = |_| Box::new(Digits(Vec::new())) as Box<dyn Decoder>;
        let (mut decoding, threads) = Decoding::of((0..decoders).map(make).collect());
        thread::scope(|scope| {
            for run in threads {
                scope.spawn(|| run.run());
            }
            let given = [&["1", "23", "!"][..], &["!4"], &[""], &["5"], &["67", "8"]];
            let (mut line, mut all) = (VecDeque::new(), Vec::new());
            let mut take = |decoding: &mut Decoding, line: &mut VecDeque<Ticket>| {
                let decoded = decoding.take(line.pop_front().unwrap()).unwrap();
                let rows = decoded.rows.column(0).as_primitive::<Int64Type>().values().to_vec();
                all.push((rows, decoded.counts, decoded.malformed.iter().map(|(index, _)| *index).collect()));
            };
            for bodies in given {
                if line.len() == decoding.ahead() {
                    take(&mut decoding, &mut line);
                }
                let ticket = decoding.give(payloads(bodies)).unwrap();
                line.push_back(ticket);
            }
            while !line.is_empty() {
                take(&mut decoding, &mut line);
            }
            drop(decoding);
            all
        })
    }

    #[test]
    fn the_order_is_that_in_which_payloads_were_given_however_many_decode() {
        let expected = [
            (vec![1, 2, 3], vec![1, 2, 0], vec![2]),
            (vec![], vec![0], vec![0]),
            (vec![], vec![0], vec![]),
            (vec![5], vec![1], vec![]),
            (vec![6, 7, 8], vec![2, 1], vec![]),
        ];
        for decoders in [1, 2, 3, 8] {
            assert_eq!(decoded(decoders), expected, "{decoders} decoders");
        }
    }
}
