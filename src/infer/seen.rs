//! What was seen at one place of the payloads of a source: types, ranges, words, and whether it could be a time.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use crate::flow::time::Timestamp;
use crate::format::number;
use crate::infer::times::Times;

/// How many different words are kept as they are.
const WORDS_MAX: usize = 32;
/// How many different words are told apart.
const DISTINCT_MAX: usize = 4_096;
/// The longest word that is kept as it is.
const WORD_BYTES_MAX: usize = 40;

/// Numbers that sensors send in the place of none: DS18B20 (-127, 85 at power-on is a real value too often), and the
/// ends of 16- and 32-bit registers.
const SENTINELS: [f64; 8] = [-127.0, -999.0, -9999.0, -9999.9, 32767.0, -32768.0, 65535.0, 2_147_483_647.0];

/// Words that devices send in the place of no value.
const NULL_WORDS: [&str; 12] =
    ["", "-", "--", "n/a", "na", "nan", "none", "null", "unavailable", "unknown", "error", "nodata"];

/// Pairs of words for true and false.
const TRUTHS: [(&str, &str); 7] = [
    ("on", "off"),
    ("true", "false"),
    ("yes", "no"),
    ("open", "closed"),
    ("online", "offline"),
    ("enabled", "disabled"),
    ("active", "inactive"),
];

/// A single value of a payload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Leaf<'v> {
    /// Explicitly none.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Whole(i128),
    /// A number with point or exponent, or one beyond 128 bits.
    Fraction(f64),
    /// Text.
    Text(&'v str),
}

/// What was seen at one place.
#[derive(Debug, Default)]
pub struct Seen {
    /// How often there was a null.
    pub nulls: u64,
    /// A truth value.
    pub bools: u64,
    /// A whole number.
    pub wholes: u64,
    /// Another number.
    pub fractions: u64,
    /// A text.
    pub texts: u64,
    /// Of those, texts that are numbers.
    pub digits: u64,
    /// Of those, ones that begin with a nought or a plus, as serial numbers do and numbers do not.
    pub padded: u64,
    /// The least and the greatest number, also of those in texts.
    pub range: Option<(f64, f64)>,
    /// The least and the greatest whole number.
    pub whole_range: Option<(i128, i128)>,
    /// Different texts, each with how often, as long as they are few.
    pub words: BTreeMap<String, u64>,
    /// What stands for no value in many feeds, and how often it came.
    pub sentinels: Vec<(f64, u64)>,
    /// Whether it could be a time.
    pub times: Times,
    distinct: HashSet<u64>,
}

/// A word in small letters as another word is written: `OFF`, `Off` or `off`.
fn written_like(word: &str, like: &str) -> String {
    let (first, rest) = word.split_at(1);
    match like.split_at_checked(1) {
        Some((_, rest)) if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_uppercase()) => {
            word.to_ascii_uppercase()
        }
        Some((begin, _)) if begin.bytes().all(|byte| byte.is_ascii_uppercase()) => first.to_ascii_uppercase() + rest,
        _ => word.to_owned(),
    }
}

impl Seen {
    /// Notes a value of a payload that arrived then.
    pub fn add(&mut self, leaf: Leaf<'_>, arrival: Timestamp) {
        match leaf {
            Leaf::Null => self.nulls += 1,
            Leaf::Bool(_) => self.bools += 1,
            Leaf::Whole(whole) => {
                self.wholes += 1;
                let (least, greatest) = self.whole_range.unwrap_or((whole, whole));
                self.whole_range = Some((least.min(whole), greatest.max(whole)));
                #[expect(clippy::cast_precision_loss, reason = "for ranges and units of time")]
                let number = whole as f64;
                self.number(number, arrival);
                self.distinct(whole.to_string().as_bytes());
            }
            Leaf::Fraction(number) => {
                self.fractions += 1;
                self.number(number, arrival);
            }
            Leaf::Text(text) => self.text(text, arrival),
        }
    }

    fn number(&mut self, number: f64, arrival: Timestamp) {
        let (least, greatest) = self.range.unwrap_or((number, number));
        self.range = Some((least.min(number), greatest.max(number)));
        self.times.number(number, arrival);
        #[expect(clippy::float_cmp, reason = "a sentinel is that very number")]
        if let Some(sentinel) = SENTINELS.iter().find(|sentinel| **sentinel == number) {
            match self.sentinels.iter_mut().find(|(known, _)| known.to_bits() == sentinel.to_bits()) {
                Some((_, count)) => *count += 1,
                None => self.sentinels.push((*sentinel, 1)),
            }
        }
    }

    fn text(&mut self, text: &str, arrival: Timestamp) {
        self.texts += 1;
        if number::is_number(text.as_bytes())
            && let Some(number) = number::float64(text.as_bytes())
        {
            self.digits += 1;
            let digits = text.strip_prefix('-').unwrap_or(text);
            self.padded += u64::from(digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0."));
            self.number(number, arrival);
        } else {
            self.padded += u64::from(!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
            self.times.text(text, arrival);
        }
        self.distinct(text.as_bytes());
        if let Some(count) = self.words.get_mut(text) {
            *count += 1;
        } else if self.words.len() <= WORDS_MAX {
            // One more than is kept says that there are more.
            let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at < WORD_BYTES_MAX).last().unwrap_or(0);
            let kept = if text.len() <= WORD_BYTES_MAX { text.to_owned() } else { format!("{}…", &text[..end]) };
            *self.words.entry(kept).or_default() += 1;
        }
    }

    fn distinct(&mut self, text: &[u8]) {
        static HASHING: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        if self.distinct.len() < DISTINCT_MAX {
            self.distinct.insert(HASHING.hash_one(text));
        }
    }

    /// Values that are not null.
    pub fn values(&self) -> u64 {
        self.bools + self.numbers() + self.texts
    }

    /// Numbers that are written as such.
    pub fn numbers(&self) -> u64 {
        self.wholes + self.fractions
    }

    /// How many different texts and whole numbers, and whether there may be more.
    pub fn variety(&self) -> (usize, bool) {
        (self.distinct.len(), self.distinct.len() >= DISTINCT_MAX)
    }

    /// All texts, where they are few enough to be a set of words.
    pub fn vocabulary(&self) -> Option<&BTreeMap<String, u64>> {
        (self.words.len() <= WORDS_MAX).then_some(&self.words)
    }

    /// The words for true and false, where all texts are of one such pair; one that has not come yet is written like the
    /// other.
    pub fn truth_words(&self) -> Option<Vec<(String, bool)>> {
        let words = self.vocabulary().filter(|words| !words.is_empty())?;
        TRUTHS.iter().find_map(|(yes, no)| {
            let mean = |word: &str| match word.to_ascii_lowercase() {
                lower if lower == *yes => Some(true),
                lower if lower == *no => Some(false),
                _ => None,
            };
            let mut found = words.keys().map(|word| Some((word.clone(), mean(word)?))).collect::<Option<Vec<_>>>()?;
            for (word, truth) in [(yes, true), (no, false)] {
                if let Some((like, _)) = found.first().filter(|_| !found.iter().any(|(_, known)| *known == truth)) {
                    found.push((written_like(word, like), truth));
                }
            }
            Some(found)
        })
    }

    /// Texts that are no numbers, where each of them stands for no value.
    pub fn null_words(&self) -> Option<Vec<&str>> {
        let words = self.vocabulary()?.keys().filter(|word| !number::is_number(word.as_bytes()));
        words.map(|word| NULL_WORDS.contains(&word.to_ascii_lowercase().as_str()).then_some(word.as_str())).collect()
    }
}
