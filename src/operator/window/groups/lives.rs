//! Which ids there are: of groups that something holds, of groups that are remembered though nothing does, and of none.
//!
//! Groups that are remembered are in a list, the longest silent first; to join it and to leave it takes no search. Of
//! the ids that are free the least is given first, so that after a flood of groups those at the end fall free.

use crate::operator::aggregate::GroupId;

/// No group.
const NONE: GroupId = GroupId::MAX;

/// With how many ids it is worth giving some back.
const IDS_MIN: usize = 1 << 10;

/// What is known of an id.
#[derive(Clone, Copy)]
struct Life {
    /// How many windows hold the group; of one that is remembered, the one before it in the list.
    holders: u32,
    /// Of one that is remembered: the one after it in the list.
    after: GroupId,
    /// Of one that is remembered: event time when it fell silent.
    since: i64,
}

/// All ids.
pub(super) struct Lives {
    /// By id: odd while the group counts, because something holds it, or because it has a row in the batch at hand.
    /// Never the same number again once the group is forgotten.
    stamps: Vec<u32>,
    lives: Vec<Life>,
    /// A bit an id that is free.
    free: Vec<u64>,
    free_len: usize,
    /// No word of `free` before this one has a bit.
    free_from: usize,
    counted: usize,
    remembered: usize,
    /// The ends of the list.
    oldest: GroupId,
    newest: GroupId,
}

impl Default for Lives {
    fn default() -> Self {
        Self {
            stamps: Vec::new(),
            lives: Vec::new(),
            free: Vec::new(),
            free_len: 0,
            free_from: 0,
            counted: 0,
            remembered: 0,
            oldest: NONE,
            newest: NONE,
        }
    }
}

impl Lives {
    /// One past the greatest id.
    pub(super) fn ids_len(&self) -> usize {
        self.stamps.len()
    }

    /// How many groups count.
    pub(super) fn counted(&self) -> usize {
        self.counted
    }

    /// How many groups there are, with those that are remembered.
    pub(super) fn known(&self) -> usize {
        self.counted + self.remembered
    }

    /// The stamps by id: odd while a group counts.
    pub(super) fn stamps(&self) -> &[u32] {
        &self.stamps
    }

    /// Whether a group counts.
    pub(super) fn counts(&self, id: GroupId) -> bool {
        self.stamps[id as usize] & 1 == 1
    }

    /// How many windows hold a group.
    pub(super) fn holders(&self, id: GroupId) -> u32 {
        if self.counts(id) { self.lives[id as usize].holders } else { 0 }
    }

    /// An id for a group that counts, and that nothing holds yet.
    pub(super) fn begin(&mut self) -> GroupId {
        self.counted += 1;
        let life = Life { holders: 0, after: NONE, since: 0 };
        if let Some(id) = self.least_free() {
            let index = id as usize;
            self.free[index / 64] &= !(1 << (index % 64));
            self.free_len -= 1;
            self.stamps[index] |= 1;
            self.lives[index] = life;
            return id;
        }
        if self.stamps.len().is_multiple_of(64) {
            self.free.push(0);
        }
        self.stamps.push(1);
        self.lives.push(life);
        GroupId::try_from(self.stamps.len() - 1).expect("the bound of groups fits")
    }

    fn least_free(&mut self) -> Option<GroupId> {
        if self.free_len == 0 {
            return None;
        }
        let word = self.free[self.free_from..].iter().position(|word| *word != 0)?;
        self.free_from += word;
        let id = self.free_from * 64 + self.free[self.free_from].trailing_zeros() as usize;
        Some(GroupId::try_from(id).expect("the bound of groups fits"))
    }

    /// One more window holds a group that counts.
    pub(super) fn hold(&mut self, id: GroupId) {
        debug_assert!(self.counts(id), "a group has an id while it has rows or windows");
        self.lives[id as usize].holders += 1;
    }

    /// One less; gives how many are left.
    pub(super) fn release(&mut self, id: GroupId) -> u32 {
        let holders = &mut self.lives[id as usize].holders;
        *holders -= 1;
        *holders
    }

    /// A group that nothing holds does not count any more, but is remembered.
    pub(super) fn fall_silent(&mut self, id: GroupId, since: i64) {
        self.stamps[id as usize] &= !1;
        self.counted -= 1;
        self.remembered += 1;
        self.lives[id as usize] = Life { holders: self.newest, after: NONE, since };
        match self.newest {
            NONE => self.oldest = id,
            before => self.lives[before as usize].after = id,
        }
        self.newest = id;
    }

    /// A group that is remembered counts again.
    pub(super) fn wake(&mut self, id: GroupId) {
        self.leave(id);
        self.counted += 1;
        self.stamps[id as usize] |= 1;
        self.lives[id as usize].holders = 0;
    }

    /// A group that is remembered is so no more.
    pub(super) fn forget(&mut self, id: GroupId) {
        self.leave(id);
        let index = id as usize;
        self.stamps[index] = self.stamps[index].wrapping_add(2);
        self.free[index / 64] |= 1 << (index % 64);
        self.free_len += 1;
        self.free_from = self.free_from.min(index / 64);
    }

    fn leave(&mut self, id: GroupId) {
        let Life { holders: before, after, .. } = self.lives[id as usize];
        match before {
            NONE => self.oldest = after,
            before => self.lives[before as usize].after = after,
        }
        match after {
            NONE => self.newest = before,
            after => self.lives[after as usize].holders = before,
        }
        self.remembered -= 1;
    }

    /// The group that has been silent the longest, and since when.
    pub(super) fn longest_silent(&self) -> Option<(GroupId, i64)> {
        (self.oldest != NONE).then(|| (self.oldest, self.lives[self.oldest as usize].since))
    }

    /// Most ids are free.
    fn is_sparse(&self) -> bool {
        self.ids_len() > IDS_MIN && self.free_len > self.ids_len() / 4 * 3
    }

    /// Whether a group would better have another id, so that its own can be given back: there is a lesser one then.
    pub(super) fn is_in_the_way(&self, id: GroupId) -> bool {
        self.is_sparse() && id as usize >= 2 * self.known()
    }

    /// How many ids are enough, if that is less than half of them.
    pub(super) fn enough(&self) -> Option<usize> {
        if !self.is_sparse() {
            return None;
        }
        let half = self.ids_len().div_ceil(64) / 2;
        let is_free = |word: usize| {
            let beyond = (64 * (word + 1)).saturating_sub(self.ids_len());
            self.free[word].count_ones() as usize + beyond == 64
        };
        let used = (half..self.free.len()).rev().find(|word| !is_free(*word));
        if used.is_some() {
            return None;
        }
        let last = (0..half).rev().find(|word| !is_free(*word));
        Some(last.map_or(0, |word| 64 * (word + 1)))
    }

    /// Gives back the ids from `len` on, all of which are free. Their stamps may come again.
    pub(super) fn truncate(&mut self, len: usize) {
        self.free_len -= self.ids_len() - len;
        self.stamps.truncate(len);
        self.stamps.shrink_to(len);
        self.lives.truncate(len);
        self.lives.shrink_to(len);
        self.free.truncate(len.div_ceil(64));
        self.free.shrink_to(len.div_ceil(64));
        self.free_from = self.free_from.min(self.free.len());
    }
}
