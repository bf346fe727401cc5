//! Damage by chance, the same for the same seed.

use std::path::PathBuf;

use streamgauge::disk::{self, Disk};

/// Numbers by chance: SplitMix64.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of so many, from nought.
    pub fn of(&mut self, count: u64) -> u64 {
        self.next() % count.max(1)
    }
}

/// What happens to a file, or to two.
#[derive(Clone, Debug)]
pub enum Damage {
    Flip(PathBuf, u64, u8),
    Overwrite(PathBuf, u64, Vec<u8>),
    Truncate(PathBuf, u64),
    Swap(PathBuf, PathBuf),
}

impl Damage {
    /// Of files that have some bytes. Most of it where there is something: what is behind the last byte that is not nought
    /// is seldom hit.
    pub fn new(chance: &mut Chance, disk: &dyn Disk, files: &[PathBuf]) -> Self {
        let path = files[chance.of(files.len() as u64) as usize].clone();
        let bytes = disk::read(disk, &path).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
        let len = if chance.of(8) == 0 { bytes.len() } else { used };
        let at = chance.of(len as u64);
        match chance.of(10) {
            0..5 => Self::Flip(path, at, 1 << chance.of(8)),
            5..8 => {
                let most = [4, 64, 600][chance.of(3) as usize];
                let count = 1 + chance.of(most).min(bytes.len() as u64 - at - 1);
                let same = chance.of(2) == 0;
                let byte = if chance.of(2) == 0 { 0 } else { chance.next() as u8 };
                let bytes = (0..count).map(|_| if same { byte } else { chance.next() as u8 });
                Self::Overwrite(path, at, bytes.collect())
            }
            8 => Self::Truncate(path, at),
            _ => Self::Swap(path, files[chance.of(files.len() as u64) as usize].clone()),
        }
    }

    pub fn apply(&self, disk: &dyn Disk) {
        match self {
            Self::Flip(path, at, bit) => {
                let file = disk.open(path).unwrap();
                let mut byte = [0];
                file.read_at(&mut byte, *at).unwrap();
                file.write_at(&[byte[0] ^ bit], *at).unwrap();
            }
            Self::Overwrite(path, at, bytes) => disk.open(path).unwrap().write_at(bytes, *at).unwrap(),
            Self::Truncate(path, len) => disk.open(path).unwrap().set_len(*len).unwrap(),
            Self::Swap(one, other) => {
                let between = one.with_file_name("swapped");
                disk.rename(one, &between).unwrap();
                if one != other {
                    disk.rename(other, one).unwrap();
                }
                disk.rename(&between, other).unwrap();
            }
        }
    }
}
