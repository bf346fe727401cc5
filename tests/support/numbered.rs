//! Numbered messages: everything in one follows from its number, so that what became of all of them can be computed
//! without any of the code that is tested. With a publisher of our own, which knows what the broker has acknowledged.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The event time of message 0, in milliseconds: 2026-01-05T08:00:00Z.
pub const BASE_MILLIS: i64 = 1_767_600_000_000;
/// How far the event times of two messages are apart.
pub const STEP_MILLIS: i64 = 10;
/// `out_of_orderness` of the pipeline: 500 numbers, more than are ever under way between publisher and journal.
pub const BEHIND_MILLIS: i64 = 5_000;
pub const TUMBLING_MILLIS: i64 = 1_000;
pub const HOPPING_MILLIS: (i64, i64) = (3_000, 1_000);
pub const SESSION_MILLIS: i64 = 500;
/// Numbers that bring the watermark over the end of everything that came before them.
pub const LAST_STRETCH: u64 = 1_000;

const DEVICES: u64 = 5;
/// How many numbers have the same devices: longer than a session's gap, so that sessions end.
const BLOCK: u64 = 200;
/// Messages that the broker has not acknowledged, at most.
const WINDOW: usize = 100;
/// How long a read waits, and so how exact a rate is.
const READ_WAIT: Duration = Duration::from_millis(2);
const CONNECT_PAUSE: Duration = Duration::from_millis(50);
/// A broker that is this long silent on a new connection, or takes nothing for so long, is tried again.
const BROKER_WAIT: Duration = Duration::from_secs(10);

/// A random number of its argument alone (splitmix64).
pub fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A seeded series of random numbers; `STREAMGAUGE_SEED` gives another one.
pub struct Random(pub u64);

impl Random {
    pub fn seeded(seed: u64) -> Self {
        Self(env_or("STREAMGAUGE_SEED", seed))
    }

    pub fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0 = self.0.wrapping_add(1);
        range.start + mix(self.0) % (range.end - range.start)
    }

    pub fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_micros(self.within(range.start * 1_000..range.end * 1_000))
    }
}

/// A number from the environment.
pub fn env_or(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

pub fn millis(n: u64) -> i64 {
    BASE_MILLIS + STEP_MILLIS * i64::try_from(n).unwrap()
}

/// Three devices share a block, and the next block has another one instead of one of them.
pub fn device(n: u64) -> String {
    format!("d{}", (n / BLOCK + mix(n) % 3) % DEVICES)
}

/// Quarters, of which sums are exact in any order.
pub fn value(n: u64) -> f64 {
    (mix(n) % 4_001) as f64 / 4.0 - 500.0
}

pub fn body(n: u64) -> String {
    format!(r#"{{"n":{n},"device":"{}","ts":{},"v":{}}}"#, device(n), millis(n), value(n))
}

/// The pipeline of the tests: numbers to raw rows, in files of an epoch and in rolled ones, and to three sorts of windows.
#[derive(Clone, Copy)]
pub struct Pipeline<'a> {
    pub broker_port: u16,
    /// Where the sinks' folders are: `raw`, `rolled`, `tumbling`, `hopping`, `session`.
    pub out: &'a Path,
    /// The state folder and the journal's quota; without it there is no journal.
    pub state: Option<(&'a Path, &'a str)>,
    pub epoch: &'a str,
}

impl Pipeline<'_> {
    pub fn text(&self) -> String {
        let safety = match self.state {
            None => "durability = \"none\"".to_owned(),
            Some((folder, quota)) => {
                format!("state = {:?}\njournal = {{ quota = \"{quota}\", sync = \"group\" }}", folder.to_str().unwrap())
            }
        };
        let (hop, every) = HOPPING_MILLIS;
        let windows = [
            ("tumbling", format!("tumbling = \"{TUMBLING_MILLIS}ms\"")),
            ("hopping", format!("hopping = \"{hop}ms\", every = \"{every}ms\"")),
            ("session", format!("session = \"{SESSION_MILLIS}ms\"")),
        ];
        let windows: String = windows.iter().map(|(name, shape)| self.window(name, shape)).collect();
        format!(
            r#"
[pipeline]
name = "numbers"
epoch = "{}"
{safety}

[sources.feed]
type = "mqtt"
url = "mqtt://127.0.0.1:{}"
topics = ["numbers/{{_}}"]
client_id = "numbers"
clean_start = false
session_expiry = "1h"
keep_alive = "5s"
qos = 1

[sources.feed.decode]
format = "json"

[sources.feed.columns]
n = {{ type = "int64", required = true }}
device = {{ type = "utf8", required = true }}
ts = {{ type = "timestamp", unit = "ms", required = true }}
v = {{ type = "float64", required = true }}

# The times are of another day than today: the arrival clock must not move them.
[sources.feed.time]
column = "ts"
out_of_orderness = "{BEHIND_MILLIS}ms"
idle_after = "never"

[sinks.raw]
type = "parquet"
inputs = ["feed"]
path = {:?}

[sinks.rolled]
type = "parquet"
inputs = ["feed"]
path = {:?}
roll = {{ rows = 5_000 }}
{windows}"#,
            self.epoch,
            self.broker_port,
            self.out.join("raw"),
            self.out.join("rolled"),
        )
    }

    fn window(&self, name: &str, shape: &str) -> String {
        let path = self.out.join(name);
        format!(
            r#"
[operators.{name}]
type = "window"
inputs = ["feed"]
window = {{ {shape} }}
group_by = ["device"]
aggregates = {{ samples = "count(*)", lowest = "min(v)", highest = "max(v)", total = "sum(v)", numbers = "sum(n)" }}

[sinks.{name}_files]
type = "parquet"
inputs = ["{name}"]
path = {path:?}
"#
        )
    }
}

/// A thread that publishes the numbers in order at QoS 1, over any number of connections.
pub struct Publisher {
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    /// Numbers below this may be sent.
    limit: u64,
    /// Numbers below this were sent at least once.
    sent: u64,
    /// Numbers below this are acknowledged by the broker.
    acked: u64,
    /// Numbers that were sent again, because a connection ended before they were acknowledged: the broker may have both.
    resent: BTreeSet<u64>,
    connections: u64,
    stop: bool,
}

impl Publisher {
    /// It sends nothing before [`go`](Self::go). With `per_second` 0 it is as fast as acknowledgements come.
    pub fn start(port: u16, per_second: u64) -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let mut line = Line { state: state.clone(), port, per_second, in_flight: VecDeque::new(), packet_id: 0 };
        Self { state, thread: Some(std::thread::spawn(move || line.run())) }
    }

    /// Sends until it is told otherwise.
    pub fn go(&self) {
        self.state.lock().unwrap().limit = u64::MAX;
    }

    /// Sends so many more than were sent already, and no others. How many that makes in all.
    pub fn more(&self, count: u64) -> u64 {
        let mut state = self.state.lock().unwrap();
        state.limit = state.sent + count;
        state.limit
    }

    pub fn sent(&self) -> u64 {
        self.state.lock().unwrap().sent
    }

    pub fn acked(&self) -> u64 {
        self.state.lock().unwrap().acked
    }

    pub fn connections(&self) -> u64 {
        self.state.lock().unwrap().connections
    }

    /// Numbers that the broker may have twice, because it was given them twice.
    pub fn resent(&self) -> BTreeSet<u64> {
        self.state.lock().unwrap().resent.clone()
    }

    /// Waits until the broker has acknowledged all below a number.
    pub fn until_acked(&self, below: u64, within: Duration) {
        let from = Instant::now();
        while self.acked() < below {
            assert!(from.elapsed() < within, "the broker acknowledged {} of {below} within {within:?}", self.acked());
            std::thread::sleep(READ_WAIT);
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).stop = true;
        let outcome = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || outcome.is_some_and(|outcome| outcome.is_ok()), "the publisher panicked");
    }
}

/// What the thread knows.
struct Line {
    state: Arc<Mutex<State>>,
    port: u16,
    per_second: u64,
    /// Packet ids and numbers, in the order in which they were sent.
    in_flight: VecDeque<(u16, u64)>,
    packet_id: u16,
}

impl Line {
    fn run(&mut self) {
        while !self.stopped() {
            if let Ok(stream) = self.connect() {
                self.state.lock().unwrap().connections += 1;
                // An end of the connection is what tests do.
                let _ = self.publish(stream);
            }
            std::thread::sleep(CONNECT_PAUSE);
        }
    }

    fn stopped(&self) -> bool {
        self.state.lock().unwrap().stop
    }

    /// MQTT 3.1.1, a clean session, no keep-alive.
    fn connect(&self) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(BROKER_WAIT))?;
        stream.set_read_timeout(Some(BROKER_WAIT))?;
        stream.write_all(b"\x10\x13\x00\x04MQTT\x04\x02\x00\x00\x00\x07publish")?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        stream.set_read_timeout(Some(READ_WAIT))?;
        if answer == [0x20, 2, 0, 0] { Ok(stream) } else { Err(io::Error::other(format!("refused: {answer:?}"))) }
    }

    fn publish(&mut self, mut stream: TcpStream) -> io::Result<()> {
        let again: Vec<u64> = std::mem::take(&mut self.in_flight).into_iter().map(|(_, n)| n).collect();
        self.state.lock().unwrap().resent.extend(&again);
        let mut packets = Vec::new();
        for n in again {
            self.packet(n, true, &mut packets);
        }
        let (mut last, mut allowed, mut partial) = (Instant::now(), 0.0, Vec::new());
        while !self.stopped() {
            allowed = (allowed + last.elapsed().as_secs_f64() * self.per_second as f64).min(WINDOW as f64);
            last = Instant::now();
            while self.in_flight.len() < WINDOW && (self.per_second == 0 || allowed >= 1.0) {
                let Some(n) = self.next() else { break };
                allowed -= 1.0;
                self.packet(n, false, &mut packets);
            }
            stream.write_all(&packets)?;
            packets.clear();
            self.acknowledgements(&mut stream, &mut partial)?;
        }
        stream.write_all(&[0xe0, 0])
    }

    fn next(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap();
        let n = state.sent;
        (n < state.limit).then(|| state.sent += 1)?;
        Some(n)
    }

    fn packet(&mut self, n: u64, again: bool, into: &mut Vec<u8>) {
        self.packet_id = self.packet_id % u16::MAX + 1;
        self.in_flight.push_back((self.packet_id, n));
        let (topic, body) = (format!("numbers/{}", n % 3), body(n));
        let len = u8::try_from(2 + topic.len() + 2 + body.len()).expect("short messages");
        assert!(len < 128, "one byte of length is enough");
        into.extend([if again { 0x3a } else { 0x32 }, len, 0, topic.len() as u8]);
        into.extend(topic.as_bytes());
        into.extend(self.packet_id.to_be_bytes());
        into.extend(body.as_bytes());
    }

    /// Reads what there is: acknowledgements, four bytes each, in the order of the messages.
    fn acknowledgements(&mut self, stream: &mut TcpStream, partial: &mut Vec<u8>) -> io::Result<()> {
        let mut buffer = [0; 4_096];
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => partial.extend(&buffer[..len]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return Ok(()),
            Err(error) => return Err(error),
        }
        let whole = partial.len() / 4 * 4;
        for packet in partial.drain(..whole).collect::<Vec<u8>>().chunks(4) {
            let (id, n) = self.in_flight.pop_front().expect("an acknowledgement of something");
            assert_eq!(packet, [0x40, 2, (id >> 8) as u8, id as u8], "acknowledgements in order");
            self.state.lock().unwrap().acked = n + 1;
        }
        Ok(())
    }
}
