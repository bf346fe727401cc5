//! Payloads that are changed at random, through every format: none may panic, and each is read whole or not at all, between
//! two good ones. The pipeline files and the payloads are those of the fuzz targets (`tests/fuzz`).
//! `STREAMGAUGE_MUTATIONS=1000000` makes it longer.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use streamgauge::flow::payload::{Delivery, Payload};
use streamgauge::flow::time::Timestamp;
use streamgauge::format::{Decoder, FORMATS};
use streamgauge::pipeline::load_text;
use streamgauge::pipeline::plan::Plan;

/// How many payloads a seed becomes, where the environment says nothing else.
const MUTATIONS: u64 = 2_000;

fn fuzz(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(path)
}

/// The files of a folder, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn plan(text: &str) -> Plan {
    let variable = |name: &str| (name == "SCHEMAS").then(|| fuzz("schemas").to_str().unwrap().to_owned());
    load_text("case", text, &variable).unwrap_or_else(|faults| panic!("{}", faults.render(false)))
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

/// One of the cases, with its topic.
struct Case {
    decoder: Box<dyn Decoder>,
    topic: String,
}

impl Case {
    fn push(&mut self, body: &[u8]) -> Result<usize, String> {
        let (topic, delivery) = (self.topic.as_bytes(), Delivery::default());
        let payload = Payload { topic, body, arrival: Timestamp::from_micros(5), delivery, properties: &[] };
        self.decoder.push(&payload).map_err(|wrong| wrong.why)
    }

    /// How many mutations of a payload were read, and how many refused.
    fn mutated(&mut self, seed: &[u8], mutations: u64) -> [u64; 2] {
        let mut counts = [0, 0];
        let good = self.push(seed).unwrap();
        let expected = self.decoder.flush();
        for number in 0..mutations {
            let mut body = seed.to_vec();
            Chance(number * 7919 + 1).change(&mut body);
            let said = body.escape_ascii().to_string();
            let between = catch_unwind(AssertUnwindSafe(|| self.push(&body))).unwrap_or_else(|_| panic!("{said}"));
            counts[usize::from(between.is_err())] += 1;
            assert!(between.as_ref().err().is_none_or(|why| !why.is_empty()), "{said}");
            assert_eq!(self.push(seed), Ok(good), "{said}");
            let (batch, more) = (self.decoder.flush(), between.unwrap_or(0));
            assert_eq!(batch.num_rows(), more + good, "{said}");
            assert_eq!(batch.slice(more, good), expected, "{said}");
        }
        counts
    }
}

#[test]
fn what_was_changed_costs_itself_alone() {
    let mutations = std::env::var("STREAMGAUGE_MUTATIONS").map_or(MUTATIONS, |text| text.parse().unwrap());
    let mut formats = BTreeSet::new();
    for file in files(&fuzz("cases")) {
        let (name, text) = (file.file_stem().unwrap().to_str().unwrap(), fs::read_to_string(&file).unwrap());
        formats.extend(
            FORMATS.iter().filter(|kind| text.contains(&format!("format = \"{}\"", kind.name))).map(|kind| kind.name),
        );
        let plan = plan(&text);
        let source = &plan.sources[0];
        let topic = source.spec.topics().filters().next().unwrap().to_owned();
        let mut case = Case { decoder: source.decoder.build(&source.columns), topic };
        let seeds = files(&fuzz("seeds").join(name));
        let counts = seeds.iter().map(|seed| case.mutated(&fs::read(seed).unwrap(), mutations));
        let [read, refused] = counts.reduce(|sum, count| [sum[0] + count[0], sum[1] + count[1]]).expect(name);
        println!("{name}: {read} read, {refused} refused");
        assert!(read > 0 && refused > 0, "{name}: {read} read, {refused} refused");
    }
    assert_eq!(formats.len(), FORMATS.len(), "{formats:?}");
}
