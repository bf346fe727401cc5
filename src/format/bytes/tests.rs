//! Layouts, and payloads that do not fit them.

use super::*;
use crate::format::testing::{all_or_none, decoder, faults, of_hex, rows};

/// One field `v` of bytes.
fn one(kind: &str, field: &str, hex: &str) -> Result<String, String> {
    let settings = format!("fields = [{{ name = 'v', at = 0, {field} }}]");
    rows(parse, &settings, &format!("v = {kind}"), &of_hex(hex)).map_err(|wrong| wrong.why)
}

#[test]
fn every_type_is_read() {
    for (kind, field, hex, value) in [
        ("'int64'", "type = 'int8'", "80", "-128"),
        ("'int64'", "type = 'uint8'", "80", "128"),
        ("'int64'", "type = 'int16'", "fffe", "-2"),
        ("'int64'", "type = 'int16', endian = 'little'", "feff", "-2"),
        ("'int64'", "type = 'int24'", "fffffe", "-2"),
        ("'int64'", "type = 'uint24', endian = 'little'", "010000", "1"),
        ("'int64'", "type = 'int32'", "80000000", "-2147483648"),
        ("'int64'", "type = 'uint32'", "80000000", "2147483648"),
        ("'int64'", "type = 'uint32', word_order = 'swapped'", "0002 0001", "65538"),
        ("'int64'", "type = 'uint32', endian = 'little', word_order = 'swapped'", "0100 0200", "65538"),
        ("'int64'", "type = 'int64'", "8000000000000000", "-9223372036854775808"),
        ("'uint64'", "type = 'uint64'", "ffffffffffffffff", "18446744073709551615"),
        ("'float32'", "type = 'float32'", "3dcccccd", "0.1"),
        ("'float64'", "type = 'float32', word_order = 'swapped'", "0000 4148", "12.5"),
        ("'float64'", "type = 'float64', endian = 'little'", "9a9999999999b93f", "0.1"),
        ("'float64'", "type = 'float32'", "7fc00000", "-"),
        ("'boolean'", "type = 'boolean'", "02", "true"),
        ("'utf8'", "type = 'text', len = 4", "61c3a900", "aé"),
        ("'utf8'", "type = 'bytes', len = 3", "00ff10", "00ff10"),
        ("'binary'", "type = 'bytes', len = 2", "00ff", "00ff"),
        ("'int64'", "bits = [4, 4]", "a5", "10"),
        ("'boolean'", "bits = [7, 1]", "80", "true"),
        ("'int64'", "type = 'int16', bits = [0, 12]", "0fff", "-1"),
        ("'int64'", "type = 'uint16', bits = [4, 12]", "fff0", "4095"),
        ("{ type = 'float64', scale = 0.1, offset = -40 }", "type = 'uint16'", "028a", "25.0"),
        ("{ type = 'utf8', values = { '1' = 'on' } }", "type = 'uint8'", "01", "on"),
        ("'float64'", "type = 'float64'", "00", "-"),
    ] {
        assert_eq!(one(kind, field, hex).as_deref(), Ok(value), "{kind} {field} {hex}");
    }
}

#[test]
fn rows_follow_each_other() {
    let settings = "endian = 'little'\nrows = { at = 2, size = 3 }\nfields = [
        { name = 'id', at = 0, type = 'uint16' },
        { name = 'v', at = 0, type = 'int16', row = true },
        { name = 'ok', at = 2, bits = [0, 1], row = true }]";
    let columns = "id = 'int64'\nv = 'float64'\nok = 'boolean'";
    let read = |hex| rows(parse, settings, columns, &of_hex(hex)).map_err(|wrong| wrong.why);
    assert_eq!(read("0100 0500 01 ffff 02").as_deref(), Ok("1,5.0,true;1,-1.0,false"));
    assert_eq!(read("0100").as_deref(), Ok(""));
    assert!(read("0100 05").unwrap_err().contains("expected rows of 3 bytes from byte 2 on, got 1 bytes"));
    assert!(read("01").unwrap_err().contains("expected 2 bytes at least"));
    all_or_none(&mut *decoder(parse, settings, columns), &of_hex("0100 0500 01"), &of_hex("0100 0500 01 0500"));
}

#[test]
fn what_is_wrong_is_said() {
    assert!(one("{ type = 'int64', required = true }", "type = 'int16'", "00").unwrap_err().contains("field `v`"));
    assert!(one("'int8'", "type = 'int16'", "0100").unwrap_err().contains("256 does not fit int8"));
    assert!(one("'utf8'", "type = 'text', len = 1", "ff").unwrap_err().contains("UTF-8"));
    let length = rows(parse, "length = 2\nfields = [{ name = 'v', at = 0, type = 'int8' }]", "v = 'int8'", b"a");
    assert_eq!(length.unwrap_err().why, "expected 2 bytes, got 1");
    for (settings, columns, why) in [
        ("", "v = 'int8'", "`fields` is missing"),
        ("fields = []", "v = 'int8'", "one table at least"),
        ("fields = [{ name = 'v', at = 0 }]", "v = 'int8'", "`type` is missing"),
        ("fields = [{ name = 'v', at = 0, type = 'text' }]", "v = 'utf8'", "`len` is missing"),
        ("fields = [{ name = 'v', at = 0, type = 'int8', len = 1 }]", "v = 'int8'", "`len` goes with"),
        ("fields = [{ name = 'v', at = 0, bits = [4, 5] }]", "v = 'int8'", "of 8"),
        ("fields = [{ name = 'v', at = 0, type = 'float32', bits = [4, 5] }]", "v = 'int8'", "of a whole number"),
        ("fields = [{ name = 'v', at = 0, type = 'int8', row = true }]", "v = 'int8'", "there are no `rows`"),
        ("length = 1\nfields = [{ name = 'v', at = 0, type = 'int16' }]", "v = 'int8'", "ends at byte 2"),
        ("fields = [{ name = 'v', at = 0, type = 'int8' }]", "w = 'int8'", "`fields` has no `w`"),
        (
            "fields = [{ name = 'v', at = 0, type = 'int8' }]",
            "w = { type = 'int8', path = '$.v' }\nx = 'int8'",
            "no `x`",
        ),
        (
            "fields = [{ name = 'v', at = 0, type = 'int8' }, { name = 'w', at = 0, type = 'int8' }]",
            "v = 'int8'",
            "no column is declared for the field `w`",
        ),
    ] {
        let found = faults(parse, settings, columns);
        assert!(found.iter().any(|fault| fault.contains(why)), "{settings}: {found:?}");
    }
}
