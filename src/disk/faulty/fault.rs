//! What goes wrong, and when: as a value, and as a text.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// What changes something on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// [`Disk::create_folder`](crate::disk::Disk::create_folder).
    CreateFolder,
    /// [`Disk::create`](crate::disk::Disk::create).
    Create,
    /// [`Disk::rename`](crate::disk::Disk::rename).
    Rename,
    /// [`Disk::remove`](crate::disk::Disk::remove).
    Remove,
    /// [`Disk::remove_folder`](crate::disk::Disk::remove_folder).
    RemoveFolder,
    /// [`Disk::sync_folder`](crate::disk::Disk::sync_folder).
    SyncFolder,
    /// [`DiskFile::write_at`](crate::disk::DiskFile::write_at).
    Write,
    /// [`DiskFile::set_len`](crate::disk::DiskFile::set_len).
    SetLen,
    /// [`DiskFile::sync`](crate::disk::DiskFile::sync).
    Sync,
}

/// What each kind is called.
const KINDS: [(&str, Kind); 9] = [
    ("create_folder", Kind::CreateFolder),
    ("create", Kind::Create),
    ("rename", Kind::Rename),
    ("remove", Kind::Remove),
    ("remove_folder", Kind::RemoveFolder),
    ("sync_folder", Kind::SyncFolder),
    ("write_at", Kind::Write),
    ("set_len", Kind::SetLen),
    ("sync", Kind::Sync),
];

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KINDS.iter().find(|(_, kind)| kind == self).map_or("", |(name, _)| name))
    }
}

/// What happens instead of an operation, or beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The process ends before it, as by SIGKILL.
    Exit,
    /// The process ends after it.
    ExitAfter,
    /// It is not done: no room on the disk. A `sync` as under `Eio`.
    Enospc,
    /// It is not done: the disk cannot. Where it was a `sync`, later ones of the same handle do nothing and say that all
    /// is well, as systems do that have thrown the bytes away (Rebello et al., "Can Applications Recover from fsync
    /// Failures?", USENIX ATC 2020).
    Eio,
    /// Half of a write is done, and then the disk cannot; what is no write is not done.
    Torn,
    /// A `sync` does nothing, and says that all is well. Other operations are not concerned, nor counted.
    NoSync,
    /// The same for `sync_folder`.
    NoSyncFolder,
}

/// What each effect is called, and whether it is one without a number.
const EFFECTS: [(&str, Effect, bool); 7] = [
    ("exit", Effect::Exit, false),
    ("exit-after", Effect::ExitAfter, false),
    ("enospc", Effect::Enospc, false),
    ("eio", Effect::Eio, false),
    ("torn", Effect::Torn, false),
    ("nosync", Effect::NoSync, true),
    ("nosync-folder", Effect::NoSyncFolder, true),
];

impl Effect {
    /// Whether an operation of this kind is one that it counts.
    pub(super) fn concerns(self, kind: Kind) -> bool {
        match self {
            Self::NoSync => kind == Kind::Sync,
            Self::NoSyncFolder => kind == Kind::SyncFolder,
            _ => true,
        }
    }
}

/// An effect on some of the operations that change something in its scope. They are counted from 1.
///
/// As a text: `exit@17` is before the 17th operation, `enospc@17..` at this and all that come, `eio@17..19` at three of
/// them, and `nosync` at all. What follows a colon is the scope, a part of a path, with or without the kind of the operation
/// and a space before it: `exit@3:checkpoints/`, `eio@2:sync journal/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happens.
    pub effect: Effect,
    /// The first operation that it happens to.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// A part of the path, of one of the two in a rename; before it may stand a kind and a space. Only operations with it
    /// are counted.
    pub scope: Option<String>,
}

impl Fault {
    /// At one operation.
    pub fn once(effect: Effect, at: u64) -> Self {
        Self { effect, first: at, last: at, scope: None }
    }

    /// At this operation and all that come.
    pub fn from(effect: Effect, first: u64) -> Self {
        Self { effect, first, last: u64::MAX, scope: None }
    }

    /// The same for operations with a part of a path.
    pub fn within(self, scope: impl Into<String>) -> Self {
        Self { scope: Some(scope.into()), ..self }
    }

    /// Whether it counts such an operation.
    pub(super) fn concerns(&self, kind: Kind, paths: &[&Path]) -> bool {
        let inside = |scope: &String| {
            let named = scope
                .split_once(' ')
                .and_then(|(name, part)| Some((KINDS.iter().find(|(known, _)| *known == name)?.1, part)));
            let (only, part) = named.map_or((None, scope.as_str()), |(kind, part)| (Some(kind), part));
            only.is_none_or(|only| only == kind) && paths.iter().any(|path| path.to_string_lossy().contains(part))
        };
        self.effect.concerns(kind) && self.scope.as_ref().is_none_or(inside)
    }

    /// Several, separated by commas. Scopes have no commas.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, UnknownFault> {
        text.split(',').map(str::parse).collect()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = EFFECTS.iter().find(|(_, effect, _)| *effect == self.effect).map_or("", |(name, ..)| name);
        f.write_str(name)?;
        match (self.first, self.last) {
            (1, u64::MAX) => {}
            (first, u64::MAX) => write!(f, "@{first}..")?,
            (first, last) if first == last => write!(f, "@{first}")?,
            (first, last) => write!(f, "@{first}..{last}")?,
        }
        self.scope.as_ref().map_or(Ok(()), |scope| write!(f, ":{scope}"))
    }
}

/// A text that says no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot read `{0}` as a fault: it is `EFFECT@N`, `EFFECT@N..` or `EFFECT@N..M` with exit, exit-after, enospc, eio or \
     torn, or `nosync` or `nosync-folder`, each with or without `:PART_OF_A_PATH`"
)]
pub struct UnknownFault(String);

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        let unknown = || UnknownFault(text.to_owned());
        let (what, scope) = match text.split_once(':') {
            Some((what, scope)) if !scope.is_empty() => (what, Some(scope.to_owned())),
            Some(_) => return Err(unknown()),
            None => (text, None),
        };
        let (name, at) = what.split_once('@').map_or((what, None), |(name, at)| (name, Some(at)));
        let (_, effect, always) = EFFECTS.into_iter().find(|(known, ..)| *known == name.trim()).ok_or_else(unknown)?;
        let number = |text: &str| text.parse::<u64>().ok().filter(|number| *number > 0).ok_or_else(unknown);
        let (first, last) = match at.map(|at| at.split_once("..").ok_or(at)) {
            None if always => (1, u64::MAX),
            None => return Err(unknown()),
            Some(Err(at)) => (number(at)?, number(at)?),
            Some(Ok((first, ""))) => (number(first)?, u64::MAX),
            Some(Ok((first, last))) => (number(first)?, number(last)?),
        };
        if last < first { Err(unknown()) } else { Ok(Self { effect, first, last, scope }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read() {
        let cases = [
            ("exit@17", Fault::once(Effect::Exit, 17)),
            ("exit-after@1", Fault::once(Effect::ExitAfter, 1)),
            ("enospc@17..", Fault::from(Effect::Enospc, 17)),
            ("eio@2..3", Fault { effect: Effect::Eio, first: 2, last: 3, scope: None }),
            ("torn@4:journal/", Fault::once(Effect::Torn, 4).within("journal/")),
            ("nosync", Fault::from(Effect::NoSync, 1)),
            ("eio@2:sync journal/", Fault::once(Effect::Eio, 2).within("sync journal/")),
            ("nosync-folder@2:a:b", Fault::once(Effect::NoSyncFolder, 2).within("a:b")),
        ];
        for (text, fault) in cases {
            assert_eq!(text.parse::<Fault>(), Ok(fault.clone()));
            assert_eq!(fault.to_string(), text);
        }
        let two = Fault::parse_all("nosync,eio@9");
        assert_eq!(two, Ok(vec![Fault::from(Effect::NoSync, 1), Fault::once(Effect::Eio, 9)]));
    }

    #[test]
    fn a_scope_is_a_part_of_a_path_with_or_without_a_kind() {
        let concerns = |scope: &str, kind, path: &str| {
            Fault::once(Effect::Eio, 1).within(scope).concerns(kind, &[Path::new("a/from"), Path::new(path)])
        };
        assert!(concerns("to", Kind::Sync, "b/to") && concerns("from", Kind::Rename, "b/to"));
        assert!(concerns("sync b/", Kind::Sync, "b/to") && !concerns("sync b/", Kind::SyncFolder, "b/to"));
        assert!(!concerns("sync c", Kind::Sync, "b/to"));
        assert!(concerns("my file", Kind::Sync, "b/my file") && !concerns("sync file", Kind::Write, "b/sync file"));
    }

    #[test]
    fn what_is_no_fault_is_told() {
        for text in ["", "exit", "eio@", "eio@0", "eio@x", "eio@5..4", "eio@..4", "halt@1", "eio@1:", "@1", "nosync@"] {
            let told = text.parse::<Fault>().unwrap_err().to_string();
            assert!(told.contains(&format!("`{text}`")), "{told}");
        }
        assert!(Fault::parse_all("eio@1,").is_err());
    }
}
