//! The state of a group for one argument, as plain old data: what it has of counts, sums and extremes is in its type.
//!
//! An empty cell is neutral: merged with another it gives the other, to the last bit, so no merge asks whether there was
//! a value. Extremes are kept as whole numbers in the order of the values, so that to compare two is one instruction.

use arrow::datatypes::ArrowNativeType;

/// A value that can be folded into a [`Cell`].
pub(super) trait Number: ArrowNativeType {
    /// Its place in the order: equal for all NaN, which are greater than every number.
    type Rank: Rank;

    fn rank(self) -> Self::Rank;
    fn of_rank(rank: Self::Rank) -> Self;
    fn float(self) -> f64;
    /// Only whole numbers have one.
    fn whole(self) -> i128;
}

/// A place in an order.
pub(super) trait Rank: Copy + Ord + Send + 'static {
    const LEAST: Self;
    const GREATEST: Self;
}

macro_rules! whole_numbers {
    ($($native:ty),*) => {$(
        impl Number for $native {
            type Rank = $native;

            #[inline(always)]
            fn rank(self) -> $native {
                self
            }

            #[inline(always)]
            fn of_rank(rank: $native) -> $native {
                rank
            }

            #[inline(always)]
            #[expect(clippy::allow_attributes, reason = "not all of these conversions lose something")]
            #[allow(clippy::cast_precision_loss, clippy::cast_lossless, reason = "as a cast of the column does")]
            fn float(self) -> f64 {
                self as f64
            }

            #[inline(always)]
            fn whole(self) -> i128 {
                i128::from(self)
            }
        }

        impl Rank for $native {
            const LEAST: Self = <$native>::MIN;
            const GREATEST: Self = <$native>::MAX;
        }
    )*};
}

whole_numbers!(i8, i16, i32, i64, u8, u16, u32, u64);

macro_rules! floats {
    ($($native:ty, $signed:ty, $unsigned:ty;)*) => {$(
        impl Number for $native {
            type Rank = $signed;

            /// IEEE 754's total order, in which -0 is less than 0, but for NaN, which are all one.
            #[inline(always)]
            fn rank(self) -> $signed {
                let bits = self.to_bits().cast_signed();
                let rank = bits ^ ((bits >> (<$signed>::BITS - 1)).cast_unsigned() >> 1).cast_signed();
                if self.is_nan() { <$signed>::MAX } else { rank }
            }

            #[inline(always)]
            fn of_rank(rank: $signed) -> $native {
                if rank == <$signed>::MAX {
                    return <$native>::NAN;
                }
                let bits = rank ^ ((rank >> (<$signed>::BITS - 1)).cast_unsigned() >> 1).cast_signed();
                <$native>::from_bits(bits.cast_unsigned())
            }

            #[inline(always)]
            fn float(self) -> f64 {
                f64::from(self)
            }

            #[inline(always)]
            fn whole(self) -> i128 {
                0
            }
        }
    )*};
}

floats! {
    f32, i32, u32;
    f64, i64, u64;
}

/// How many rows there were, null or not: `()` where nobody asks.
pub(super) trait Rows: Copy + Default + Send + 'static {
    const KEPT: bool;

    fn add(&mut self, more: i64);
    fn get(self) -> i64;
}

impl Rows for () {
    const KEPT: bool = false;

    #[inline(always)]
    fn add(&mut self, _: i64) {}

    fn get(self) -> i64 {
        0
    }
}

impl Rows for i64 {
    const KEPT: bool = true;

    #[inline(always)]
    fn add(&mut self, more: i64) {
        // Only damaged state comes near the end of 64 bits.
        *self = self.wrapping_add(more);
    }

    fn get(self) -> i64 {
        self
    }
}

/// The sum of the values: `()` where nobody asks.
pub(super) trait Sum: Copy + Default + Send + 'static {
    fn fold<N: Number>(&mut self, value: N);
    fn add(&mut self, float: f64, whole: i128);
    fn float(self) -> f64;
    fn whole(self) -> i128;
}

impl Sum for () {
    #[inline(always)]
    fn fold<N: Number>(&mut self, _: N) {}

    #[inline(always)]
    fn add(&mut self, _: f64, _: i128) {}

    fn float(self) -> f64 {
        0.0
    }

    fn whole(self) -> i128 {
        0
    }
}

/// Of floats.
impl Sum for f64 {
    #[inline(always)]
    fn fold<N: Number>(&mut self, value: N) {
        *self += value.float();
    }

    #[inline(always)]
    fn add(&mut self, float: f64, _: i128) {
        *self += float;
    }

    fn float(self) -> f64 {
        self
    }

    fn whole(self) -> i128 {
        0
    }
}

/// Of whole numbers: as `avg` adds them, and as `sum` does.
#[derive(Clone, Copy, Default)]
pub(super) struct Both {
    float: f64,
    whole: i128,
}

impl Sum for Both {
    #[inline(always)]
    fn fold<N: Number>(&mut self, value: N) {
        self.add(value.float(), value.whole());
    }

    #[inline(always)]
    fn add(&mut self, float: f64, whole: i128) {
        self.float += float;
        // Only damaged state comes near the ends of 128 bits.
        self.whole = self.whole.wrapping_add(whole);
    }

    fn float(self) -> f64 {
        self.float
    }

    fn whole(self) -> i128 {
        self.whole
    }
}

/// The least and the greatest value: `()` where nobody asks.
pub(super) trait Extent<N: Number>: Copy + Send + 'static {
    const EMPTY: Self;

    fn fold(&mut self, least: N::Rank, greatest: N::Rank);
    fn least(self) -> N::Rank;
    fn greatest(self) -> N::Rank;
}

impl<N: Number> Extent<N> for () {
    const EMPTY: Self = ();

    #[inline(always)]
    fn fold(&mut self, _: N::Rank, _: N::Rank) {}

    fn least(self) -> N::Rank {
        N::Rank::GREATEST
    }

    fn greatest(self) -> N::Rank {
        N::Rank::LEAST
    }
}

/// Both ends.
#[derive(Clone, Copy)]
pub(super) struct Ends<R> {
    least: R,
    greatest: R,
}

impl<N: Number> Extent<N> for Ends<N::Rank> {
    const EMPTY: Self = Self { least: N::Rank::GREATEST, greatest: N::Rank::LEAST };

    #[inline(always)]
    fn fold(&mut self, least: N::Rank, greatest: N::Rank) {
        self.least = self.least.min(least);
        self.greatest = self.greatest.max(greatest);
    }

    fn least(self) -> N::Rank {
        self.least
    }

    fn greatest(self) -> N::Rank {
        self.greatest
    }
}

/// All that is known of the values of one argument in one group.
#[derive(Clone, Copy)]
pub(super) struct Cell<R, S, E> {
    pub(super) rows: R,
    /// How many values were not null.
    pub(super) count: i64,
    pub(super) sum: S,
    pub(super) range: E,
}

impl<R: Rows, S: Sum, E> Cell<R, S, E> {
    /// Of no row.
    pub(super) fn empty<N: Number>() -> Self
    where
        E: Extent<N>,
    {
        Self { rows: R::default(), count: 0, sum: S::default(), range: E::EMPTY }
    }

    /// A value. The row is counted by the owner.
    #[inline(always)]
    pub(super) fn fold<N: Number>(&mut self, value: N)
    where
        E: Extent<N>,
    {
        self.count = self.count.wrapping_add(1);
        self.sum.fold(value);
        let rank = value.rank();
        self.range.fold(rank, rank);
    }

    /// What another has seen, after what this has.
    #[inline(always)]
    pub(super) fn merge<N: Number>(&mut self, other: &Self)
    where
        E: Extent<N>,
    {
        self.rows.add(other.rows.get());
        self.count = self.count.wrapping_add(other.count);
        self.sum.add(other.sum.float(), other.sum.whole());
        self.range.fold(other.range.least(), other.range.greatest());
    }
}
