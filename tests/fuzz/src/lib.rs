//! What the fuzz targets have in common: each is one function of bytes, which may not panic.
//!
//! ```sh
//! cargo +nightly fuzz run --fuzz-dir tests/fuzz csv tests/fuzz/corpus/csv tests/fuzz/seeds/csv -- -max_total_time=1800
//! ```

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::OnceLock;

use streamgauge::flow::payload::{Delivery, Payload, Payloads};
use streamgauge::flow::time::Timestamp;
use streamgauge::flow::topic::Topics;
use streamgauge::format::Decoder;
use streamgauge::ingest::recording::Recording;
use streamgauge::pipeline::load_text;

/// A decoder, as a pipeline file has it.
pub struct Case {
    settings: &'static str,
    columns: &'static str,
    topic: &'static str,
}

pub static JSON: Case = Case {
    settings: r##"format = "json"
rows = "$.v[*]"
extra = "count""##,
    columns: r##"id = { type = "utf8", path = "$$.id" }
at = { type = "timestamp", unit = "s", path = "$$.at" }
t = "float64"
n = "utf8"
d = { type = "decimal(9,3)", path = "$.o.d" }"##,
    topic: "t",
};
pub static JSON_DOCUMENTS: Case = Case {
    settings: r##"format = "json"
non_finite = "null""##,
    columns: r##"v = "float64"
b = "boolean"
i = "int64"
u = { type = "uint64", path = "$.a[1]" }
t = { type = "timestamp", unit = "rfc3339" }
s = { type = "utf8", text = true }"##,
    topic: "t",
};
pub static JSON_UNPIVOT: Case = Case {
    settings: r##"format = "json"
rows = "$.*""##,
    columns: r##"k = { type = "utf8", path = "$key" }
v = { type = "float64", path = "$", mismatch = "null" }"##,
    topic: "t",
};
pub static JSON_PARALLEL: Case = Case {
    settings: r##"format = "json""##,
    columns: r##"a = { type = "int64", path = "$.a[*]" }
b = { type = "utf8", path = "$.b[*]" }
c = { type = "float64", path = "$.c" }"##,
    topic: "t",
};
pub static SCALAR: Case = Case {
    settings: r##"format = "scalar"
compression = "auto""##,
    columns: r##"v = "float64""##,
    topic: "t",
};
pub static CSV: Case = Case {
    settings: r##"format = "csv"
header = true
extra = "count"
comment = "#"
delimiter = ";"
decimal = ",""##,
    columns: r##"ts = { type = "timestamp", unit = "s" }
v = "float64"
n = "utf8""##,
    topic: "t",
};
pub static INFLUX: Case = Case {
    settings: r##"format = "influx"
extra = "count""##,
    columns: r##"time = { type = "timestamp", unit = "ns" }
m = { type = "utf8", path = "$.measurement" }
v = "float64"
s = "utf8"
b = "boolean""##,
    topic: "t",
};
pub static MSGPACK: Case = Case {
    settings: r##"format = "msgpack"
rows = "$[*]""##,
    columns: r##"n = "utf8"
v = { type = "float64", mismatch = "null" }
t = { type = "timestamp", unit = "rfc3339" }"##,
    topic: "t",
};
pub static CBOR: Case = Case {
    settings: r##"format = "cbor"
rows = "$[*]""##,
    columns: r##"n = "utf8"
v = { type = "float64", mismatch = "null" }
t = { type = "timestamp", unit = "rfc3339" }"##,
    topic: "t",
};
pub static SENML: Case = Case {
    settings: r##"format = "senml""##,
    columns: r##"t = { type = "timestamp", unit = "s" }
n = "utf8"
v = "float64"
vs = "utf8""##,
    topic: "t",
};
pub static PROTOBUF: Case = Case {
    settings: r##"format = "protobuf"
schema = "SCHEMAS/p.proto"
message = "P""##,
    columns: r##"n = "utf8"
v = "float64""##,
    topic: "t",
};
pub static AVRO: Case = Case {
    settings: r##"format = "avro"
schema = "SCHEMAS/e.avsc""##,
    columns: r##"n = "utf8"
v = "float64"
d = "decimal(9,2)""##,
    topic: "t",
};
pub static SPARKPLUG_B: Case = Case {
    settings: r##"format = "sparkplug_b"
rebirth = true"##,
    columns: r##"at = { type = "timestamp", unit = "ms", path = "$.timestamp" }
name = "utf8"
number = "float64"
string = "utf8""##,
    topic: "spBv1.0/g/NBIRTH/e",
};
pub static BYTES: Case = Case {
    settings: r##"format = "bytes"
rows = { at = 2, size = 3 }
fields = [{ name = "i", at = 0, type = "uint16" }, { name = "v", at = 0, type = "int24", row = true }]"##,
    columns: r##"i = "int64"
v = { type = "float64", scale = 0.1 }"##,
    topic: "t",
};
pub static INNER: Case = Case {
    settings: r##"format = "json"
inner = { path = "$.data", encoding = "base64", compression = "auto", format = "csv", fields = ["a", "b"] }"##,
    columns: r##"d = "utf8"
a = { type = "int64", path = "$inner.a" }
b = { type = "float64", path = "$inner.b" }"##,
    topic: "t",
};

/// A folder with the schemas that cases name.
fn schemas() -> &'static str {
    static FOLDER: OnceLock<String> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = scratch();
        let proto = "syntax = \"proto3\"; message P { string n = 1; double v = 2; repeated P more = 3; map<string, int64> m = 4; }";
        std::fs::write(folder.join("p.proto"), proto).unwrap();
        let schema = r#"{"type": "record", "name": "E", "fields": [{"name": "n", "type": "string"},
            {"name": "v", "type": ["null", "double"]},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
            {"name": "l", "type": {"type": "array", "items": "int"}}]}"#;
        std::fs::write(folder.join("e.avsc"), schema).unwrap();
        folder.to_str().unwrap().to_owned()
    })
}

/// A folder of this process.
fn scratch() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("streamgauge-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn decoder(case: &Case) -> Box<dyn Decoder> {
    let text = format!(
        "[pipeline]\nname = \"fuzz\"\n[sources.s]\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:1\"\ntopics = [\"#\"]\n\
         [sources.s.decode]\n{}\n[sources.s.columns]\n{}\n\
         [sinks.o]\ntype = \"parquet\"\ninputs = [\"s\"]\npath = \"out\"\n",
        case.settings.replace("SCHEMAS", schemas()),
        case.columns
    );
    let plan = load_text("fuzz", &text, &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
    plan.sources[0].decoder.build(&plan.sources[0].columns)
}

/// Rows of one payload, all or none.
pub fn decode(case: &Case, data: &[u8]) {
    thread_local!(static DECODER: RefCell<Option<Box<dyn Decoder>>> = const { RefCell::new(None) });
    DECODER.with_borrow_mut(|kept| {
        let decoder = kept.get_or_insert_with(|| decoder(case));
        let arrival = Timestamp::from_micros(1_709_208_000_000_000);
        let payload = Payload {
            topic: case.topic.as_bytes(),
            body: data,
            arrival,
            delivery: Delivery::default(),
            properties: &[],
        };
        let count = decoder.push(&payload).unwrap_or(0);
        decoder.tolerated();
        assert_eq!(decoder.flush().num_rows(), count);
    });
}

/// A pattern, and on the next line a topic.
pub fn topic_pattern(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (pattern, topic) = text.split_once('\n').unwrap_or((text, ""));
    if let Ok(topics) = Topics::parse([pattern]) {
        topics.matches(topic.as_bytes(), &mut Vec::new());
    }
}

/// A pipeline file: a plan, or faults with their places.
pub fn pipeline_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match load_text("fuzz.toml", text, &|_| None) {
        Ok(plan) => drop(plan.to_string()),
        Err(faults) => assert!(!faults.to_string().is_empty()),
    }
}

/// A recording.
pub fn recording(data: &[u8]) {
    let path = scratch().join("r.jsonl");
    std::fs::write(&path, data).unwrap();
    let Ok(mut reader) = Recording::open(&path) else { return };
    let mut payloads = Payloads::default();
    while let Ok(read) = reader.read(&mut payloads, 64, 1 << 20) {
        if read == 0 {
            return;
        }
        payloads.clear();
    }
}
