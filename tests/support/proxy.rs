//! A TCP proxy that does to connections what networks do: it delays, cuts, stalls one way, resets in the middle of a
//! packet, and crumbles what it forwards.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a read waits, and so how soon a fault takes hold.
const READ_WAIT: Duration = Duration::from_millis(10);
/// How much is forwarded at once.
const CHUNK: usize = 4_096;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the broker.
    Up,
    /// From the broker to the client.
    Down,
}

/// Forwards connections to 127.0.0.1 until it is dropped.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    accepted: AtomicU64,
    delay_millis: AtomicU64,
    crumbs: AtomicBool,
    connections: Mutex<Vec<Arc<Connection>>>,
}

/// Both sides of a connection. They close when the last thread has let go of it.
struct Connection {
    client: TcpStream,
    broker: TcpStream,
    over: AtomicBool,
    stalled: [AtomicBool; 2],
    /// The next chunk is forwarded by half, and then both sides are reset.
    reset: [AtomicBool; 2],
}

impl Proxy {
    pub fn start(broker_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared: Arc<Shared> = Arc::default();
        let accepting = shared.clone();
        let acceptor = std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.stop.load(Relaxed) {
                    break;
                }
                // A broker that cannot be reached: the client is told so by the end of its connection.
                let Ok(connection) = client.and_then(|client| Connection::open(client, broker_port)) else { continue };
                accepting.accept(Arc::new(connection));
            }
        });
        Self { port, shared, acceptor: Some(acceptor) }
    }

    /// How many connections there were.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Relaxed)
    }

    /// Every chunk, either way, is held for so long; of connections to come, too.
    pub fn delay(&self, by: Duration) {
        self.shared.delay_millis.store(u64::try_from(by.as_millis()).unwrap(), Relaxed);
    }

    /// Every byte becomes a packet of its own; of connections to come, too.
    pub fn crumbs(&self, on: bool) {
        self.shared.crumbs.store(on, Relaxed);
    }

    /// Ends the connections, on both sides.
    pub fn cut(&self) {
        self.each(|connection| {
            connection.over.store(true, Relaxed);
            let _ = connection.client.shutdown(Shutdown::Both);
            let _ = connection.broker.shutdown(Shutdown::Both);
        });
    }

    /// The connections forward nothing that way any more, and do not end.
    pub fn stall(&self, way: Way) {
        self.each(|connection| connection.stalled[way as usize].store(true, Relaxed));
    }

    /// What was stalled goes on.
    pub fn go_on(&self) {
        self.each(|connection| connection.stalled.iter().for_each(|stalled| stalled.store(false, Relaxed)));
    }

    /// Resets the connections in the middle of what goes that way next.
    pub fn reset(&self, way: Way) {
        self.each(|connection| connection.reset[way as usize].store(true, Relaxed));
    }

    fn each(&self, what: impl Fn(&Connection)) {
        let mut connections = self.shared.connections.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        connections.iter().for_each(|connection| what(connection));
        connections.retain(|connection| !connection.over.load(Relaxed));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        self.cut();
        // Wakes the acceptor up.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.acceptor.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, connection: Arc<Connection>) {
        self.connections.lock().unwrap().push(connection.clone());
        self.accepted.fetch_add(1, Relaxed);
        for way in [Way::Up, Way::Down] {
            let (shared, connection) = (self.clone(), connection.clone());
            std::thread::spawn(move || {
                // Whatever ends one way ends both.
                let _ = shared.forward(&connection, way);
                connection.over.store(true, Relaxed);
                shared.connections.lock().unwrap().retain(|connection| !connection.over.load(Relaxed));
            });
        }
    }

    fn forward(&self, connection: &Connection, way: Way) -> io::Result<()> {
        let (mut from, mut to) = match way {
            Way::Up => (&connection.client, &connection.broker),
            Way::Down => (&connection.broker, &connection.client),
        };
        let mut chunk = [0; CHUNK];
        while !connection.over.load(Relaxed) && !self.stop.load(Relaxed) {
            if connection.stalled[way as usize].load(Relaxed) {
                std::thread::sleep(READ_WAIT);
                continue;
            }
            let len = match from.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(len) => len,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => continue,
                Err(error) => return Err(error),
            };
            std::thread::sleep(Duration::from_millis(self.delay_millis.load(Relaxed)));
            // It may have waited for this chunk since before it was stalled.
            while connection.stalled[way as usize].load(Relaxed) && !connection.over.load(Relaxed) {
                if self.stop.load(Relaxed) {
                    return Ok(());
                }
                std::thread::sleep(READ_WAIT);
            }
            if connection.reset[way as usize].load(Relaxed) && len > 1 {
                to.write_all(&chunk[..len / 2])?;
                return connection.end_by_reset();
            }
            let crumb = if self.crumbs.load(Relaxed) { 1 } else { CHUNK };
            chunk[..len].chunks(crumb).try_for_each(|part| to.write_all(part))?;
        }
        Ok(())
    }
}

impl Connection {
    fn open(client: TcpStream, broker_port: u16) -> io::Result<Self> {
        let broker = TcpStream::connect(("127.0.0.1", broker_port))?;
        for side in [&client, &broker] {
            side.set_nodelay(true)?;
            side.set_read_timeout(Some(READ_WAIT))?;
            // A peer that takes nothing must not hold a thread for ever.
            side.set_write_timeout(Some(Duration::from_secs(20)))?;
        }
        Ok(Self { client, broker, over: false.into(), stalled: Default::default(), reset: Default::default() })
    }

    /// Without lingering a close is a reset. The half that was written is on its way by the time that the other thread
    /// has let go.
    fn end_by_reset(&self) -> io::Result<()> {
        for side in [&self.client, &self.broker] {
            tokio::net::TcpSocket::from_std_stream(side.try_clone()?).set_zero_linger()?;
        }
        Ok(())
    }
}
