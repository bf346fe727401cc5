//! The bytes of a file: as the process sees them, as they are on the platter, and what lies between.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use crate::disk::ENOSPC;
use crate::disk::memory::chance::Chance;

/// What a disk writes in one step, in bytes.
const SECTOR: usize = 512;

/// What was done since the last `sync`.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*offset..end].copy_from_slice(bytes);
            }
            Self::SetLen(len) => to.resize(*len, 0),
        }
    }

    /// The bytes that it changes in a file that had `len`: those cut off are zeros from then on.
    fn touched(&self, len: usize) -> Range<usize> {
        match self {
            Self::Write { offset, bytes } => *offset..offset + bytes.len(),
            Self::SetLen(cut) => *cut..len.max(*cut),
        }
    }
}

/// Which changes of a file a crash leaves.
enum Luck {
    None,
    All,
    /// All before one of them, and that one torn.
    Until(usize),
    /// Each by itself, in any order: whole, torn, or not at all.
    Mixed,
}

impl Luck {
    fn new(changes: usize, chance: &mut Chance) -> Self {
        match chance.of(0..8) {
            0 => Self::None,
            1 => Self::All,
            2 | 3 => Self::Until(chance.of(0..changes)),
            _ => Self::Mixed,
        }
    }

    /// The part of the touched bytes of change number `number` that survives.
    fn part(&self, number: usize, touched: Range<usize>, chance: &mut Chance) -> Range<usize> {
        let (start, end) = (touched.start, touched.end);
        let mut tear = || (chance.of(start / SECTOR..end.div_ceil(SECTOR) + 1) * SECTOR).clamp(start, end);
        match self {
            Self::None => start..start,
            Self::All => touched,
            Self::Until(last) if number == *last => start..tear(),
            Self::Until(last) => start..if number < *last { end } else { start },
            Self::Mixed => {
                let tear = tear();
                [start..start, start..end, start..tear, tear..end][chance.of(0..4)].clone()
            }
        }
    }

    /// Whether the new length survives that change number `number` gave the file.
    fn len(&self, number: usize, chance: &mut Chance) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Until(last) => number < *last || (number == *last && chance.one_in(2)),
            Self::Mixed => chance.one_in(2),
        }
    }
}

/// The bytes of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
    allocated: Extents,
}

impl Content {
    /// A file that is as durable as can be.
    fn settled(bytes: Vec<u8>) -> Self {
        let mut allocated = Extents::default();
        allocated.add(0..bytes.len());
        Self { durable: bytes.clone(), now: bytes, changes: Vec::new(), allocated }
    }

    pub(super) fn len(&self) -> usize {
        self.now.len()
    }

    /// The bytes that it takes on the disk; what was never written takes none.
    pub(super) fn allocated(&self) -> usize {
        self.allocated.total()
    }

    pub(super) fn read_at(&self, into: &mut [u8], offset: usize) -> usize {
        let from = self.now.get(offset..).unwrap_or_default();
        let len = from.len().min(into.len());
        into[..len].copy_from_slice(&from[..len]);
        len
    }

    /// Writes with at most `free` bytes more than it has. Where they are not enough, what fits is written before the
    /// error, as `write(2)` does.
    pub(super) fn write(&mut self, bytes: &[u8], offset: usize, free: usize) -> io::Result<()> {
        let fits = self.allocated.fits(offset..offset + bytes.len(), free);
        if fits > 0 {
            self.allocated.add(offset..offset + fits);
            self.change(Change::Write { offset, bytes: bytes[..fits].to_vec() });
        }
        if fits < bytes.len() { Err(io::Error::from_raw_os_error(ENOSPC)) } else { Ok(()) }
    }

    pub(super) fn set_len(&mut self, len: usize) {
        if len != self.now.len() {
            self.allocated.cut(len);
            self.change(Change::SetLen(len));
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.changes.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.changes.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// What is left where nothing survives that was not made durable.
    pub(super) fn hard(&self) -> Self {
        Self::settled(self.durable.clone())
    }

    /// What may be left after a power cut. A sector that survives from one change carries what earlier changes put into
    /// it, whether or not they survive elsewhere: it is written as the page cache had it.
    pub(super) fn crash(&self, chance: &mut Chance) -> Self {
        if self.changes.is_empty() {
            return self.hard();
        }
        let luck = Luck::new(self.changes.len(), chance);
        let (mut now, mut left, mut len) = (self.durable.clone(), self.durable.clone(), self.durable.len());
        for (number, change) in self.changes.iter().enumerate() {
            let before = now.len();
            change.apply(&mut now);
            let part = luck.part(number, change.touched(before), chance);
            if !part.is_empty() {
                copy_sectors(&now, &mut left, part);
            }
            if now.len() != before && luck.len(number, chance) {
                len = now.len();
            }
        }
        left.resize(len, 0);
        Self::settled(left)
    }
}

/// Copies the sectors that the range lies in.
fn copy_sectors(from: &[u8], to: &mut Vec<u8>, range: Range<usize>) {
    let (start, end) = (range.start / SECTOR * SECTOR, range.end.div_ceil(SECTOR) * SECTOR);
    if to.len() < end {
        to.resize(end, 0);
    }
    let there = from.get(start..end.min(from.len())).unwrap_or_default();
    to[start..start + there.len()].copy_from_slice(there);
    to[start + there.len()..end].fill(0);
}

/// The bytes of a file that take place on the disk: ranges, by their start, with gaps between them.
#[derive(Clone, Debug, Default)]
struct Extents(BTreeMap<usize, usize>);

impl Extents {
    fn total(&self) -> usize {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// The parts of a range that are there.
    fn within(&self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let (from, to) = (range.start, range.end);
        let parts = self.0.range(..to).map(move |(&start, &end)| start.max(from)..end.min(to));
        parts.filter(|part| !part.is_empty())
    }

    /// How many bytes of a range, from its start, can be there with `free` bytes more.
    fn fits(&self, range: Range<usize>, free: usize) -> usize {
        let (mut at, mut free) = (range.start, free);
        for part in self.within(range.clone()) {
            if part.start - at > free {
                return at + free - range.start;
            }
            free -= part.start - at;
            at = part.end;
        }
        range.len().min((at - range.start).saturating_add(free))
    }

    fn add(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let touching: Vec<_> =
            self.0.range(..=range.end).filter(|(_, end)| **end >= range.start).map(|(s, e)| (*s, *e)).collect();
        let (mut start, mut end) = (range.start, range.end);
        for (other_start, other_end) in touching {
            self.0.remove(&other_start);
            (start, end) = (start.min(other_start), end.max(other_end));
        }
        self.0.insert(start, end);
    }

    fn cut(&mut self, len: usize) {
        self.0.retain(|start, _| *start < len);
        if let Some((_, end)) = self.0.iter_mut().next_back() {
            *end = len.min(*end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_know_what_fits() {
        let mut extents = Extents::default();
        extents.add(10..20);
        extents.add(30..40);
        assert_eq!(extents.total(), 20);
        assert_eq!(extents.fits(12..18, 0), 6, "all of it is there");
        assert_eq!(extents.fits(12..35, 9), 17, "8 to the gap's start, 9 of its 10");
        assert_eq!(extents.fits(12..35, 10), 23, "the gap is filled");
        assert_eq!(extents.fits(35..100, 7), 12);
        assert_eq!(extents.fits(0..5, 3), 3);
        extents.add(20..30);
        assert_eq!(extents.0, BTreeMap::from([(10, 40)]));
        extents.cut(15);
        assert_eq!(extents.0, BTreeMap::from([(10, 15)]));
        extents.cut(10);
        assert_eq!(extents.total(), 0);
    }
}
