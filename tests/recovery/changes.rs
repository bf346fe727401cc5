//! A pipeline file that was changed between two runs: what fits is taken up, what does not is told exactly.

use crate::bench::{Bench, MORE, PIPELINE, WITHIN, change};
use crate::support::process::Process;
use crate::support::tree::{assert_same_tree, copy, tree};
use crate::support::{streamgauge, succeed};

/// Numbers of a run: no window ends with one.
const RUN: u64 = 137;

#[test]
fn what_state_does_not_depend_on_may_change_and_windows_stay_whole() {
    let Some(mut bench) = Bench::start() else { return };
    let mut text = PIPELINE.to_owned();
    bench.pass(&text, &[], &[("feed", RUN)]);
    let filter = "[operators.early]\ntype = \"filter\"\ninputs = [\"known\"]\nwhere = \"n < 1000000\"\n\
                  [operators.by_second]\ntype = \"window\"\ninputs = [\"early\"]\n";
    let sink = "[sinks.again]\ntype = \"parquet\"\ninputs = [\"known\"]\npath = \"OUT/again\"\n[sinks.latest]";
    let changes: [(&str, &str, &str); 4] = [
        ("a filter", "[operators.by_second]\ntype = \"window\"\ninputs = [\"known\"]\n", filter),
        ("lateness", "group_by = [\"device\"]", "group_by = [\"device\"]\nallowed_lateness = \"10ms\""),
        ("the epoch", "epoch = \"200ms\"", "epoch = \"350ms\""),
        ("a sink", "[sinks.latest]", sink),
    ];
    let mut before = 0;
    for (what, from, to) in changes {
        eprintln!("{what}");
        text = change(&text, from, to);
        before = bench.sent("feed");
        bench.pass(&text, &[], &[("feed", RUN)]);
    }
    assert_eq!(bench.raw("again"), (before..bench.sent("feed")).collect::<Vec<_>>(), "a new sink has what came after");
    // Operators without state go, and their account with them.
    let start = text.find("[operators.early]").unwrap();
    let end = text.find("[operators.by_second]").unwrap();
    text.replace_range(start..end, "");
    text = change(&text, "inputs = [\"early\"]", "inputs = [\"known\"]");
    bench.pass(&text, &[], &[("feed", RUN)]);
    let sent = bench.sent("feed");
    assert_eq!(bench.raw("raw"), (0..sent).collect::<Vec<_>>());
    // 10 ms of lateness are one number more.
    bench.assert_windows(sent - 1, 1);
}

#[test]
fn a_source_may_be_added_and_its_rows_complete_open_windows() {
    let Some(mut bench) = Bench::start() else { return };
    bench.pass(PIPELINE, &[], &[("feed", 50)]);
    let text = change(PIPELINE, "inputs = [\"feed\"]", "inputs = [\"feed\", \"more\"]") + MORE;
    // The new one is behind, and holds the windows open until it has come as far.
    bench.pass(&text, &[], &[("feed", 300), ("more", 350)]);
    bench.pass(&text, &[], &[("more", 100), ("feed", 100)]);
    let sent = bench.sent("feed");
    let twice: Vec<u64> = (0..sent).flat_map(|n| [n, n]).collect();
    assert_eq!(bench.raw("raw"), twice);
    bench.assert_windows(sent, 2);
}

/// A kill before the first checkpoint with the new source: its payloads were acknowledged, so they must not be lost.
#[test]
fn a_source_that_was_added_and_killed_before_a_checkpoint_loses_nothing() {
    let Some(mut bench) = Bench::start() else { return };
    bench.pass(PIPELINE, &[], &[("feed", 50)]);
    let text = change(PIPELINE, "inputs = [\"feed\"]", "inputs = [\"feed\", \"more\"]") + MORE;
    let slow = change(&text, "epoch = \"200ms\"", "epoch = \"1h\"");
    let mut run = bench.run(&slow, &[]);
    bench.publish("more", 60);
    run.until("received", WITHIN, |run| crate::bench::received(run, "more") == 60);
    run.kill();
    bench.pass(&text, &[], &[("more", 200), ("feed", 210)]);
    let mut all: Vec<u64> = (0..260).flat_map(|n| [n, n]).collect();
    all.sort_unstable();
    assert_eq!(bench.raw("raw"), all);
    bench.assert_windows(260, 2);
}

/// A replay with a source that was added later: its rows are where they were. Windows are those of the whole pipeline, which
/// then waits for both.
#[test]
fn a_journal_that_began_later_can_be_replayed() {
    let Some(mut bench) = Bench::start() else { return };
    bench.pass(PIPELINE, &[], &[("feed", 150)]);
    bench.pass(&both(), &[], &[("more", 200), ("feed", 200)]);
    bench.pass(&both(), &[], &[("more", 150)]);
    let file = bench.path("replay.toml");
    std::fs::write(&file, bench.text(&both().replace("OUT", "OUT-replay"))).unwrap();
    succeed(streamgauge().arg("replay").arg(&file).arg("--journal").arg(bench.path("state")));
    let raw = |out: &str| tree(&bench.path(out).join("raw"));
    assert_same_tree("the replay", &raw("out"), &raw("out-replay"));
}

/// The state of a run with open windows, and the file of a folder of its own for it.
fn with_state() -> Option<Bench> {
    let mut bench = Bench::start()?;
    let text = change(PIPELINE, "inputs = [\"feed\"]", "inputs = [\"feed\", \"more\"]") + MORE;
    bench.pass(&text, &[], &[("feed", RUN), ("more", RUN)]);
    Some(bench)
}

fn both() -> String {
    change(PIPELINE, "inputs = [\"feed\"]", "inputs = [\"feed\", \"more\"]") + MORE
}

#[test]
fn what_state_depends_on_is_refused_with_the_exact_difference() {
    let Some(bench) = with_state() else { return };
    let text = both();
    let aggregates = "total = \"sum(n)\"\nfirst = \"first(n)\"\n";
    let dedupe = "type = \"dedupe\"\ninputs = [\"known\"]\nkeys = [\"device\"]\nwithin = \"1s\"\n";
    let window = text.find("type = \"window\"").unwrap();
    let after = text.find("[sinks.raw]").unwrap();
    let as_dedupe = format!("{}{dedupe}{}", &text[..window], &text[after..]);
    let renamed = text.replace("by_second", "each_second");
    let start = text.find("[operators.by_second]").unwrap();
    let mut removed = format!("{}{}", &text[..start], &text[after..]);
    removed = removed.replace("inputs = [\"by_second\"]", "inputs = [\"known\"]");
    let without = change(PIPELINE, "[sinks.latest]", "[sinks.latest] # one source less");
    let cases: [(&str, String, &str); 8] = [
        (
            "window",
            change(&text, "tumbling = \"1s\"", "tumbling = \"2s\""),
            "`by_second.window`: was `{ tumbling = \"1s\" }`, is `{ tumbling = \"2s\" }`",
        ),
        (
            "group_by",
            change(&text, "group_by = [\"device\"]", "group_by = [\"device\", \"n\"]"),
            "`by_second.group_by`: was `device (Utf8)`, is `device (Utf8), n (Int64)`",
        ),
        (
            "an aggregate",
            change(&text, "total = \"sum(n)\"", "total = \"sum(n + 1)\""),
            "`by_second.aggregates.total`: was `sum(n) of Int64`, is `sum(n + 1) of Int64`",
        ),
        (
            "their order",
            change(&text, aggregates, "first = \"first(n)\"\ntotal = \"sum(n)\"\n"),
            "`by_second`: the order was window, group_by, clock, late, aggregates.rows, aggregates.total, aggregates.first, \
             aggregates.last, is window, group_by, clock, late, aggregates.rows, aggregates.first, aggregates.total, \
             aggregates.last",
        ),
        ("a kind", as_dedupe, "`by_second`: was a window, is a dedupe"),
        ("a name", renamed, "`by_second`: was a window with "),
        ("an operator less", removed, "`by_second`: was a window with "),
        ("a source less", without, "`more`: was a source (mqtt), is gone; payloads may wait in its journal"),
    ];
    for (what, text, expected) in cases {
        let said = bench.refused(what, &text, &[]);
        assert!(said.contains(expected), "{what}: {expected}\n{said}");
        let name = if what == "a source less" { "more" } else { "by_second" };
        assert!(said.contains(&format!("--reset-operator {name}")) && said.contains("--reset-state"), "{what}: {said}");
    }
    let said = bench.refused("an unknown name", &text, &["--reset-operator", "nobody"]);
    assert!(said.contains("--reset-operator nobody: the state has no such stage; it has by_second, feed, "), "{said}");
}

/// Runs with the given arguments; what was visible before stays as it was, and what comes after stands beside it.
fn goes_on(bench: &mut Bench, what: &str, text: &str, more: &[&str], publish: &[(&'static str, u64)]) {
    let before = tree(&bench.path("out"));
    bench.pass(text, more, publish);
    let mut after = tree(&bench.path("out"));
    assert!(after.len() > before.len(), "{what}: new files");
    after.retain(|path, _| before.contains_key(path));
    assert_same_tree(what, &before, &after);
}

#[test]
fn state_can_be_given_up_by_name_or_all_of_it_and_the_journal_goes_on() {
    let Some(mut bench) = with_state() else { return };
    let wide = change(&both(), "tumbling = \"1s\"", "tumbling = \"2s\"");
    let kept = bench.path("kept");
    copy(&bench.path("state"), &kept.join("state"));
    copy(&bench.path("out"), &kept.join("out"));
    goes_on(&mut bench, "--reset-operator", &wide, &["--reset-operator", "by_second"], &[("feed", 400), ("more", 400)]);
    let all: Vec<u64> = (0..bench.sent("feed")).flat_map(|n| [n, n]).collect();
    assert_eq!(bench.raw("raw"), all, "only what was in open windows is lost");
    // Without the word it goes on now.
    goes_on(&mut bench, "once is enough", &wide, &[], &[("feed", 200), ("more", 200)]);
    let narrow = both();
    let said = bench.refused("back again", &narrow, &[]);
    assert!(said.contains("was `{ tumbling = \"2s\" }`, is `{ tumbling = \"1s\" }`"), "{said}");
    goes_on(&mut bench, "--reset-state", &narrow, &["--reset-state"], &[("feed", 400), ("more", 400)]);
    let all: Vec<u64> = (0..bench.sent("feed")).flat_map(|n| [n, n]).collect();
    assert_eq!(bench.raw("raw"), all, "the journal goes on where it was");
}

#[test]
fn a_source_can_be_given_up_and_come_back() {
    for more in [&["--reset-operator", "more"][..], &["--reset-state"]] {
        let Some(mut bench) = with_state() else { return };
        goes_on(&mut bench, "a source less", PIPELINE, more, &[("feed", 100)]);
        let once = bench.raw("raw").len() as u64;
        assert_eq!(once, 2 * RUN + 100);
        // What was taken of it before is not taken again.
        goes_on(&mut bench, "and again", &both(), &[], &[("feed", 100), ("more", 300)]);
        assert_eq!(bench.raw("raw").len() as u64, once + 400);
    }
}

#[test]
fn one_process_at_a_time_and_one_pipeline_a_folder() {
    let Some(bench) = Bench::start() else { return };
    let run = bench.run(PIPELINE, &[]);
    let second = tempfile::tempdir().unwrap();
    let text = bench.text(PIPELINE);
    let said = Process::refused(second.path(), &text, &[], WITHIN);
    let state = bench.path("state");
    let state = state.to_str().unwrap();
    assert!(said.contains(&format!("state folder `{state}` is in use by another process")), "{said}");
    run.terminate(WITHIN);
    let said = bench.refused("another pipeline", &change(PIPELINE, "name = \"changing\"", "name = \"other\""), &[]);
    let expected = format!("state folder `{state}` belongs to the pipeline `changing`, not to `other`");
    assert!(said.contains(&expected), "{said}");
}

/// A session outlives the process, and with it what the pipeline file asked for before it was changed.
#[test]
fn filters_that_are_wanted_no_more_are_given_back() {
    let Some(mut bench) = Bench::start() else { return };
    let wide = change(PIPELINE, r#"["feed/{device}"]"#, r#"["feed/{device}", "other/{device}"]"#);
    bench.pass(&wide, &[], &[("feed", 10)]);
    bench.publish("other", 5);
    let account = bench.pass(&wide, &[], &[("feed", 10)]);
    assert_eq!(account["sources"]["feed"]["received"], 25, "the session has both filters");
    // What the broker has for a filter by then is still delivered; what comes after that is not.
    bench.pass(PIPELINE, &[], &[("feed", 10)]);
    bench.publish("other", 7);
    let account = bench.pass(PIPELINE, &[], &[("feed", 10)]);
    assert_eq!(account["sources"]["feed"]["received"], 45);
}
