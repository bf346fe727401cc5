//! Lines, and what is wrong with them.

use super::*;
use crate::format::testing::{all_or_none, decoder, faults, push, rows};

const COLUMNS: &str = "time = { type = 'timestamp', unit = 'ns' }\nm = { type = 'utf8', path = '$.measurement' }\n\
                       site = 'utf8'\nv = 'float64'\nnote = { type = 'utf8', path = '$.fields.note' }";

fn read(body: &str) -> Result<String, String> {
    rows(parse, "", COLUMNS, body.as_bytes()).map_err(|wrong| wrong.why)
}

#[test]
fn lines_are_rows() {
    for (body, expected) in [
        ("cpu v=1", "1970-01-01T00:00:00.000005Z,cpu,-,1.0,-"),
        ("cpu,site=a v=-1.5e3 1709207264000000000", "2024-02-29T11:47:44Z,cpu,a,-1500.0,-"),
        ("a\\ b\\,c\\=d,site=x\\ y\\,z\\=\\w v=1 0", "1970-01-01T00:00:00Z,a b,c\\=d,x y,z=\\w,1.0,-"),
        ("m v=1,note=\"a, b=\\\"c\\\" \\\\ \\n\nd\" 0\n", "1970-01-01T00:00:00Z,m,-,1.0,a, b=\"c\" \\ \\n\nd"),
        ("\n# c\nm v=1 0\r\n\n  m v=2 1000\n#", "1970-01-01T00:00:00Z,m,-,1.0,-;1970-01-01T00:00:00.000001Z,m,-,2.0,-"),
        ("m v=12i 0", "1970-01-01T00:00:00Z,m,-,12.0,-"),
        ("m v=+.5 0", "1970-01-01T00:00:00Z,m,-,0.5,-"),
        ("m v=007. 0", "1970-01-01T00:00:00Z,m,-,7.0,-"),
        ("m,site=a site=\"b\" -1", "1969-12-31T23:59:59.999999Z,m,b,-,-"),
        ("", ""),
        ("\n \n", ""),
    ] {
        assert_eq!(read(body).as_deref(), Ok(expected), "{body:?}");
    }
    let columns = "a = 'int64'\nb = 'uint64'\nc = 'boolean'\nd = { type = 'boolean', path = '$.tags.d' }";
    let body = b"w,d=true a=-9223372036854775808i,b=18446744073709551615u,c=FALSE 1";
    assert_eq!(rows(parse, "", columns, body).as_deref(), Ok("-9223372036854775808,18446744073709551615,false,true"));
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (body, why) in [
        ("m", "line 1: expected a blank, and fields"),
        ("m ", "line 1: expected `=` and a value after the field ``"),
        ("m v=1 0\nm v= 0", "line 2: field `v`: expected a number"),
        ("m v=1,v=2", "the field `v` stands there twice"),
        ("m v=\"1", "a string is not closed"),
        ("m v=1 1.5", "as the time, got `1.5`"),
        ("m v=1 1 2", "expected the end of the line, got `2`"),
        ("m,site v=1", "after the tag `site`"),
        ("m,site= v=1", "expected a value of the tag `site`"),
        ("m,a=b=c v=1", "expected a value of the tag `a`"),
        (",a=b v=1", "expected a measurement"),
        ("m v=1x", "got `1x`"),
        ("m v=nan", "got `nan`"),
        ("m v=.", "got `.`"),
        ("m v=-", "got `-`"),
        ("m v=9223372036854775808i", "got `9223372036854775808i`"),
        ("m v=-1u", "got `-1u`"),
        ("m v=\"a\"", "`v`: expected float64, got a string"),
        ("m v=1 9223372036854775808", "as the time, got `9223372036854775808`"),
    ] {
        let said = read(body).unwrap_err();
        assert!(said.contains(why), "{body:?}: {said}");
    }
    all_or_none(&mut *decoder(parse, "", COLUMNS), b"m v=1 0", b"m v=1 0\nm v=2 0\nm v=x 0");
}

#[test]
fn extra_fields_and_faults_are_told() {
    let mut counting = decoder(parse, "extra = 'count'", COLUMNS);
    assert_eq!(push(&mut *counting, b"m,site=a,x=1 v=1,y=2 0\nm z=1 0"), Ok(2));
    assert_eq!(counting.tolerated().map(|tolerated| tolerated.extra_fields), Some(3));
    let mut strict = decoder(parse, "extra = 'dead_letter'", COLUMNS);
    assert!(push(&mut *strict, b"m,site=a v=1").is_ok() && push(&mut *strict, b"m,x=a v=1").is_err());
    assert!(faults(parse, "", "a = { type = 'int64', path = '$[0]' }")[0].contains("`$.tags.NAME`"));
    assert!(faults(parse, "", "time = 'utf8'")[0].contains("is a timestamp"));
}
