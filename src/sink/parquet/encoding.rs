//! How a column is encoded, decided from the first rows of its file.
//!
//! What takes the fewest bytes, by estimates: a dictionary, whose size in a whole row group is told from how values repeat
//! in the first rows, against deltas (whole numbers and times), against bytes apart (floats), and against lengths or shared
//! beginnings apart (text). All of it is whole arithmetic on values and their order, so that the same rows are encoded in
//! the same way on every machine.

use std::hash::Hash;

use ::parquet::basic::Encoding;
use arrow::array::{Array, AsArray, GenericByteArray, downcast_primitive_array};
use arrow::datatypes::{ArrowNativeType, BinaryType, ByteArrayType, DataType, Float32Type, Float64Type, Utf8Type};
use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// Rows that are looked at.
const SAMPLE_ROWS: usize = 4_096;
/// Of so many rows a row group is taken to be at most.
const ROWS_MAX: u64 = 1 << 32;
/// No dictionary is planned to be larger, and none becomes larger: what comes after it is encoded without.
const DICTIONARY_BYTES_MAX: u64 = 4 << 20;
/// A dictionary may become as large as this, though a smaller one was foreseen.
const DICTIONARY_BYTES_MIN: u64 = 1 << 20;
/// The same of whole numbers, which have something as good to fall back on.
const NUMBERS_DICTIONARY_BYTES_MIN: u64 = 64 << 10;
/// How many times as large as foreseen a dictionary may become.
const DICTIONARY_GROWTH: u64 = 4;
/// Equal neighbours from which on the indices of a dictionary are stored once.
const RUN_VALUES: u64 = 8;
/// What a compressor needs to say that a packed delta is repeated.
const REPEAT_BITS: u64 = 8;
/// Deltas of 64-bit numbers that share a smallest one, and those of them that share a width: what the encoder has.
const DELTA_BLOCK: usize = 256;
const DELTA_MINI_BLOCK: usize = 64;
/// Fewer rows than one of so many that seem to bring a new value are taken for chance.
const EVER_NEW_SHARE: u64 = 8;
/// What a value of text takes beside its bytes.
const LENGTH_BITS: u64 = 32;

/// How a column is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// How large a dictionary may become; `None` where there is none.
    pub(super) dictionary: Option<usize>,
    /// What is done without a dictionary, or once it is full.
    pub(super) otherwise: Encoding,
}

/// What is known of the rows that an encoding is chosen for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prospect {
    /// How many rows a row group will have.
    pub(super) rows: usize,
    /// Whether pages are compressed.
    pub(super) compressed: bool,
}

/// Chooses for a column by its first rows; `None` leaves it as every other type is.
pub(super) fn choose(column: &dyn Array, prospect: Prospect) -> Option<Choice> {
    let sample = column.slice(0, column.len().min(SAMPLE_ROWS));
    let values = sample.len() - sample.null_count();
    // As many of a row group's rows have a value as of the first.
    let rows = (prospect.rows as u64).clamp(sample.len() as u64, ROWS_MAX) * values as u64 / sample.len().max(1) as u64;
    match sample.data_type() {
        kind if kind.is_integer() || kind.is_temporal() => {
            Some(of_numbers(&numbers(&sample), width_bits(kind), rows, prospect.compressed))
        }
        _ if values == 0 => None,
        DataType::Float32 => {
            let values: Vec<u32> = sample.as_primitive::<Float32Type>().iter().flatten().map(f32::to_bits).collect();
            Some(of_floats(&values, 32, rows, prospect.compressed))
        }
        DataType::Float64 => {
            let values: Vec<u64> = sample.as_primitive::<Float64Type>().iter().flatten().map(f64::to_bits).collect();
            Some(of_floats(&values, 64, rows, prospect.compressed))
        }
        DataType::Utf8 => Some(of_texts(&texts::<Utf8Type>(sample.as_bytes()), rows, prospect.compressed)),
        DataType::Binary => Some(of_texts(&texts::<BinaryType>(sample.as_bytes()), rows, prospect.compressed)),
        _ => None,
    }
}

/// What a value takes in the file, as it is.
fn width_bits(kind: &DataType) -> u64 {
    match kind.primitive_width() {
        Some(8) => 64,
        _ => 32,
    }
}

fn numbers(column: &dyn Array) -> Vec<i64> {
    downcast_primitive_array!(
        // As they are cast by `as`: of the same sign, and none of these types is wider.
        column => column.iter().flatten().map(|value| value.as_usize() as i64).collect(),
        _ => Vec::new()
    )
}

fn texts<T: ByteArrayType>(column: &GenericByteArray<T>) -> Vec<&[u8]> {
    column.iter().flatten().map(AsRef::as_ref).collect()
}

fn of_numbers(values: &[i64], width_bits: u64, rows: u64, compressed: bool) -> Choice {
    let (deltas, plain) = (delta_bits(values, compressed), values.len() as u64 * width_bits);
    let otherwise = if deltas <= plain { Encoding::DELTA_BINARY_PACKED } else { Encoding::PLAIN };
    let dictionary = Dictionary::of(values, width_bits, rows);
    Choice { dictionary: dictionary.if_below(deltas.min(plain), NUMBERS_DICTIONARY_BYTES_MIN), otherwise }
}

fn of_floats<T: Hash + Eq + Copy>(values: &[T], width_bits: u64, rows: u64, compressed: bool) -> Choice {
    // The sign and the exponent, of which a compressor makes little once they are apart, are about an eighth.
    let (otherwise, bits) = match compressed {
        true => (Encoding::BYTE_STREAM_SPLIT, width_bits * 7 / 8),
        false => (Encoding::PLAIN, width_bits),
    };
    let dictionary = Dictionary::of(values, width_bits, rows);
    Choice { dictionary: dictionary.if_below(values.len() as u64 * bits, DICTIONARY_BYTES_MIN), otherwise }
}

fn of_texts(values: &[&[u8]], rows: u64, compressed: bool) -> Choice {
    let bytes: usize = values.iter().map(|value| value.len()).sum();
    // Most text is compressed to less than half, in a dictionary too.
    let halved = u64::from(compressed);
    let plain = (bytes as u64 * 8 + LENGTH_BITS * values.len() as u64) >> halved;
    let shared: usize = values.windows(2).map(|pair| shared(pair[0], pair[1])).sum();
    let otherwise = if 2 * shared > bytes { Encoding::DELTA_BYTE_ARRAY } else { Encoding::DELTA_LENGTH_BYTE_ARRAY };
    let value_bits = (plain << halved).checked_div(values.len() as u64).unwrap_or(LENGTH_BITS);
    let mut dictionary = Dictionary::of(values, value_bits, rows);
    dictionary.entry_bits >>= halved;
    Choice { dictionary: dictionary.if_below(plain, DICTIONARY_BYTES_MIN), otherwise }
}

/// How many bytes two values begin with in common.
fn shared(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

/// What numbers take as deltas.
fn delta_bits(values: &[i64], compressed: bool) -> u64 {
    let deltas: Vec<i64> = values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    let block_bits = |block: &[i64]| {
        let least = block.iter().copied().min().unwrap_or(0);
        let mini_block_bits = |values: &[i64]| {
            let most = values.iter().copied().max().unwrap_or(0);
            let width = u64::from(u64::BITS - (most.wrapping_sub(least) as u64).leading_zeros());
            if !compressed {
                return width * values.len() as u64;
            }
            let run_bits = |run: &[i64]| (width * run.len() as u64).min(width + REPEAT_BITS);
            values.chunk_by(PartialEq::eq).map(run_bits).sum()
        };
        8 * (1 + DELTA_BLOCK / DELTA_MINI_BLOCK) as u64
            + block.chunks(DELTA_MINI_BLOCK).map(mini_block_bits).sum::<u64>()
    };
    deltas.chunks(DELTA_BLOCK).map(block_bits).sum()
}

/// What values of a sample take by a dictionary of the whole row group.
#[derive(Clone, Copy, Debug)]
struct Dictionary {
    /// Its entries, in a whole row group.
    entries: u64,
    entry_bits: u64,
    /// The indices of the sample.
    index_bits: u64,
    /// Values of the sample.
    sample: u64,
    /// Values of a row group.
    rows: u64,
}

impl Dictionary {
    fn of<T: Hash + Eq + Copy>(values: &[T], entry_bits: u64, rows: u64) -> Self {
        let entries = distinct(values, rows);
        let width = u64::from(u64::BITS - entries.saturating_sub(1).leading_zeros());
        let run_bits = |len: u64| if len < RUN_VALUES { len * width } else { 16 + width.next_multiple_of(8) };
        let index_bits = values.chunk_by(PartialEq::eq).map(|run| run_bits(run.len() as u64)).sum();
        Self { entries, entry_bits, index_bits, sample: values.len() as u64, rows }
    }

    /// How large it may become, if it takes less than so many bits for the sample.
    fn if_below(&self, bits: u64, bytes_min: u64) -> Option<usize> {
        let whole = self.entries.saturating_mul(self.entry_bits);
        if whole > 8 * DICTIONARY_BYTES_MAX || self.index_bits + whole * self.sample / self.rows.max(1) >= bits {
            return None;
        }
        let bytes = (whole / 8 * DICTIONARY_GROWTH).clamp(bytes_min, DICTIONARY_BYTES_MAX);
        Some(usize::try_from(bytes).unwrap_or(usize::MAX))
    }
}

/// About how many distinct values there are among so many that begin with these.
fn distinct<T: Hash + Eq + Copy>(values: &[T], all: u64) -> u64 {
    let mut counts: HashMap<T, u32, FixedState> =
        HashMap::with_capacity_and_hasher(values.len(), FixedState::default());
    let mut count = |values: &[T]| {
        values.iter().for_each(|value| *counts.entry(*value).or_default() += 1);
        Spread::of(counts.values().copied())
    };
    let (first, rest) = values.split_at(values.len() / 2);
    let (half, whole) = (count(first), count(rest));
    let to_come = all.saturating_sub(values.len() as u64);
    // More than the first half let foresee: values that come and go, as times do. So many more with every row.
    let entries = if whole.distinct > half.likely() + half.likely() / 4 {
        whole.distinct + (whole.distinct - half.distinct) * to_come / (rest.len() as u64).max(1)
    } else {
        whole.likely().saturating_add(half.ever_new(&whole, to_come))
    };
    entries.min(whole.distinct + to_come)
}

/// How values repeat.
struct Spread {
    values: u64,
    distinct: u64,
    /// Distinct values that are there once and twice.
    once: u64,
    twice: u64,
}

impl Spread {
    fn of(counts: impl Iterator<Item = u32>) -> Self {
        let mut spread = Self { values: 0, distinct: 0, once: 0, twice: 0 };
        for count in counts {
            spread.values += u64::from(count);
            spread.distinct += 1;
            spread.once += u64::from(count == 1);
            spread.twice += u64::from(count == 2);
        }
        spread
    }

    /// About how many distinct values there are to be drawn from, all of them as likely (Chao 1984).
    fn likely(&self) -> u64 {
        self.distinct + self.once * self.once.saturating_sub(1) / (2 * (self.twice + 1))
    }

    /// How many of so many values more were never there, where some rows draw from few values and others, as a message
    /// with a number in it, always bring a new one; nought unless both halves, of the same number of values, show it.
    ///
    /// Of a share q that is drawn from few values a share x is not there yet after half of the values, and x² after all.
    /// So q (1 - x) of the first half are there more than once, and q (1 - x²) of the whole: what is known.
    fn ever_new(&self, whole: &Self, to_come: u64) -> u64 {
        let (half, repeated, of_whole) = (self.values, self.values - self.once, whole.values - whole.once);
        // Where x is above a half, what is left for 1 - q is uncertain.
        if of_whole >= 3 * repeated {
            return 0;
        }
        let all = half * (4 * repeated - of_whole);
        let new = all.saturating_sub(2 * repeated * repeated);
        if new > all / EVER_NEW_SHARE { (u128::from(to_come) * u128::from(new) / u128::from(all)) as u64 } else { 0 }
    }
}
