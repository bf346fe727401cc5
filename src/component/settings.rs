//! A table, read key by key.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use crate::component::{Fault, Name, Node, Setting, Value};

/// A component's table, and the faults found in it so far.
///
/// Every getter takes its key out; what is left when [`Settings::finish`] is called is unknown.
#[derive(Debug)]
pub struct Settings {
    /// The table's own place: its header, or its braces.
    pub at: Range<usize>,
    entries: Vec<(Name, Node)>,
    /// Keys that were asked for, for "did you mean".
    known: Vec<&'static str>,
    faults: Rc<RefCell<Vec<Fault>>>,
}

impl Settings {
    /// Of a table.
    pub fn new(at: Range<usize>, entries: Vec<(Name, Node)>, faults: Rc<RefCell<Vec<Fault>>>) -> Self {
        Self { at, entries, known: Vec::new(), faults }
    }

    /// Of text, for tests of components.
    #[cfg(test)]
    pub(crate) fn of(text: &str) -> (Self, Rc<RefCell<Vec<Fault>>>) {
        let faults = Rc::new(RefCell::new(Vec::new()));
        let entries = crate::pipeline::file::entries_for_tests(text);
        (Self::new(0..text.len(), entries, faults.clone()), faults)
    }

    /// Notes a fault.
    pub fn fault(&self, fault: Fault) {
        self.faults.borrow_mut().push(fault);
    }

    /// Takes a value out as it stands.
    pub fn take(&mut self, key: &'static str) -> Option<(Name, Node)> {
        self.known.push(key);
        let index = self.entries.iter().position(|(name, _)| name.text == key)?;
        Some(self.entries.remove(index))
    }

    /// A setting that may be left out. `None` also where it is at fault.
    pub fn optional<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        let (_, node) = self.take(key)?;
        match T::read(&node) {
            Ok(value) => Some(value),
            Err(why) => {
                let why = why.unwrap_or_else(|| format!("expected {}, got {}", T::EXPECTED, node.value.type_name()));
                self.fault(Fault::new(node.at, format!("`{key}`: {why}")));
                None
            }
        }
    }

    /// A setting with a default.
    pub fn or<T: Setting>(&mut self, key: &'static str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// How many of something, from 1 to `most`; `None` also where it is left out.
    pub fn up_to(&mut self, key: &'static str, most: usize) -> Option<usize> {
        let at = self.entries.iter().find(|(name, _)| name.text == key).map(|(_, node)| node.at.clone());
        let count = self.optional(key)?;
        if count > most {
            let what = format!("`{key}`: expected 1 to {most}, got {count}");
            self.fault(Fault::new(at.unwrap_or_default(), what));
            return None;
        }
        Some(count)
    }

    /// A setting that must be there.
    pub fn required<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        if !self.has(key) {
            self.known.push(key);
            self.fault(Fault::new(self.at.clone(), format!("`{key}` is missing: expected {}", T::EXPECTED)));
            return None;
        }
        self.optional(key)
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&'static str, T)], default: T) -> T {
        let Some(word) = self.optional::<Name>(key) else { return default };
        let found = choices.iter().find(|(name, _)| *name == word.text);
        found.map_or_else(
            || {
                let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                let what = format!("`{key}`: expected {}, got \"{}\"", names.join(" or "), word.text);
                self.fault(word.fault(what).nearest(&word.text, choices.iter().map(|(name, _)| *name)));
                default
            },
            |(_, value)| *value,
        )
    }

    /// A table within the table; shares the faults. Its unknown keys are noted when it is finished.
    pub fn table(&mut self, key: &'static str) -> Option<Settings> {
        let (_, node) = self.take(key)?;
        self.as_table(key, node)
    }

    /// A value as a table; noted as a fault where it is none.
    pub fn as_table(&self, key: &str, node: Node) -> Option<Settings> {
        match node.value {
            Value::Table(entries) => Some(Settings::new(node.at, entries, self.faults.clone())),
            other => {
                self.fault(Fault::new(node.at, format!("`{key}`: expected a table, got {}", other.type_name())));
                None
            }
        }
    }

    /// Takes out everything that is left: of tables whose keys are the user's names.
    pub fn rest(&mut self) -> Vec<(Name, Node)> {
        std::mem::take(&mut self.entries)
    }

    /// Whether a key is there (and was not taken).
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _)| name.text == key)
    }

    /// How many faults have been found so far, in this table and those that share its faults.
    pub fn faults_len(&self) -> usize {
        self.faults.borrow().len()
    }

    /// Notes every key that nobody asked for.
    pub fn finish(&mut self) {
        for (name, _) in std::mem::take(&mut self.entries) {
            let mut known = self.known.clone();
            known.sort_unstable();
            known.dedup();
            let mut fault =
                name.fault(format!("unknown key `{}`", name.text)).nearest(&name.text, known.iter().copied());
            if fault.help.is_none() {
                fault.help = Some(format!("known here: {}", known.join(", ")));
            }
            self.fault(fault);
        }
    }
}
