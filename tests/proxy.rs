//! A network that misbehaves between broker and source, while messages come: nothing lost, nothing twice, and the
//! session is never thrown away.
//!
//! `STREAMGAUGE_FAULT_SECONDS=600` makes it longer, `STREAMGAUGE_SEED=7` another schedule.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use support::committed::{Open, Progress, Raw, assert_account, assert_no_leftovers, assert_windows};
use support::mosquitto::Mosquitto;
use support::numbered::{LAST_STRETCH, Pipeline, Publisher, Random, env_or};
use support::process::Process;
use support::proxy::{Proxy, Way};

/// How long there are faults, where `STREAMGAUGE_FAULT_SECONDS` says nothing else.
const SECONDS: u64 = 20;
const MESSAGES_PER_SECOND: u64 = 1_000;
/// The pauses of the source between connections are within this.
const READY_WITHIN: Duration = Duration::from_secs(60);
const CATCH_UP_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// With keep-alive 5 s both sides have noticed a way that is dead by then.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);

/// One fault of the schedule.
fn fault(proxy: &Proxy, random: &mut Random) {
    let way = if random.within(0..2) == 0 { Way::Up } else { Way::Down };
    let lasts = random.millis(20..400);
    match random.within(0..6) {
        0 => proxy.cut(),
        1 => proxy.reset(way),
        2 | 3 => {
            proxy.stall(way);
            std::thread::sleep(lasts);
            // Some stalls end in a cut, with everything that was under way.
            if random.within(0..3) == 0 {
                proxy.cut();
            }
            proxy.go_on();
        }
        4 => {
            proxy.delay(random.millis(1..60));
            std::thread::sleep(lasts);
            proxy.delay(Duration::ZERO);
        }
        _ => {
            proxy.crumbs(true);
            std::thread::sleep(lasts);
            proxy.crumbs(false);
        }
    }
    std::thread::sleep(random.millis(50..300));
}

fn reconnects(run: &Process) -> u64 {
    run.metric("streamgauge_source_reconnects_total", &["component=\"feed\""]).unwrap_or(0)
}

#[test]
fn a_network_that_misbehaves_loses_nothing_and_doubles_nothing() {
    let Some(broker) = Mosquitto::start("allow_anonymous true\nmax_inflight_messages 200") else { return };
    let (proxy, folder, from) = (Proxy::start(broker.port), tempfile::tempdir().unwrap(), Instant::now());
    let (folder, out, state) = (folder.path(), folder.path().join("out"), folder.path().join("state"));
    let state = Some((state.as_path(), "64MiB"));
    let mut run =
        Process::start(folder, &Pipeline { broker_port: proxy.port, out: &out, state, epoch: "200ms" }.text());
    run.until_ready(READY_WITHIN);
    let (publisher, mut random) = (Publisher::start(broker.port, MESSAGES_PER_SECOND), Random::seeded(5));
    publisher.go();
    let (seconds, mut faults) = (env_or("STREAMGAUGE_FAULT_SECONDS", SECONDS), 0);
    while from.elapsed().as_secs() < seconds {
        fault(&proxy, &mut random);
        faults += 1;
    }
    // A way that is dead for good: keep-alive notices it, on either side.
    for way in [Way::Down, Way::Up] {
        run.until_ready(READY_WITHIN);
        let before = reconnects(&run);
        proxy.stall(way);
        run.until("a dead way is noticed", NOTICED_WITHIN, |run| reconnects(run) > before);
    }
    let sent = publisher.more(LAST_STRETCH);
    publisher.until_acked(sent, CATCH_UP_WITHIN);
    let mut progress = Progress::of(&out.join("raw"));
    progress.until_all(&mut run, sent, CATCH_UP_WITHIN);
    let gaps = run.metric("streamgauge_source_gaps_total", &["component=\"feed\""]).unwrap();
    let again = reconnects(&run);
    let account = run.terminate(STOP_WITHIN);
    let (raw, rolled) = (Raw::read(&out.join("raw"), sent), Raw::read(&out.join("rolled"), sent));
    println!(
        "faults {faults}, connections {}, messages {sent}, redelivered {}, lost {}, duplicated {}, {:.1} s",
        proxy.accepted(),
        account["sources"]["feed"]["duplicates"],
        raw.lost.len() + rolled.lost.len(),
        raw.duplicated.len() + rolled.duplicated.len(),
        from.elapsed().as_secs_f64(),
    );
    raw.assert_exactly_once("files of an epoch");
    rolled.assert_exactly_once("rolled files");
    assert_windows(&out, &raw.rows, Open::Kept);
    assert_account(&account);
    assert_no_leftovers(&out);
    assert!(again > 0, "the faults ended connections");
    assert_eq!(gaps, 0, "the broker kept the session");
}

/// A connection through a proxy: both ends.
fn connected() -> (Proxy, TcpStream, TcpStream) {
    let broker = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(broker.local_addr().unwrap().port());
    let client = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
    let (server, _) = broker.accept().unwrap();
    while proxy.accepted() == 0 {
        std::thread::yield_now();
    }
    for side in [&client, &server] {
        side.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    }
    (proxy, client, server)
}

/// The proxy itself: bytes arrive as they were sent, or the connection ends as was said.
#[test]
fn the_proxy_does_what_it_says() {
    let mut buffer = [0; 10];
    let (proxy, mut client, mut server) = connected();
    proxy.crumbs(true);
    client.write_all(b"0123456789").unwrap();
    server.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"0123456789");
    proxy.stall(Way::Down);
    // It sees the stall once its read is over.
    std::thread::sleep(Duration::from_millis(50));
    server.write_all(b"abcdefghij").unwrap();
    client.write_all(b"9876543210").unwrap();
    server.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"9876543210", "the other way goes on");
    client.set_nonblocking(true).unwrap();
    assert_eq!(client.read(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    client.set_nonblocking(false).unwrap();
    proxy.go_on();
    client.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"abcdefghij");
    proxy.crumbs(false);
    proxy.reset(Way::Down);
    server.write_all(b"0123456789").unwrap();
    let mut rest = Vec::new();
    let ended = client.read_to_end(&mut rest).map_err(|error| error.kind());
    assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset));
    assert_eq!(rest, b"01234", "half of it arrived before");

    let (proxy, mut client, mut server) = connected();
    proxy.cut();
    assert_eq!((client.read(&mut buffer).unwrap(), server.read(&mut buffer).unwrap()), (0, 0), "both ends see the end");
    assert_eq!(proxy.accepted(), 1);
}
