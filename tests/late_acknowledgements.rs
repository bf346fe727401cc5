//! Acknowledgements that never get to the broker, for longer than the journal needs the segments of their payloads: what
//! the broker sends again after a crash is known all the same.

mod support;

use std::time::Duration;

use support::committed::{Progress, Raw, assert_account};
use support::mosquitto::Mosquitto;
use support::numbered::{LAST_STRETCH, Pipeline, Publisher};
use support::process::Process;
use support::proxy::{Proxy, Way};

/// All of them are under way at once, and fill several segments of the smallest journal.
const MESSAGES: u64 = 2_000;
const WITHIN: Duration = Duration::from_secs(30);

#[test]
fn redeliveries_are_known_though_no_checkpoint_needs_their_segments() {
    let Some(broker) = Mosquitto::start("allow_anonymous true\nmax_inflight_messages 2000") else { return };
    let (folder, proxy) = (tempfile::tempdir().unwrap(), Proxy::start(broker.port));
    let (out, state) = (folder.path().join("out"), folder.path().join("state"));
    let journal = Some((state.as_path(), "4MiB"));
    let text = Pipeline { broker_port: proxy.port, out: &out, state: journal, epoch: "50ms" }.text();
    let text = text.replace("qos = 1\n", "qos = 1\nreceive_maximum = 2000\n").replace("\"5s\"", "\"60s\"");
    let mut run = Process::start(folder.path(), &text);
    run.until_ready(WITHIN);
    proxy.stall(Way::Up);
    let publisher = Publisher::start(broker.port, 0);
    let mut progress = Progress::of(&out.join("raw"));
    let sent = publisher.more(MESSAGES);
    progress.until_all(&mut run, sent, WITHIN);
    // Several checkpoints later, which are all behind the messages.
    let epoch = || {
        let names = std::fs::read_dir(state.join("checkpoints")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter_map(|name| name.strip_suffix(".checkpoint")?.parse::<u64>().ok()).max().unwrap()
    };
    let then = epoch();
    run.until("checkpoints", WITHIN, |_| epoch() > then + 6);
    run.kill();
    proxy.cut();
    let mut run = Process::start(folder.path(), &text);
    run.until_ready(WITHIN);
    let sent = publisher.more(LAST_STRETCH);
    progress.until_all(&mut run, sent, WITHIN);
    let account = run.terminate(WITHIN);
    Raw::read(&out.join("raw"), sent).assert_exactly_once("files of an epoch");
    Raw::read(&out.join("rolled"), sent).assert_exactly_once("rolled files");
    assert_account(&account);
    assert_eq!(account["sources"]["feed"]["duplicates"], MESSAGES, "all were sent again: {account:#}");
}
