//! Templates beside the walk: the same payloads into both, and never a difference in rows, dead letters or what follows.

use super::super::*;
use super::payloads::{COLUMNS, Payloads, SETTINGS};
use super::{json_decoder, json_decoder_of, push};
use crate::flow::payload::{Delivery, Payloads as Batch};
use crate::flow::time::Timestamp;
use crate::flow::topic::Topics;

/// How many payloads: a few seconds of a debug build.
const PAYLOADS: usize = 120_000;
/// So many payloads are of one stream, with shapes of its own.
const STREAM: usize = 5_000;
/// So many payloads at most are decoded together.
const BATCH: usize = 600;

/// Columns from around the payload: some payloads have no rows for them.
const AROUND: &str = "
number = 'int64'
topic = { type = 'utf8', from = 'topic' }
qos = { type = 'int8', from = 'qos' }
retained = { type = 'boolean', from = 'retained' }
p = { type = 'float64', from = 'property:p' }
";

fn wanted() -> usize {
    let text = std::env::var("STREAMGAUGE_PAYLOADS").ok();
    text.map_or(PAYLOADS, |text| text.parse().expect("STREAMGAUGE_PAYLOADS is a number"))
}

/// Payloads as they come from a transport, with what is around them.
fn batch(payloads: &mut Payloads) -> Batch {
    let mut batch = Batch::default();
    let mut topic = String::new();
    for index in 0..=payloads.random.below(BATCH) {
        let body = payloads.body();
        let random = &mut payloads.random;
        if index == 0 || random.percent(2) {
            topic = format!("t/{}", random.of(&["1", "2", "30", "x", ""]));
        }
        let delivery = Delivery { qos: random.below(3) as u8, retained: random.percent(1), ..Delivery::default() };
        batch.push(topic.as_bytes(), &body, Timestamp::from_micros(index as i64), delivery);
        if random.percent(1) {
            batch.set_properties(vec![("p".to_owned(), random.of(&["1", "2.5", "no"]).to_owned())]);
        }
    }
    batch
}

/// Feeds a stream to a decoder, which may take many at a time, and one by one to a decoder that knows no templates and no
/// fast paths. How many of its payloads were accepted, and how many documents a template read.
fn same(columns: &str, settings: &str, mut payloads: Payloads) -> (usize, usize) {
    let decoder = || json_decoder_of(columns, &Topics::parse(["t/{number}"]).unwrap(), settings);
    let (mut ours, mut oracle) = (decoder(), decoder());
    oracle.templates.off = true;
    let (mut accepted, mut pushed) = (0, 0);
    while pushed < STREAM {
        let batch = batch(&mut payloads);
        accepted += same_batch(&mut ours, &mut oracle, &batch);
        pushed += batch.len();
        if payloads.random.percent(70) {
            assert_eq!(ours.flush(), oracle.flush());
        }
    }
    assert_eq!(ours.flush(), oracle.flush());
    (accepted, ours.templates.hits)
}

/// The same of one batch; how many payloads were accepted.
fn same_batch(ours: &mut JsonDecoder, oracle: &mut JsonDecoder, batch: &Batch) -> usize {
    let (mut accepted, mut index) = (0, 0);
    while index < batch.len() {
        let (count, result) = ours.push_some(batch, index);
        for _ in 0..count {
            let payload = batch.get(index);
            assert_eq!(result, oracle.push(&payload), "{}", String::from_utf8_lossy(payload.body));
            accepted += usize::from(result.is_ok());
            index += 1;
        }
    }
    accepted
}

#[test]
fn templates_differ_from_the_walk_in_nothing() {
    let (mut accepted, mut hits) = (0, 0);
    for seed in 0..wanted().div_ceil(3 * STREAM) as u64 {
        let (of_these, read) = same(COLUMNS, SETTINGS, Payloads::new(seed, false));
        accepted += of_these;
        hits += read;
        let required = COLUMNS.replace("a = 'int64'", "a = { type = 'int64', required = true }");
        same(&required, "max_depth = 64", Payloads::new(!seed, false));
        same(&(COLUMNS.to_owned() + AROUND), "", Payloads::new(seed ^ 0x5555, false));
    }
    // Most payloads are of a known shape, though a third of some streams has something odd.
    assert!(hits > accepted * 2 / 3, "{hits} of {accepted}");
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
fn documents_alike_are_read_together() {
    let columns = "s = 'utf8'\nb = 'float64'\nt = { type = 'timestamp', unit = 'ms' }\na = 'int64'";
    let mut decoder = json_decoder(columns, "");
    let mut batch = Batch::default();
    for at in 0..4000 {
        // One of a hundred has a null, which does not end the block; one of a thousand another shape, which does.
        let b = if at % 100 == 99 { "null".to_owned() } else { format!("{at}.25") };
        let a = if at % 1000 == 500 { String::new() } else { format!(",\"a\":-{at}") };
        let body = format!(r#"{{"s":"dev-{at}","b":{b},"x":true,"t":17000000{at:05}{a}}}"#);
        batch.push(b"t", body.as_bytes(), Timestamp::START, Delivery::default());
    }
    let (mut index, mut calls) = (0, 0);
    while index < batch.len() {
        let (count, rows) = decoder.push_some(&batch, index);
        assert_eq!(rows, Ok(1));
        index += count;
        calls += 1;
    }
    assert!(calls < 100, "{calls}");
    assert_eq!(decoder.flush().num_rows(), 4000);
}

#[test]
fn what_is_odd_in_a_long_run_is_seen() {
    let columns = "s = 'utf8'\nb = 'float64'\na = 'int64'";
    let good = r#"{"s":"dev-1","b":2.25,"x":1,"a":7}"#;
    let odd = [
        good.to_owned() + "x",
        good.to_owned() + " ",
        good.to_owned() + good,
        good[..good.len() - 1].to_owned(),
        good.replace("2.25", "1000000.2500000"),
        good.replace("\"x\":1", "\"x\":1000000.2500000"),
        good.replace("2.25", "2.25e1"),
        good.replace("2.25", "02.25"),
        good.replace("dev-1", "dev\n-1"),
        good.replace("dev-1", "d\\u0065v"),
        good.replace('7', "7.0"),
        good.replace('7', "-9223372036854775808"),
        good.replace('7', "9223372036854775808"),
        good.replace("dev-1", &"d".repeat(80)),
    ];
    let settings = "max_number_len = 14\nmax_bytes = '100B'";
    for odd in odd {
        let (mut ours, mut oracle) = (json_decoder(columns, settings), json_decoder(columns, settings));
        oracle.templates.off = true;
        let mut batch = Batch::default();
        for at in 0..100 {
            let body = if at % 60 == 50 { &odd } else { good };
            batch.push(b"t", body.as_bytes(), Timestamp::START, Delivery::default());
        }
        same_batch(&mut ours, &mut oracle, &batch);
        assert_eq!(ours.flush(), oracle.flush(), "{odd}");
        assert!(ours.templates.hits > 80);
    }
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
