//! Templates beside the walk: the same payloads into both, and never a difference in rows, dead letters or what follows.

use super::super::*;
use super::payloads::{COLUMNS, Payloads, SETTINGS};
use super::{json_decoder, push};

/// How many payloads: a few seconds of a debug build.
const PAYLOADS: usize = 40_000;
/// So many payloads are of one stream, with shapes of its own.
const STREAM: usize = 5_000;

fn wanted() -> usize {
    let text = std::env::var("STREAMGAUGE_PAYLOADS").ok();
    text.map_or(PAYLOADS, |text| text.parse().expect("STREAMGAUGE_PAYLOADS is a number"))
}

/// Feeds a stream to a decoder and to one that knows no templates and no fast paths. How many of its payloads were
/// accepted, and how many documents a template read.
fn same(columns: &str, settings: &str, mut payloads: Payloads) -> (usize, usize) {
    let (mut ours, mut oracle) = (json_decoder(columns, settings), json_decoder(columns, settings));
    oracle.templates.off = true;
    let mut accepted = 0;
    for _ in 0..STREAM {
        let body = payloads.body();
        let (result, expected) = (push(&mut ours, &body), push(&mut oracle, &body));
        assert_eq!(result, expected, "{}", String::from_utf8_lossy(&body));
        accepted += usize::from(result.is_ok());
        if payloads.random.below(100) == 0 {
            assert_eq!(ours.flush(), oracle.flush());
        }
    }
    assert_eq!(ours.flush(), oracle.flush());
    (accepted, ours.templates.hits)
}

#[test]
fn templates_differ_from_the_walk_in_nothing() {
    let (mut accepted, mut hits) = (0, 0);
    for seed in 0..wanted().div_ceil(2 * STREAM) as u64 {
        let (of_these, read) = same(COLUMNS, SETTINGS, Payloads::new(seed, false));
        accepted += of_these;
        hits += read;
        let required = COLUMNS.replace("a = 'int64'", "a = { type = 'int64', required = true }");
        same(&required, "max_depth = 64", Payloads::new(!seed, false));
    }
    // Most payloads are of a known shape, though a third of them has something odd.
    assert!(hits > accepted / 2, "{hits} of {accepted}");
}

#[test]
fn templates_of_rows_differ_from_the_walk_in_nothing() {
    let columns = COLUMNS.to_owned() + "d = { type = 'utf8', path = '$$.d' }";
    let settings = "rows = '$.rows[*]'\nmax_rows = 4\nmax_depth = 7\nmax_number_len = 22";
    let mut hits = 0;
    for seed in 0..wanted().div_ceil(4 * STREAM) as u64 {
        hits += same(&columns, settings, Payloads::new(seed, true)).1;
    }
    assert!(hits > STREAM / 10, "{hits}");
}

#[test]
fn a_learned_shape_needs_no_walk() {
    let mut decoder = json_decoder(COLUMNS, SETTINGS);
    let body = |at: usize| {
        format!(
            r#"{{"s":"dev-{at}","b":{at}.5,"x":[{}1],"on":{},"t":{at}}}"#,
            "0,".repeat(at % 5),
            at.is_multiple_of(2)
        )
    };
    for at in 0..100 {
        push(&mut decoder, body(at).as_bytes()).unwrap();
    }
    assert_eq!(decoder.templates.hits, 99);
}

#[test]
fn shapes_in_turn_are_all_known() {
    let mut decoder = json_decoder(COLUMNS, SETTINGS);
    let shapes =
        [r#"{"a":1,"b":2}"#, r#"{"a":1}"#, r#"{"b":2,"a":1}"#, r#"{"a":1,"env":null}"#, r#"{"a":1,"env":{"price":1}}"#];
    for turn in 0..50 {
        push(&mut decoder, shapes[turn % shapes.len()].as_bytes()).unwrap();
    }
    // Each was a miss once; from the fourth on they are learned after some misses.
    assert!(decoder.templates.hits >= 40, "{}", decoder.templates.hits);
}

#[test]
fn shapes_without_end_take_bounded_room() {
    let mut decoder = json_decoder(COLUMNS, "");
    for at in 0..20_000 {
        let key = at * 7919 % 100_003;
        push(&mut decoder, format!(r#"{{"a":1,"key{key}":1,"{key}":"x"}}"#).as_bytes()).unwrap();
        if at % 1000 == 0 {
            decoder.flush();
        }
    }
    assert!(decoder.templates.room() < 1 << 20);
    // And what is known later is learned later.
    let before = decoder.templates.hits;
    for _ in 0..10_000 {
        push(&mut decoder, br#"{"b":1.5}"#).unwrap();
    }
    assert!(decoder.templates.hits > before + 5_000);
}
