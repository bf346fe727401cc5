//! Documents that are many rows, or none that the columns fit.

use super::*;

#[test]
fn members_of_a_map_are_rows() {
    let columns = "d = { type = 'utf8', path = '$$.d' }\nk = { type = 'utf8', path = '$key' }\nv = { type = 'float64', path = '$' }";
    let rows = |body| rows(columns, "rows = '$.m.*'\nmax_rows = 3", body).map_err(|why| (why.at, why.why));
    assert_eq!(rows(r#"{"d":"x","m":{"a":1,"b" : 2.5,"c":null}}"#).as_deref(), Ok("x,a,1.0;x,b,2.5;x,c,"));
    assert_eq!(rows(r#"{"m":{"\u0061\"":1},"d":"x"}"#).as_deref(), Ok("x,a\",1.0"));
    assert_eq!(rows(r#"{"m":{ },"d":"x"}"#).as_deref(), Ok(""));
    let wrong = [
        (r#"{"m":[1]}"#, Some(5), "expected the map of `rows`, got an array"),
        (r#"{"d":"x"}"#, Some(0), "the map of `rows` is missing"),
        (r#"{"m":{"a":1,"b":"x"}}"#, Some(16), "expected float64, got a string"),
        (r#"{"m":{"a":1,b:1}}"#, Some(12), "expected a key in quotes"),
        (r#"{"m":{"a" 1}}"#, Some(10), "expected `:`"),
        (r#"{"m":{"a":1,"b":2,"c":3,"d":4}}"#, Some(24), "more than max_rows = 3 rows"),
    ];
    for (body, at, why) in wrong {
        assert_eq!(rows(body), Err((at, why.to_owned())), "{body}");
    }
}

/// The key of a member is read as a text that stands for a value, and the value may be a document of its own.
#[test]
fn keys_are_values_of_any_type() {
    let columns = "at = { type = 'timestamp', unit = 's', path = '$key' }\na = 'int64'\nb = 'utf8'";
    let body = r#"{"1767600000":{"a":1,"b":"x"},"1767600001":{"a":2,"b":"y"},"1767600002":{"b":"z"},"1767600003":{"a":4,"b":"w"}}"#;
    let expected = "2026-01-05T08:00:00Z,1,x;2026-01-05T08:00:01Z,2,y;2026-01-05T08:00:02Z,,z;2026-01-05T08:00:03Z,4,w";
    assert_eq!(rows(columns, "rows = '$.*'", body).as_deref(), Ok(expected));
    assert_eq!(rows(columns, "rows = '$.*'", r#"{"soon":{"a":1}}"#).unwrap_err().at, Some(1));
}

#[test]
fn parallel_arrays_are_rows() {
    let columns = "d = 'utf8'\nt = { type = 'int64', path = '$.t[*]' }\nv = { type = 'float64', path = '$.m.v[*]' }";
    let rows = |body| rows(columns, "max_rows = 3", body).map_err(|why| (why.at, why.why));
    assert_eq!(rows(r#"{"d":"x","t":[1, 2],"m":{"v":[1.5,null]}}"#).as_deref(), Ok("x,1,1.5;x,2,"));
    assert_eq!(rows(r#"{"t":[1,2,3],"m":{"v":null},"d":null}"#).as_deref(), Ok(",1,;,2,;,3,"));
    assert_eq!(rows(r#"{"m":{},"t":[7]}"#).as_deref(), Ok(",7,"));
    assert_eq!(rows(r#"{"t":[],"m":{"v":[]}}"#).as_deref(), Ok(""));
    let wrong = [
        (r#"{"t":[1,2],"m":{"v":[1]}}"#, Some(20), "an array of 1 values beside one of 2"),
        (r#"{"t":[],"m":{"v":[1]}}"#, Some(17), "an array of 1 values beside one of 0"),
        (r#"{"t":[1],"t":[1]}"#, Some(9), "the key of a declared column stands there twice"),
        (r#"{"t":[1,"2"]}"#, Some(8), "expected int64, got a string"),
        (r#"{"t":1}"#, Some(5), "expected an array of values, got a number"),
        (r#"{"d":"x"}"#, Some(0), "none of the arrays of values (`[*]`) is there"),
        (r#"{"t":[1,2,3,4]}"#, Some(12), "more than max_rows = 3 rows"),
    ];
    for (body, at, why) in wrong {
        assert_eq!(rows(body), Err((at, why.to_owned())), "{body}");
    }
    let required = "t = { type = 'int64', path = '$.t[*]' }\nv = { type = 'int64', path = '$.v[*]', required = true }";
    assert!(super::rows(required, "", r#"{"t":[1]}"#).is_err());
    assert!(super::rows(required, "", r#"{"t":[1],"v":[null]}"#).is_err());
}

#[test]
fn paths_that_do_not_go_together_are_faults() {
    let faults = |columns: &str, settings: &str| {
        let columns = columns::read(Some(Settings::of(columns).0), &Topics::parse(["t"]).unwrap(), None, None).unwrap();
        let (mut table, _) = Settings::of(settings);
        let faults = Json::read(&mut table, RowsAt::Declared).unwrap().check(&columns);
        faults.iter().map(|fault| fault.what.clone()).collect::<Vec<_>>().join("; ")
    };
    let cases = [
        ("k = { type = 'utf8', path = '$key' }", "", "column `k`: only the members of a map have a key"),
        ("k = { type = 'utf8', path = '$key' }", "rows = '$.a[*]'", "column `k`: only the members of a map"),
        ("k = { type = 'utf8', path = '$.k[*]' }", "rows = '$.a[*]'", "column `k`: parallel arrays"),
        ("a = 'utf8'\nb = { type = 'utf8', path = '$.a[*]' }", "", "column `a`: another path leads through its value"),
        (
            "a = { type = 'utf8', path = '$.a[0]' }\nb = { type = 'utf8', path = '$.a[*]' }",
            "",
            "column `b`: another path",
        ),
        ("a = { type = 'utf8', path = '$$.m' }", "rows = '$.m.*'", "column `a`: another path leads through its value"),
        ("a = { type = 'utf8', path = '$$.m.x' }", "rows = '$.m.*'", "a path of `$$` leads into the rows"),
    ];
    for (columns, settings, expected) in cases {
        let found = faults(columns, settings);
        assert!(found.starts_with(expected), "{columns} {settings}: {found}");
    }
}

/// What a decoder lets pass of bodies one after the other: extra fields and mismatched values, or the reason of none.
fn tolerated(columns: &str, settings: &str, bodies: &[&str]) -> Vec<Result<(u64, u64), String>> {
    let mut decoder = decoder(columns, settings);
    let mut one = |body: &&str| {
        let pushed = push(&mut *decoder, body.as_bytes());
        let tolerated = decoder.tolerated().unwrap_or_default();
        if pushed.is_err() {
            assert!(tolerated.is_nothing(), "{body}");
        }
        pushed.map(|_| (tolerated.extra_fields, tolerated.mismatched_values)).map_err(|malformed| malformed.why)
    };
    bodies.iter().map(&mut one).collect()
}

#[test]
fn extra_fields_are_ignored_counted_or_refused() {
    let columns = "a = 'int64'\nt = { type = 'int64', path = '$.e.t' }";
    // Often enough that all shapes would be known.
    let bodies = [
        r#"{"a":1,"e":{"t":1}}"#,
        r#"{"a":1,"e":{"t":1},"x":0}"#,
        r#"{"y":{"z":1},"a":1,"e":{"t":1,"u":2}}"#,
        r#"{"y":1,"a":"1"}"#,
    ];
    let bodies = [bodies; 20].concat();
    let expected = |count: [Result<(u64, u64), String>; 4]| vec![count; 20].concat();
    let wrong = || Err("expected int64, got a string".to_owned());
    assert_eq!(tolerated(columns, "", &bodies), expected([Ok((0, 0)), Ok((0, 0)), Ok((0, 0)), wrong()]));
    assert_eq!(tolerated(columns, "extra = 'count'", &bodies), expected([Ok((0, 0)), Ok((1, 0)), Ok((2, 0)), wrong()]));
    let refused = || Err("no column is declared for this field (`extra = \"dead_letter\"`)".to_owned());
    let expected = expected([Ok((0, 0)), refused(), refused(), refused()]);
    assert_eq!(tolerated(columns, "extra = 'dead_letter'", &bodies), expected);
}

#[test]
fn extra_fields_of_rows_are_counted() {
    let columns = "d = { type = 'utf8', path = '$$.d' }\na = 'int64'";
    let bodies = [r#"{"d":"x","r":[{"a":1},{"a":2,"b":3}],"c":[{"q":1}]}"#, r#"{"d":"x","r":[{"a":1},{"a":2}]}"#];
    let counted = tolerated(columns, "rows = '$.r[*]'\nextra = 'count'", &[bodies; 9].concat());
    assert_eq!(counted, vec![[Ok((2, 0)), Ok((0, 0))]; 9].concat());
    let metrics = "v = { type = 'float64', path = '$' }";
    assert_eq!(tolerated(metrics, "rows = '$.*'\nextra = 'count'", &[r#"{"a":1,"b":2}"#]), [Ok((0, 0))]);
}

#[test]
fn values_that_do_not_fit_are_null_where_declared() {
    let columns = "k = { type = 'utf8', path = '$key' }\n\
                   n = { type = 'float64', path = '$', mismatch = 'null' }\n\
                   t = { type = 'utf8', path = '$', mismatch = 'null' }";
    let body = r#"{"a":1.5,"b":"ON","c":{"d":[1]},"e":true,"f":null,"g":[]}"#;
    let expected = "a,1.5,;b,,ON;c,,;e,,;f,,;g,,";
    assert_eq!(rows(columns, "rows = '$.*'", body).as_deref(), Ok(expected));
    assert_eq!(
        tolerated(columns, "rows = '$.*'", &[body, r#"{"a":}"#, body]),
        [Ok((0, 8)), Err("expected float64, got what is no JSON".to_owned()), Ok((0, 8))]
    );
    let cases = [
        ("v = { type = 'int8', mismatch = 'null' }", r#"{"v":300}"#, 1),
        ("v = { type = 'int8', mismatch = 'null' }", r#"{"v":-1}"#, 0),
        ("v = { type = 'boolean', values = { ON = true }, mismatch = 'null' }", r#"{"v":"?"}"#, 1),
        ("v = { type = 'boolean', values = { ON = true }, mismatch = 'dead_letter' }", r#"{"v":"ON"}"#, 0),
        ("v = { type = 'timestamp', mismatch = 'null' }", r#"{"v":"soon"}"#, 1),
    ];
    for (columns, body, mismatched) in cases {
        assert_eq!(tolerated(columns, "", &[body; 3]), vec![Ok((0, mismatched)); 3], "{columns}");
    }
    let (table, faults) = Settings::of("v = { type = 'int8', mismatch = 'null', required = true }");
    assert!(columns::read(Some(table), &Topics::parse(["t"]).unwrap(), None, None).is_err());
    assert!(RefCell::borrow(&faults)[0].what.contains("required"));
}

#[test]
fn what_is_no_finite_number_is_null_or_a_dead_letter() {
    let columns = "temp = 'float64'\nhum = 'float64'";
    let rows = |settings: &str, body: &str| crate::format::testing::rows(parse, settings, columns, body.as_bytes());
    for word in ["nan", "NaN", "-Infinity", "Infinity", "inf", "-nan", "+Inf"] {
        let body = format!("{{\"temp\":{word},\"hum\":41.5}}");
        assert_eq!(rows("non_finite = 'null'", &body).as_deref(), Ok("-,41.5"), "{word}");
        // Also where no column wants it.
        let body = format!("{{\"x\":[{word}, {word}],\"hum\":41.5}}");
        assert_eq!(rows("non_finite = 'null'", &body).as_deref(), Ok("-,41.5"), "{word}");
        let wrong = rows("", &body).unwrap_err();
        assert!(wrong.at == Some(6) && wrong.why.contains("non_finite"), "{word}: {wrong:?}");
    }
    for word in ["na", "nanx", "Infin", "--inf", "nil", "1nan", "+1"] {
        let body = format!("{{\"temp\":{word},\"hum\":41.5}}");
        assert!(rows("non_finite = 'null'", &body).is_err(), "{word}");
    }
    let required = "temp = { type = 'float64', required = true }";
    let wrong = crate::format::testing::rows(parse, "non_finite = 'null'", required, b"{\"temp\":nan}").unwrap_err();
    assert!(wrong.why.contains("missing"), "{wrong:?}");
}
