//! Payloads that are changed at random, through every format: none may panic, and each is read whole or not at all, between
//! two good ones. `STREAMGAUGE_MUTATIONS=1000000` makes it longer.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::testing::{ARRIVAL, Parse, decoder, text};
use crate::flow::payload::{Delivery, Payload};
use crate::format::{Decoder, FORMATS};

/// How many payloads a seed becomes, where the environment says nothing else.
const MUTATIONS: u64 = 2_000;

/// A format with settings and columns, and payloads that it reads.
struct Case {
    format: &'static str,
    settings: String,
    columns: &'static str,
    topic: &'static str,
    seeds: Vec<Vec<u8>>,
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|sign| sign.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn cases(folder: &std::path::Path) -> Vec<Case> {
    std::fs::write(
        folder.join("p.proto"),
        "syntax = \"proto3\"; message P { string n = 1; double v = 2; repeated P more = 3; map<string, int64> m = 4; }",
    )
    .unwrap();
    let schema = r#"{"type": "record", "name": "E", "fields": [{"name": "n", "type": "string"},
        {"name": "v", "type": ["null", "double"]}, {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "l", "type": {"type": "array", "items": "int"}}]}"#;
    std::fs::write(folder.join("e.avsc"), schema).unwrap();
    let folder = folder.display();
    let case = |format, settings: &str, columns, seeds: &[&[u8]]| Case {
        format,
        settings: settings.to_owned(),
        columns,
        topic: "t",
        seeds: seeds.iter().map(|seed| seed.to_vec()).collect(),
    };
    let json = br#"{"id": "m\u00e9\n", "at": 1709208000.125, "v": [{"t": 20.5, "n": null}, {"t": -1e-3, "n": "x"}], "o": {"a": [1, true]}}"#;
    let rows = "id = { type = 'utf8', path = '$$.id' }\nat = { type = 'timestamp', unit = 's', path = '$$.at' }\n\
                t = 'float64'\nn = 'utf8'";
    let any = "n = 'utf8'\nv = { type = 'float64', mismatch = 'null' }\nt = { type = 'timestamp', unit = 'rfc3339' }";
    let at = "at = { type = 'timestamp', unit = 'ms', path = '$.timestamp' }\nname = 'utf8'\nnumber = 'float64'\nstring = 'utf8'";
    let birth = hex(
        "0880acf1a5df31 1213 0a0274 38 1880acf1a5df31 2001 5080ffffff0f 1214 0a03 743136 1880acf1a5df31 2002 50feffffff0f 1800",
    );
    vec![
        case("json", "rows = '$.v[*]'\nextra = 'count'", rows, &[json]),
        case(
            "json",
            "non_finite = 'null'",
            "v = 'float64'\nb = 'boolean'\nd = 'decimal(9,3)'",
            &[b"{\"v\":NaN,\"b\":true,\"d\":-12.125}"],
        ),
        case(
            "json",
            "",
            "a = { type = 'int64', path = '$.a[*]' }\nb = { type = 'utf8', path = '$.b[*]' }",
            &[b"{\"a\":[1,2],\"b\":[\"x\",null]}"],
        ),
        case(
            "json",
            "rows = '$.*'",
            "k = { type = 'utf8', path = '$key' }\nv = { type = 'float64', path = '$' }",
            &[b"{\"a\":1,\"b\":2.5}"],
        ),
        case(
            "scalar",
            "compression = 'auto'",
            "v = 'float64'",
            &[b"21.5", &zstd::encode_all(&b"-21.5"[..], 1).unwrap()],
        ),
        case(
            "csv",
            "header = true\nextra = 'count'\ncomment = '#'",
            "ts = { type = 'timestamp', unit = 's' }\nv = 'float64'\nn = 'utf8'",
            &[b"n,ts,v,x\r\n\"a,\"\"b\",1,2.5,\r\n#c\nb,,3,4"],
        ),
        case("csv", "delimiter = ';'\ndecimal = ','\nragged = true", "v = 'float64'\nn = 'int8'", &[b"1,5;7\n;\n2"]),
        case(
            "influx",
            "extra = 'count'",
            "time = { type = 'timestamp', unit = 'ns' }\nm = { type = 'utf8', path = '$.measurement' }\nv = 'float64'\ns = 'utf8'",
            &[b"a\\ b,s=x\\,y v=1.5e3,i=3i,u=4u,t=T,q=\"a\\\"b\\\\\" 1709208000000000000\n# c\nm v=.5"],
        ),
        case(
            "msgpack",
            "rows = '$[*]'",
            any,
            &[&hex("92 83 a16e a161 a176 cb3fb999999999999a a174 d7ff 1dcd6500 65e06ee0 81 a176 d1 8000")],
        ),
        case(
            "cbor",
            "rows = '$[*]'",
            any,
            &[&hex(
                "82 a3 616e 7f 6161 6162 ff 6176 c48221196ab3 6174 c074323031332d30332d32315432303a30343a30305a bf 6176 f93e00 ff",
            )],
        ),
        case(
            "senml",
            "",
            "t = { type = 'timestamp', unit = 's' }\nn = 'utf8'\nv = 'float64'\nvs = 'utf8'",
            &[
                br#"[{"bn":"d:","bt":1320067464,"bv":2,"n":"a","v":1},{"n":"b","t":-5,"vs":"x"}]"#,
                &hex("81 a3 21 6164 00 6161 02 fb405e066666666666"),
            ],
        ),
        case(
            "protobuf",
            &format!("schema = '{folder}/p.proto'\nmessage = 'P'"),
            "n = 'utf8'\nv = 'float64'",
            &[&hex("0a0161 11000000000000f83f 1a03 0a0162 2205 0a0178 1001")],
        ),
        case(
            "avro",
            &format!("schema = '{folder}/e.avsc'"),
            "n = 'utf8'\nv = 'float64'\nd = 'decimal(9,2)'",
            &[&hex("026102 000000000000f83f faed88cbbe63 0283 04010200")],
        ),
        case(
            "bytes",
            "rows = { at = 2, size = 3 }\nfields = [{ name = 'i', at = 0, type = 'uint16' }, { name = 'v', at = 0, type = 'int24', row = true }]",
            "i = 'int64'\nv = { type = 'float64', scale = 0.1 }",
            &[&hex("0001 000002 ffffff")],
        ),
        Case { topic: "spBv1.0/g/NBIRTH/e", ..case("sparkplug_b", "", at, &[&birth]) },
    ]
}

/// Numbers that look random, and are the same each time (xorshift64*).
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % most.max(1)
    }

    /// A few bytes changed, taken out, doubled, cut off or put in; those that formats know more often than others.
    fn change(&mut self, bytes: &mut Vec<u8>) {
        const KNOWN: &[u8] = b"\"'{}[]:,;\\ \n\r\t0179-+.eEinuNt#=/\x00\x7f\x80\x81\x9f\xa0\xc1\xc7\xdd\xff";
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len() + 1);
            let byte = if self.below(2) == 0 { KNOWN[self.below(KNOWN.len())] } else { self.below(256) as u8 };
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, byte),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                3 => {
                    let end = (at + self.below(12)).min(bytes.len());
                    let piece = bytes[at.min(end)..end].to_vec();
                    let into = self.below(bytes.len() + 1);
                    bytes.splice(into..into, piece);
                }
                _ if at < bytes.len() => bytes[at] = byte,
                _ => bytes.push(byte),
            }
        }
    }
}

fn push(decoder: &mut dyn Decoder, topic: &str, body: &[u8]) -> Result<usize, String> {
    let (topic, delivery) = (topic.as_bytes(), Delivery::default());
    decoder.push(&Payload { topic, body, arrival: ARRIVAL, delivery, properties: &[] }).map_err(|wrong| wrong.why)
}

fn mutated(case: &Case, parse: Parse, mutations: u64) -> (u64, u64) {
    let mut decoder = decoder(parse, &case.settings, case.columns);
    let (mut read, mut refused) = (0, 0);
    for seed in &case.seeds {
        let good = push(&mut *decoder, case.topic, seed).unwrap_or_else(|why| panic!("{}: {why}", case.format));
        let expected = text(&decoder.flush());
        for number in 0..mutations {
            let mut body = seed.clone();
            Chance(number * 7919 + 1).change(&mut body);
            let said = format!("{} {:?}", case.format, body.escape_ascii().to_string());
            let between = catch_unwind(AssertUnwindSafe(|| push(&mut *decoder, case.topic, &body)));
            let between = between.unwrap_or_else(|_| panic!("{said}"));
            match &between {
                Ok(_) => read += 1,
                Err(why) => {
                    refused += 1;
                    assert!(!why.is_empty(), "{said}");
                }
            }
            assert_eq!(push(&mut *decoder, case.topic, seed), Ok(good), "{said}");
            let batch = decoder.flush();
            let more = between.unwrap_or(0);
            assert_eq!(batch.num_rows(), more + good, "{said}");
            assert_eq!(text(&batch.slice(more, good)), expected, "{said}");
        }
    }
    (read, refused)
}

#[test]
fn what_was_changed_costs_itself_alone() {
    let mutations = std::env::var("STREAMGAUGE_MUTATIONS").map_or(MUTATIONS, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let cases = cases(folder.path());
    for kind in FORMATS {
        let own: Vec<&Case> = cases.iter().filter(|case| case.format == kind.name).collect();
        assert!(!own.is_empty(), "no case of {}", kind.name);
        let counts = own.iter().map(|case| mutated(case, kind.parse, mutations));
        let (read, refused) = counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        println!("{}: {read} read, {refused} refused", kind.name);
        assert!(read > 0 && refused > 0, "{}: {read} read, {refused} refused", kind.name);
    }
}
