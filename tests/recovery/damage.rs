//! State that is damaged, or of a newer build.

use std::fs;
use std::path::Path;

use crate::bench::{Bench, PIPELINE, WITHIN, change, newest, received};
use crate::support::tree::{assert_same_tree, copy, tree};
use crate::support::{streamgauge, succeed};

/// The bench after a run with open windows; the stop was the last thing.
fn stopped() -> Option<Bench> {
    let mut bench = Bench::start()?;
    // A run of nothing is an epoch, too: there are three of them.
    bench.pass(PIPELINE, &[], &[]);
    bench.pass(PIPELINE, &[], &[("feed", 130)]);
    bench.pass(PIPELINE, &[], &[("feed", 130)]);
    Some(bench)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn newer_formats_are_refused_by_name_and_version() {
    let Some(bench) = stopped() else { return };
    let state = bench.path("state");
    let about = state.join("state.json");
    let text = fs::read_to_string(&about).unwrap();
    fs::write(&about, change(&text, "\"version\":1", "\"version\":2")).unwrap();
    let said = bench.refused("state.json", PIPELINE, &[]);
    let expected = format!("state folder `{}` is of version 2, and this build knows version 1", state.display());
    assert!(said.contains(&expected), "{said}");
    fs::write(&about, text).unwrap();

    let checkpoint = newest(&state.join("checkpoints"), ".checkpoint").remove(0);
    let bytes = fs::read(&checkpoint).unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    fs::write(&checkpoint, change(&text, "streamgauge-checkpoint 1 ", "streamgauge-checkpoint 2 ")).unwrap();
    let said = bench.refused("a checkpoint", PIPELINE, &[]);
    assert!(said.contains(&format!("checkpoint `{}` is of version 2", checkpoint.display())), "{said}");
    fs::write(&checkpoint, bytes).unwrap();

    let segment = newest(&state.join("journal/feed"), ".journal").pop().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[8] = 3;
    let checksum = crc32c(&bytes[..36]);
    bytes[36..40].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&segment, bytes).unwrap();
    let said = bench.refused("a segment", PIPELINE, &[]);
    let expected = format!("journal: `{}` is of version 3, and this build knows version 2", segment.display());
    assert!(said.contains(&expected), "{said}");
}

/// CRC-32C, bit by bit: not the one that is tested.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// Whatever is wrong with the newest checkpoint, the one before it gives the same.
#[test]
fn a_damaged_checkpoint_is_passed_over_and_the_outcome_is_the_same() {
    let Some(mut bench) = stopped() else { return };
    let (state, out, kept) = (bench.path("state"), bench.path("out"), bench.path("kept"));
    copy(&state, &kept.join("state"));
    copy(&out, &kept.join("out"));
    let checkpoints = newest(&state.join("checkpoints"), ".checkpoint");
    assert_eq!(checkpoints.len(), 3, "three are kept");
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let part = newest(&state.join("checkpoints"), ".arrow").remove(0);
    assert_eq!(name(&part)[..8], name(&checkpoints[0])[..8], "the newest checkpoint wrote a part");
    // The whole journal is still there, so that nothing but the checkpoint decides.
    for (what, damaged) in [("nothing", vec![]), ("manifest", vec![0]), ("two manifests", vec![0, 1])] {
        for folder in ["state", "out"] {
            let _ = fs::remove_dir_all(bench.path(folder));
            copy(&kept.join(folder), &bench.path(folder));
        }
        damaged.iter().for_each(|index: &usize| flip(&checkpoints[*index], 60));
        if what == "manifest" {
            flip(&part, 200);
        }
        bench.pass(PIPELINE, &[], &[]);
        let (rows, windows) = (bench.raw("raw"), bench.windows());
        assert_eq!(rows, (0..260).collect::<Vec<_>>(), "{what}");
        assert_eq!(windows.len(), 4, "{what}");
        // What was visible before has the same bytes under the same names.
        let (before, mut after) = (tree(&kept.join("out")), tree(&out));
        after.retain(|path, _| before.contains_key(path));
        assert_same_tree(what, &before, &after);
    }
    bench.pass(PIPELINE, &[], &[("feed", 170)]);
    assert_eq!(bench.raw("raw"), (0..430).collect::<Vec<_>>());
    bench.assert_windows(430, 1);
}

/// A journal of which the beginning is gone: a replay begins with the oldest checkpoint, and the state can still be given up.
#[test]
fn without_the_beginning_of_the_journal_its_rest_is_of_use() {
    let Some(mut bench) = Bench::start() else { return };
    let small = change(PIPELINE, "32MiB", "1MiB");
    for _ in 0..6 {
        bench.pass(&small, &[], &[("feed", 1_000)]);
    }
    let journal = bench.path("state/journal/feed");
    assert!(!journal.join("000000000001.journal").exists(), "the beginning is gone");
    let (state, out) = (bench.path("state"), bench.path("out"));
    let (before, live) = (tree(&state), tree(&out));
    let file = bench.path("replay.toml");
    fs::write(&file, bench.text(&small.replace("OUT", "OUT-replay"))).unwrap();
    succeed(streamgauge().arg("replay").arg(&file).arg("--journal").arg(&state));
    let replayed = tree(&bench.path("out-replay"));
    for sink in ["raw", "windows"] {
        assert!(replayed.keys().any(|path| path.starts_with(sink)), "{sink}");
    }
    let of_live = replayed.keys().map(|path| (path.clone(), live[path].clone())).collect();
    assert_same_tree("the replay", &of_live, &replayed);
    assert_same_tree("the state folder", &before, &tree(&state));

    for checkpoint in newest(&state.join("checkpoints"), ".checkpoint") {
        flip(&checkpoint, 60);
    }
    bench.refused("all damaged", &small, &[]);
    bench.pass(&small, &["--reset-state"], &[("feed", 300)]);
    assert_eq!(bench.raw("raw"), (0..6_300).collect::<Vec<_>>());
    bench.pass(&small, &[], &[("feed", 300)]);
    assert_eq!(bench.raw("raw"), (0..6_600).collect::<Vec<_>>());
}

/// What a crash leaves half written is cut off by a start, and passed over by a replay, which changes nothing.
#[test]
fn a_replay_does_not_cut_off_what_a_crash_left() {
    let Some(bench) = stopped() else { return };
    let segment = newest(&bench.path("state/journal/feed"), ".journal").pop().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end + 20..end + 60].fill(0x55);
    fs::write(&segment, bytes).unwrap();
    let (before, live) = (bench.state(), tree(&bench.path("out")));
    let file = bench.path("replay.toml");
    fs::write(&file, bench.text(&PIPELINE.replace("OUT", "OUT-replay"))).unwrap();
    succeed(streamgauge().arg("replay").arg(&file).arg("--journal").arg(bench.path("state")));
    assert_same_tree("the replay", &live, &tree(&bench.path("out-replay")));
    assert_same_tree("the state folder", &before, &bench.state());
    let record = bench.path("state/journal/feed/000000000001.journal");
    let at = fs::read(&record).unwrap().windows(6).position(|window| window == br#""n":30"#).unwrap();
    flip(&record, at + 5);
    let said = streamgauge().arg("replay").arg(&file).arg("--journal").arg(bench.path("state")).output().unwrap();
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.contains("is damaged at byte "), "damage is no reason to begin later: {said}");
}

/// Nothing to go on from: it says so, and what to do; with the word that it names, it goes on behind what was committed.
#[test]
fn without_any_whole_checkpoint_nothing_is_guessed() {
    let Some(mut bench) = stopped() else { return };
    for checkpoint in newest(&bench.path("state/checkpoints"), ".checkpoint") {
        flip(&checkpoint, 60);
    }
    let said = bench.refused("all damaged", PIPELINE, &[]);
    for expected in
        ["none of the checkpoints in `", "its checksum is wrong", "Restore one of them, or run with --reset-state"]
    {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let before = tree(&bench.path("out"));
    bench.pass(PIPELINE, &["--reset-state"], &[("feed", 300)]);
    assert_eq!(bench.raw("raw"), (0..560).collect::<Vec<_>>(), "the journal says where the last epoch ended");
    let mut after = tree(&bench.path("out"));
    after.retain(|path, _| before.contains_key(path));
    assert_same_tree("what was visible before", &before, &after);
    // Windows that were open when the state was lost have only what came after; the others are whole.
    let whole = bench.windows().values().filter(|row| row["rows"] == 50).count();
    assert_eq!(whole, 2 * (2 + 2), "two before, two after");
}

/// A record that was durable once, and is not what it was: the place is named, and going on is a word of the user.
#[test]
fn a_damaged_record_of_the_journal_is_refused_with_its_place() {
    let Some(mut bench) = Bench::start() else { return };
    let slow = change(PIPELINE, "epoch = \"200ms\"", "epoch = \"1h\"");
    let mut run = bench.run(&slow, &[]);
    for _ in 0..3 {
        bench.publish("feed", 40);
        let sent = bench.sent("feed");
        run.until("received", WITHIN, |run| received(run, "feed") == sent);
    }
    run.kill();
    let segment = newest(&bench.path("state/journal/feed"), ".journal").pop().unwrap();
    let bytes = fs::read(&segment).unwrap();
    let body = br#""n":30}"#;
    let at = bytes.windows(body.len()).position(|window| window == body).expect("the payload is there");
    flip(&segment, at + 5);
    let said = bench.refused("a damaged record", PIPELINE, &[]);
    let named: usize = said
        .split("is damaged at byte ")
        .nth(1)
        .and_then(|rest| rest.split(':').next()?.parse().ok())
        .unwrap_or_else(|| panic!("{said}"));
    let len = u32::from_le_bytes(bytes[named..named + 4].try_into().unwrap()) as usize;
    assert!((named..named + 8 + len).contains(&at), "{at} is not in the record at {named}");
    assert!(said.contains(segment.to_str().unwrap()) && said.contains("--accept-loss"), "{said}");
    bench.pass(PIPELINE, &["--accept-loss"], &[("feed", 50)]);
    // Those of the record came together, so all of them before the next 40 were sent.
    let kept = bench.raw("raw");
    let lost: Vec<u64> = (0..170).filter(|n| !kept.contains(n)).collect();
    let (first, last) = (lost[0], lost[lost.len() - 1]);
    assert_eq!(kept, (0..first).chain(last + 1..170).collect::<Vec<_>>(), "all but the record that was damaged");
    assert!((first..=last).contains(&30) && last < 40, "{first} to {last} are lost");
}
