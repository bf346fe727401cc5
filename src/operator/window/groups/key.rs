//! The keys of groups as bytes, found by hash. No key is an allocation: a short one stands in 16 bytes with its length,
//! the long ones stand in one piece.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::operator::aggregate::GroupId;
use crate::operator::key_group::key_group;

/// How many bytes a key has that stands by itself.
const SHORT_MAX: usize = 12;

/// From how many bytes of keys that are gone it is worth moving the others together.
const DEAD_BYTES_MIN: usize = 1 << 16;

/// From how many places on a table that is mostly empty is made smaller.
const TABLE_MIN: usize = 1 << 10;

/// A key. The last four bytes are its length. Of a short one the others are its bytes, with noughts behind them; of a
/// long one they are where it begins, and a part of its hash.
#[derive(Clone, Copy, Default)]
struct Key([u8; 16]);

impl Key {
    fn word(self) -> u128 {
        u128::from_le_bytes(self.0)
    }

    fn len(self) -> usize {
        (self.word() >> 96) as usize
    }

    fn long(start: usize, len: usize, hash: u64) -> Self {
        let word = start as u128 | u128::from(mark(hash)) << 64 | (len as u128) << 96;
        Self(word.to_le_bytes())
    }

    /// Of a long one: where it begins.
    fn start(self) -> usize {
        usize::try_from(self.word() & u128::from(u64::MAX)).expect("what is in memory can be counted by usize")
    }

    /// Of a long one: all but where it begins.
    fn look(self) -> u64 {
        (self.word() >> 64) as u64
    }
}

/// The part of a hash that stands beside a long key.
fn mark(hash: u64) -> u32 {
    (hash >> 20) as u32
}

/// A key that is looked for.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'k> {
    bytes: &'k [u8],
    /// What a short key is kept as.
    short: Key,
}

impl<'k> Wanted<'k> {
    /// The key that is in `data` from `start` on.
    pub(super) fn within(data: &'k [u8], start: usize, len: usize) -> Self {
        let bytes = &data[start..start + len];
        if len > SHORT_MAX {
            return Self { bytes, short: Key::default() };
        }
        let tail = (len as u128) << 96;
        let word = match data[start..].first_chunk::<16>() {
            // A copy of so many bytes as are wanted would be a call.
            Some(chunk) => u128::from_le_bytes(*chunk) & ((1 << (8 * len)) - 1),
            None => bytes.iter().rev().fold(0, |word, byte| word << 8 | u128::from(*byte)),
        };
        Self { bytes, short: Key((word | tail).to_le_bytes()) }
    }

    /// The key of these bytes.
    pub(super) fn of(bytes: &'k [u8]) -> Self {
        Self::within(bytes, 0, bytes.len())
    }

    fn is_short(&self) -> bool {
        self.bytes.len() <= SHORT_MAX
    }
}

/// The keys of groups, by id, and the ids of keys.
#[derive(Default)]
pub(super) struct Keys {
    hasher: RandomState,
    table: HashTable<GroupId>,
    keys: Vec<Key>,
    key_groups: Vec<u8>,
    /// The bytes of long keys.
    long: Vec<u8>,
    /// How many of these are of keys that are gone.
    dead: usize,
}

impl Keys {
    fn hash(hasher: &RandomState, key: Key, bytes: &[u8]) -> u64 {
        if bytes.len() <= SHORT_MAX { hasher.hash_one(key.word()) } else { hasher.hash_one(bytes) }
    }

    fn bytes_of<'k>(long: &'k [u8], key: &'k Key) -> &'k [u8] {
        let len = key.len();
        if len <= SHORT_MAX { &key.0[..len] } else { &long[key.start()..key.start() + len] }
    }

    /// The bytes of a group's key.
    pub(super) fn bytes(&self, id: GroupId) -> &[u8] {
        Self::bytes_of(&self.long, &self.keys[id as usize])
    }

    /// The key group of a group.
    pub(super) fn key_group(&self, id: GroupId) -> u8 {
        self.key_groups[id as usize]
    }

    /// The group of a key.
    pub(super) fn find(&self, wanted: &Wanted) -> Option<GroupId> {
        let hash = Self::hash(&self.hasher, wanted.short, wanted.bytes);
        if wanted.is_short() {
            let word = wanted.short.word();
            return self.table.find(hash, |id| self.keys[*id as usize].word() == word).copied();
        }
        let look = Key::long(0, wanted.bytes.len(), hash).look();
        let same = |id: &GroupId| {
            let key = &self.keys[*id as usize];
            key.look() == look && Self::bytes_of(&self.long, key) == wanted.bytes
        };
        self.table.find(hash, same).copied()
    }

    /// Gives a key to an id that has none.
    pub(super) fn insert(&mut self, id: GroupId, wanted: &Wanted) {
        let hash = Self::hash(&self.hasher, wanted.short, wanted.bytes);
        let mut key = wanted.short;
        if !wanted.is_short() {
            key = Key::long(self.long.len(), wanted.bytes.len(), hash);
            self.long.extend_from_slice(wanted.bytes);
        }
        self.set(id, key, key_group(wanted.bytes));
        let (hasher, keys, long) = (&self.hasher, &self.keys, &self.long);
        self.table.insert_unique(hash, id, |id| {
            let key = keys[*id as usize];
            Self::hash(hasher, key, Self::bytes_of(long, &key))
        });
    }

    /// Gives the key NULL, which is not found by its bytes, to an id that has none.
    pub(super) fn insert_null(&mut self, id: GroupId) {
        self.set(id, Key::default(), key_group(&[]));
    }

    fn set(&mut self, id: GroupId, key: Key, key_group: u8) {
        let index = id as usize;
        if index == self.keys.len() {
            self.keys.push(key);
            self.key_groups.push(key_group);
        } else {
            self.keys[index] = key;
            self.key_groups[index] = key_group;
        }
    }

    /// Another id has the key from now on; it has none yet.
    pub(super) fn rename(&mut self, from: GroupId, to: GroupId) {
        let key = std::mem::take(&mut self.keys[from as usize]);
        let hash = Self::hash(&self.hasher, key, Self::bytes_of(&self.long, &key));
        if let Some(id) = self.table.find_mut(hash, |id| *id == from) {
            *id = to;
        }
        self.set(to, key, self.key_groups[from as usize]);
    }

    /// Takes the key from an id.
    pub(super) fn remove(&mut self, id: GroupId) {
        let key = std::mem::take(&mut self.keys[id as usize]);
        let bytes = Self::bytes_of(&self.long, &key);
        if bytes.len() > SHORT_MAX {
            self.dead += bytes.len();
        }
        let hash = Self::hash(&self.hasher, key, bytes);
        if let Ok(entry) = self.table.find_entry(hash, |known| *known == id) {
            entry.remove();
        }
    }

    /// Gives memory back that keys which are gone have left, if it is worth it.
    pub(super) fn tidy(&mut self) {
        if self.dead >= DEAD_BYTES_MIN && self.dead > self.long.len() / 2 {
            self.compact();
        }
        let (len, capacity) = (self.table.len(), self.table.capacity());
        if capacity > TABLE_MIN && len < capacity / 8 {
            let (hasher, keys, long) = (&self.hasher, &self.keys, &self.long);
            self.table.shrink_to(2 * len, |id| {
                let key = keys[*id as usize];
                Self::hash(hasher, key, Self::bytes_of(long, &key))
            });
        }
    }

    /// Moves long keys together.
    fn compact(&mut self) {
        let mut long = Vec::with_capacity(self.long.len() - self.dead);
        for key in self.keys.iter_mut().filter(|key| key.len() > SHORT_MAX) {
            let moved = long.len() as u128;
            long.extend_from_slice(Self::bytes_of(&self.long, key));
            *key = Key((u128::from(key.look()) << 64 | moved).to_le_bytes());
        }
        (self.long, self.dead) = (long, 0);
    }

    /// Gives back the places of ids from `len` on, which have no keys.
    pub(super) fn truncate(&mut self, len: usize) {
        self.keys.truncate(len);
        self.keys.shrink_to(len);
        self.key_groups.truncate(len);
        self.key_groups.shrink_to(len);
    }
}
