//! Records, and what is wrong with them.

use super::*;
use crate::format::testing::{all_or_none, decoder, faults, push, rows, text};

const COLUMNS: &str = "ts = { type = 'timestamp', unit = 's', required = true }\ntemp = 'float64'\nnote = 'utf8'";

fn read(settings: &str, body: &str) -> Result<String, String> {
    rows(parse, settings, COLUMNS, body.as_bytes()).map_err(|wrong| wrong.why)
}

#[test]
fn records_are_rows() {
    for (settings, body, expected) in [
        ("", "1,20.5,a\n2,21,b\n", "1970-01-01T00:00:01Z,20.5,a;1970-01-01T00:00:02Z,21.0,b"),
        ("", "1,20.5,a", "1970-01-01T00:00:01Z,20.5,a"),
        (
            "",
            "1,,\r\n\r\n2,21,\"x, \"\"y\"\"\nz\"\r\n",
            "1970-01-01T00:00:01Z,-,-;1970-01-01T00:00:02Z,21.0,x, \"y\"\nz",
        ),
        ("", "", ""),
        ("", "\n\n", ""),
        ("header = true", "note,ts,temp\na,1,20.5", "1970-01-01T00:00:01Z,20.5,a"),
        ("header = true", "\u{feff}temp , ts\n1,2", "1970-01-01T00:00:02Z,1.0,-"),
        ("header = true", "ts,temp,note", ""),
        ("header = true\nskip_records = 1", "Station 7\nts,temp\n1,2", "1970-01-01T00:00:01Z,2.0,-"),
        ("fields = ['x', 'note', 'temp', 'ts']", "0,a,1.5,7", "1970-01-01T00:00:07Z,1.5,a"),
        ("delimiter = ';'\ndecimal = ','", "1;-20,5;a,b", "1970-01-01T00:00:01Z,-20.5,a,b"),
        ("delimiter = '\\t'\nquote = ''", "1\t2\t\"a", "1970-01-01T00:00:01Z,2.0,\"a"),
        ("quote = \"'\"", "1,2,'a,b'", "1970-01-01T00:00:01Z,2.0,a,b"),
        ("comment = '#'", "# t\n1,2,a\n#1,2,b\n", "1970-01-01T00:00:01Z,2.0,a"),
        ("trim = true", "1, 2 , a\n2,3,  ", "1970-01-01T00:00:01Z,2.0,a;1970-01-01T00:00:02Z,3.0,-"),
        ("", "1, 2 , a", "1970-01-01T00:00:01Z,2.0, a"),
        ("ragged = true", "1\n2,3,b,4,5", "1970-01-01T00:00:01Z,-,-;1970-01-01T00:00:02Z,3.0,b"),
    ] {
        let settings = settings.replace("'\\t'", "\"\\t\"");
        assert_eq!(read(&settings, body).as_deref(), Ok(expected), "{settings} {body:?}");
    }
    let columns = "a = { type = 'int64', path = '$[2]' }\nb = { type = 'boolean', path = '$[0]' }";
    assert_eq!(rows(parse, "", columns, b"ON,x,7\noff,,8,9").as_deref(), Ok("7,true;8,false"));
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (settings, body, why) in [
        ("", "1,2,a\n\n2,x,b\n", "line 3: field `temp`: expected float64, got \"x\""),
        ("", "1,2,a\n2,3\n", "line 2: expected 3 fields, got 2"),
        ("", "1,2,\"a\nb\"\n2,3\n", "line 3: expected 3 fields, got 2"),
        ("", ",2,a", "line 1: field `ts`: required column `ts` is missing"),
        ("header = true", "temp,note\n1,a", "line 2: required column `ts` is missing"),
        ("header = true", "ts,ts\n1,1", "line 1: the header has `ts` twice"),
        ("extra = 'dead_letter'\nfields = ['ts', 'x']\nragged = true", "1,2", "line 1: no columns are declared for 1"),
        ("max_rows = 1", "1,2,a\n1,2,a", "more rows than max_rows = 1"),
        ("max_bytes = '4B'", "1,2,a", "over max_bytes = 4"),
    ] {
        let settings = settings.replace("fields = ['ts', 'x']", "fields = ['ts', 'x', 'temp', 'note']");
        let said = read(&settings, body).unwrap_err();
        assert!(said.contains(why), "{settings} {body:?}: {said}");
    }
    let ts = "ts = { type = 'timestamp', unit = 's', required = true }";
    all_or_none(&mut *decoder(parse, "", ts), b"1\n", b"1\n2\nx\n");
}

#[test]
fn extra_fields_are_counted() {
    let mut decoder = decoder(parse, "extra = 'count'\nheader = true", COLUMNS);
    assert_eq!(push(&mut *decoder, b"ts,temp,x,y\n1,2,3,4\n2,3,4,5"), Ok(2));
    assert!(push(&mut *decoder, b"ts,temp,x\n1,2,3\nb,1,2").is_err());
    assert_eq!(decoder.tolerated().map(|tolerated| tolerated.extra_fields), Some(4));
    assert_eq!(text(&decoder.flush()).split(';').count(), 2);
}

#[test]
fn faults_are_told() {
    for (settings, columns, why) in [
        ("delimiter = ';;'", "a = 'int64'", "`delimiter`: expected one sign"),
        ("delimiter = ''", "a = 'int64'", "`delimiter` is empty"),
        ("decimal = ','", "a = 'int64'", "delimited by commas, too"),
        ("header = true\nfields = ['a']", "a = 'int64'", "keep one of the two"),
        ("fields = ['temp']", "tmep = 'int64'", "`fields` has no `tmep`"),
        ("", "a = { type = 'int64', path = '$.a.b' }", "a field of csv is"),
        ("", "a = 'int64'\nb = { type = 'int64', path = '$[0]' }", "has its place by index"),
    ] {
        let found = faults(parse, settings, columns);
        assert!(found.iter().any(|fault| fault.contains(why)), "{settings}: {found:?}");
    }
}
