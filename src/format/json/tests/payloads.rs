//! Payloads by the million for the differential test: documents of a few shapes with values of every form, some of them
//! damaged. From a seed alone, and of no other code than `std`.

/// `SplitMix64` (Steele, Lea, Flood 2014): the same payloads every time.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    /// One of some.
    pub(super) fn of<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.below(some.len())]
    }

    /// True so many times of a hundred.
    pub(super) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// What the columns of the test want, each by a path of its own; several want `$.a`.
pub(super) const COLUMNS: &str = "
a = 'int64'
a_again = { type = 'float64', path = '$.a' }
b = 'float64'
small = 'uint8'
single = 'float32'
s = 'utf8'
name = { type = 'utf8', path = \"$['the name']\" }
t = { type = 'timestamp', unit = 'ms' }
nanos = { type = 'timestamp', unit = 'ns', path = '$.n' }
text_time = 'timestamp'
on = 'boolean'
price = { type = 'decimal(9,2)', path = '$.env.price' }
deep = { type = 'int16', path = '$.env.in.deep' }
item = { type = 'float64', path = '$.list[1]' }
";

/// Settings that the payloads run into now and then.
pub(super) const SETTINGS: &str = "max_bytes = '300B'\nmax_number_len = 22\nmax_depth = 6";

/// The keys of a document; those from `x` on are for nobody.
const KEYS: [&str; 14] = [
    "a",
    "b",
    "small",
    "single",
    "s",
    "the name",
    "t",
    "n",
    "text_time",
    "on",
    "env",
    "list",
    "x",
    "another key, longer than sixteen",
];

const INTEGERS: [&str; 16] = [
    "0",
    "-0",
    "7",
    "-1",
    "255",
    "256",
    "32767",
    "-32769",
    "99999999",
    "100000000",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "12345678901234567890123",
];
const NUMBERS: [&str; 22] = [
    "1e5",
    "1E+2",
    "-2.5e-3",
    "0.10",
    "1.0",
    "-0.0",
    "21.50",
    "1.25",
    "0.1",
    "3.14159265358979",
    "9007199254740993",
    "9007199254740993.5",
    "123456789012345678901.5",
    "1e400",
    "1e-400",
    "4.35",
    "12345678.87654321",
    "0.000001",
    "01",
    "1.",
    "-",
    ".5",
];
const STRINGS: [&str; 16] = [
    r#""""#,
    r#""d7""#,
    r#""dev-0001234""#,
    r#""sixteen bytes ok""#,
    r#""a text that is longer than sixteen bytes""#,
    r#""é😀""#,
    r#""a\nb""#,
    r#""\u0041\ud83d\ude00""#,
    r#""\ud800""#,
    r#""tab	in""#,
    r#""\x""#,
    r#""2026-01-31T12:00:00.25Z""#,
    r#""no end"#,
    r#""1700000000123""#,
    r#""quo\"te""#,
    r#""\\""#,
];
const TIMES: [&str; 10] = [
    "2026-01-31T12:00:00Z",
    "2026-01-31T12:00:00.123456789Z",
    "2026-02-29T12:00:00Z",
    "2024-02-29T23:59:59.5+23:59",
    "2026-01-31t12:00:00z",
    "2026-01-31 12:00:00+01:00",
    "1969-12-31T23:59:59.9999999Z",
    "2026-12-31T23:59:60Z",
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00-23:59",
];
const OTHERS: [&str; 14] = [
    "null",
    "true",
    "false",
    "nul",
    "True",
    "{}",
    "[]",
    "[1,2,[3]]",
    r#"{"k":{"l":[]}}"#,
    "[[[[[[[1]]]]]]]",
    "NaN",
    "",
    "-Infinity",
    r#"{"k":1,"k":2}"#,
];

/// A shape: which keys in which order, with which white space.
#[derive(Clone, Default)]
struct Shape {
    keys: Vec<usize>,
    spaces: Vec<&'static str>,
}

/// A stream of payloads.
pub(super) struct Payloads {
    /// Where chance comes from.
    pub(super) random: Random,
    shapes: Vec<Shape>,
    /// What is odd comes so many times more seldom than it could.
    calm: usize,
    /// A payload is an object with the key `rows`, an array of such documents.
    exploded: bool,
    last: Vec<u8>,
}

impl Payloads {
    /// From a seed. Every third stream is full of odd things, the others have long runs without any.
    pub(super) fn new(seed: u64, exploded: bool) -> Self {
        let calm = [1, 20, 400][(seed % 3) as usize];
        let mut payloads = Self { random: Random(seed), shapes: Vec::new(), calm, exploded, last: Vec::new() };
        payloads.shapes = (0..=payloads.random.below(6)).map(|_| payloads.shape()).collect();
        payloads
    }

    fn shape(&mut self) -> Shape {
        let random = &mut self.random;
        let mut keys: Vec<usize> = (0..KEYS.len()).filter(|_| random.percent(55)).collect();
        for at in (1..keys.len()).rev().filter(|_| random.percent(30)).collect::<Vec<_>>() {
            keys.swap(at, random.below(at));
        }
        if random.percent(5) && !keys.is_empty() {
            keys.push(random.of(&keys));
        }
        let tight = random.percent(60);
        let spaces = (0..9).map(|_| if tight { "" } else { random.of(&["", " ", "\n  ", "\t", "\r\n"]) }).collect();
        Shape { keys, spaces }
    }

    /// True so many times of a hundred, or more seldom.
    fn odd(&mut self, percent: usize) -> bool {
        self.random.below(100 * self.calm) < percent
    }

    /// The next payload.
    pub(super) fn body(&mut self) -> Vec<u8> {
        if self.odd(1) {
            // The devices have another firmware now.
            let (new, at) = (self.shape(), self.random.below(self.shapes.len()));
            self.shapes[at] = new;
        }
        let mut text = if self.exploded { self.many() } else { self.document() };
        if self.odd(2) {
            text += self.random.of(&["\n", " ", "x", "{}", ",", "\0"]);
        }
        let mut bytes = text.into_bytes();
        if self.odd(25) {
            self.damage(&mut bytes);
        }
        self.last.clone_from(&bytes);
        bytes
    }

    fn many(&mut self) -> String {
        let rows: Vec<String> = (0..self.random.below(5)).map(|_| self.document()).collect();
        let (device, space) = (self.value(4), self.random.of(&["", "", " "]));
        match self.random.below(12) {
            0 => format!("{{\"rows\":[{}],{space}\"d\":{device},\"u\":1}}", rows.join(",")),
            1 => format!("{{\"d\":{device},\"rows\":{}}}", self.random.of(&OTHERS)),
            _ => format!(
                "{{\"d\":{device},{space}\"rows\":[{}]}}",
                rows.join(if space.is_empty() { "," } else { " , " })
            ),
        }
    }

    fn document(&mut self) -> String {
        if self.odd(1) {
            return self.random.of(&OTHERS).to_owned();
        }
        let shape = if self.odd(50) { self.random.of(&[1, 2, 3]).min(self.shapes.len() - 1) } else { 0 };
        let Shape { mut keys, spaces } = self.shapes[shape].clone();
        match self.random.below(40 * self.calm) {
            0 => keys.push(self.random.below(KEYS.len())),
            1 if keys.len() > 1 => keys.rotate_left(1),
            2 => drop(keys.pop()),
            _ => (),
        }
        let mut text = spaces[0].to_owned() + "{" + spaces[1];
        for (at, key) in keys.into_iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let value = self.value(key);
            let colon = ["\":", "\": "][usize::from(!spaces[3].is_empty())];
            text += &[comma, spaces[2], "\"", KEYS[key], colon, &value, spaces[4]].concat();
        }
        text + spaces[5] + "}" + spaces[6]
    }

    /// A value for a key: nearly always one that fits.
    fn value(&mut self, key: usize) -> String {
        let (random, calm) = (&mut self.random, self.calm);
        match random.below(60 * calm) {
            0 => return random.of(&OTHERS).to_owned(),
            1 => return random.of(&NUMBERS).to_owned(),
            2 => return random.of(&INTEGERS).to_owned(),
            3 => return random.of(&STRINGS).to_owned(),
            4 => return "null".to_owned(),
            _ => (),
        }
        let sign = if random.percent(20) { "-" } else { "" };
        match KEYS[key] {
            "a" => {
                let digits = 1 + random.below(18) as u32;
                format!("{sign}{}", random.below(10usize.pow(digits)))
            }
            "b" | "x" => format!("{sign}{}.{:02}", random.below(100), random.below(100)),
            "small" => random.below(256).to_string(),
            "single" => format!("{sign}{}.{}", random.below(1000), random.below(1_000_000)),
            "s" => format!("\"dev-{:07}\"", random.below(10_000)),
            "the name" if calm > 1 => random.of(&STRINGS[..5]).to_owned(),
            "the name" => random.of(&STRINGS).to_owned(),
            "t" => (1_700_000_000_000 + random.below(100_000_000)).to_string(),
            "n" => format!("{sign}{}", random.below(1 << 60)),
            "text_time" if random.below(calm) == 0 && random.percent(20) => format!("\"{}\"", random.of(&TIMES)),
            "text_time" => format!("\"2026-01-31T12:00:{:02}.{:03}Z\"", random.below(60), random.below(1000)),
            "on" => random.of(&["true", "false"]).to_owned(),
            "env" if random.percent(3) => random.of(&["null", "{}", r#"{"in":null}"#, r#"{"in":{}}"#]).to_owned(),
            "env" => format!(
                "{{\"price\":{sign}{}.{},\"in\":{{\"deep\":{}}}}}",
                random.below(9_999),
                random.below(20),
                random.below(40_000)
            ),
            "list" => {
                let items = (0..random.of(&[2, 2, 2, 2, 0, 1, 3])).map(|_| random.of(&NUMBERS[..12]));
                format!("[{}]", items.collect::<Vec<_>>().join(","))
            }
            _ => random.of(&OTHERS[..10]).to_owned(),
        }
    }

    /// One thing wrong, or a few.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        let random = &mut self.random;
        for _ in 0..=random.below(10) / 9 {
            if bytes.is_empty() {
                return;
            }
            let (at, to) = (random.below(bytes.len()), random.below(bytes.len()));
            let (from, to) = (at.min(to), at.max(to));
            match random.below(9) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = random.of(b"\"\\{}[],: 0-.eE\x00\x1f\x80\xc3\xff9tn"),
                2 => bytes.truncate(at),
                3 => bytes.insert(at, random.of(b"\"\\{}[],: 0-.eE\x00\x1f\x80\xc3\xff9tn")),
                4 => drop(bytes.remove(at)),
                5 => drop(bytes.drain(from..to)),
                6 => bytes.extend_from_within(from..to),
                7 => bytes.swap(from, to),
                _ => {
                    let rest = self.last.get(at..).unwrap_or_default().to_vec();
                    bytes.splice(at.., rest);
                }
            }
        }
    }
}
