//! Segment files: a header and zeros, to be written over.

use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskFile};
use crate::ingest::journal::JournalError;

/// Bytes of the header.
pub(super) const HEADER: u64 = 40;
const MAGIC: &[u8; 8] = b"SGJOURNL";
/// The version of the format; a build reads its own and older ones.
///
/// 1: each payload has a record of its own. 2: many payloads are one record.
pub(super) const VERSION: u32 = 2;
const ENDING: &str = ".journal";
const UNFINISHED: &str = ".tmp";
/// Zeros are written in pieces of this size.
const ZEROS: usize = 1 << 20;

/// How the zeros of a segment come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// They are written. A sync of what is written over them later writes no metadata, which is most of the time that a
    /// small group takes.
    Written,
    /// They are a hole. Nothing is written twice, which is most of the time that large groups take.
    Hole,
}

/// The file of a segment.
pub(super) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:012}{ENDING}"))
}

/// The numbers of the segments in a folder, ascending.
pub(super) fn list(disk: &dyn Disk, folder: &Path) -> Result<Vec<u64>, JournalError> {
    let names = disk.list(folder).map_err(|why| JournalError::disk("list", folder, why))?;
    let number = |name: &String| name.strip_suffix(ENDING)?.parse().ok();
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Removes segments that were not finished when the process died.
pub(super) fn clear(disk: &dyn Disk, folder: &Path) -> Result<(), JournalError> {
    let names = disk.list(folder).map_err(|why| JournalError::disk("list", folder, why))?;
    for name in names.iter().filter(|name| name.ends_with(UNFINISHED)) {
        let path = folder.join(name);
        disk.remove(&path).map_err(|why| JournalError::disk("remove", &path, why))?;
    }
    Ok(())
}

/// Makes a segment of `len` bytes, durable; where a sync fails, the error is [`JournalError::Lost`]. It gets its name when
/// it is whole; what was begun and could not be finished is removed, so that a full disk is not kept full.
pub(super) fn create(
    disk: &dyn Disk,
    folder: &Path,
    number: u64,
    len: u64,
    fill: Fill,
) -> Result<Box<dyn DiskFile>, JournalError> {
    let tmp = folder.join(format!("{number:012}{UNFINISHED}"));
    let path = path(folder, number);
    let made = filled(disk, &tmp, number, len, fill).and_then(|file| {
        disk.rename(&tmp, &path).map_err(|why| JournalError::disk("create", &path, why))?;
        Ok(file)
    });
    if made.is_err() {
        // It may not be there at all.
        let _ = disk.remove(&tmp);
    }
    let file = made?;
    disk.sync_folder(folder).map_err(|why| JournalError::lost(folder, why))?;
    Ok(file)
}

fn filled(disk: &dyn Disk, path: &Path, number: u64, len: u64, fill: Fill) -> Result<Box<dyn DiskFile>, JournalError> {
    let refused = |why| JournalError::disk("create", path, why);
    let file = disk.create(path).map_err(refused)?;
    match fill {
        Fill::Written => write_zeros(&*file, len).map_err(refused)?,
        Fill::Hole => file.set_len(len).map_err(refused)?,
    }
    file.write_at(&header(number, len), 0).map_err(refused)?;
    file.sync().map_err(|why| JournalError::lost(path, why))?;
    Ok(file)
}

fn write_zeros(file: &dyn DiskFile, len: u64) -> std::io::Result<()> {
    let zeros = vec![0; ZEROS.min(usize::try_from(len).unwrap_or(ZEROS))];
    let mut written = 0;
    while written < len {
        let piece = usize::try_from(len - written).unwrap_or(ZEROS).min(zeros.len());
        file.write_at(&zeros[..piece], written)?;
        written += piece as u64;
    }
    Ok(())
}

fn header(number: u64, len: u64) -> [u8; HEADER as usize] {
    let mut header = [0; HEADER as usize];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&number.to_le_bytes());
    header[24..32].copy_from_slice(&len.to_le_bytes());
    let checksum = crc32c::crc32c(&header[..36]);
    header[36..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Checks the header of a segment that is in memory whole.
pub(super) fn check(path: &Path, number: u64, bytes: &[u8]) -> Result<(), JournalError> {
    let damaged = |offset: u64, why: &str| JournalError::Damaged { path: path.to_owned(), offset, why: why.to_owned() };
    let Some(head) = bytes.first_chunk::<{ HEADER as usize }>() else {
        return Err(damaged(bytes.len() as u64, "it ends within its header"));
    };
    let whole = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| head[at + byte]));
    let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| head[at + byte]));
    if head[..8] != *MAGIC || crc32c::crc32c(&head[..36]) != half(36) {
        return Err(damaged(0, "its header is not that of a journal segment"));
    }
    if half(8) > VERSION {
        return Err(JournalError::Newer { path: path.to_owned(), version: half(8), known: VERSION });
    }
    if whole(16) != number {
        return Err(damaged(16, "it is another segment that was renamed"));
    }
    if whole(24) != bytes.len() as u64 {
        return Err(damaged(bytes.len() as u64, "it was cut off, or grew"));
    }
    Ok(())
}

/// Whether a segment is of this version. Records of it may not be added to an older one, which older builds read.
pub(super) fn is_current(bytes: &[u8]) -> bool {
    bytes.get(8..12) == Some(&VERSION.to_le_bytes())
}

/// Whether a segment of this version has no record yet, nor a trace of one.
pub(super) fn is_unused(path: &Path, number: u64, bytes: &[u8]) -> bool {
    let is_empty = || bytes[HEADER as usize..].iter().all(|byte| *byte == 0);
    is_current(bytes) && check(path, number, bytes).is_ok() && is_empty()
}
