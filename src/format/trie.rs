//! The declared paths of a source's columns, merged: what a value of a document is for, whatever format it is written in.

use crate::component::Fault;
use crate::format::columns::{Columns, From};
use crate::format::path::{Path, RowsOf, RowsPath, Step};

/// The declared paths, merged.
#[derive(Clone, Debug)]
pub struct Trie {
    /// Node [`DOCUMENT`] is the document, node [`ROW`] the row of a payload with `rows`.
    pub nodes: Vec<Node>,
    /// Columns that have a value of their own in every row.
    pub per_row: Vec<usize>,
    /// Columns with one value for all rows of a payload.
    pub shared: Vec<usize>,
    /// Columns that hold the key of the row.
    pub keys: Vec<usize>,
    /// How a payload becomes rows.
    pub shape: Shape,
}

/// How a payload becomes rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// It is one.
    One,
    /// Items of an array, or members of a map.
    Rows,
    /// A row for each item of parallel arrays.
    Parallel,
}

/// The document.
pub const DOCUMENT: usize = 0;
/// The row of a payload with `rows`.
pub const ROW: usize = 1;

/// What a value is for.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Where its fields lead.
    pub fields: Vec<(String, usize)>,
    /// Where its items lead.
    pub items: Vec<(usize, usize)>,
    /// The columns whose value it is.
    pub columns: Vec<usize>,
    /// The columns whose values its items are.
    pub each: Vec<usize>,
    /// It holds the rows.
    pub rows: Option<RowsOf>,
}

impl Node {
    /// Whether paths lead through it.
    pub fn is_way(&self) -> bool {
        !self.fields.is_empty() || !self.items.is_empty()
    }

    /// Where the field of this name leads.
    pub fn field(&self, name: &[u8]) -> Option<usize> {
        self.fields.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, next)| *next)
    }

    /// Where the item of this index leads.
    pub fn item(&self, index: usize) -> Option<usize> {
        self.items.iter().find(|(known, _)| *known == index).map(|(_, next)| *next)
    }
}

impl Trie {
    /// The paths of `columns`.
    pub fn new(rows: Option<&RowsPath>, columns: &Columns) -> Self {
        let paths = || columns.columns.iter().enumerate().filter_map(payload_path);
        let shape = match rows {
            Some(_) => Shape::Rows,
            None if paths().any(|(_, path)| path.each().is_some()) => Shape::Parallel,
            None => Shape::One,
        };
        let mut trie = Self {
            nodes: vec![Node::default(), Node::default()],
            per_row: Vec::new(),
            shared: Vec::new(),
            keys: Vec::new(),
            shape,
        };
        paths().for_each(|(column, path)| trie.add(column, path));
        if let Some(rows) = rows {
            let node = trie.insert(DOCUMENT, &rows.path.steps);
            trie.nodes[node].rows = Some(rows.of);
        }
        trie
    }

    fn add(&mut self, column: usize, path: &Path) {
        if path.is_key() {
            self.keys.push(column);
            return;
        }
        let own = match self.shape {
            Shape::One => true,
            Shape::Rows => !path.document,
            Shape::Parallel => path.each().is_some(),
        };
        if own {
            self.per_row.push(column)
        } else {
            self.shared.push(column)
        }
        let root = if own && self.shape == Shape::Rows { ROW } else { DOCUMENT };
        let node = self.insert(root, path.each().unwrap_or(&path.steps));
        let node = &mut self.nodes[node];
        if path.each().is_some() { node.each.push(column) } else { node.columns.push(column) }
    }

    fn insert(&mut self, root: usize, steps: &[Step]) -> usize {
        steps.iter().fold(root, |node, step| {
            let (new, here) = (self.nodes.len(), &mut self.nodes[node]);
            match step {
                Step::Field(name) => {
                    if let Some(known) = here.field(name.as_bytes()) {
                        return known;
                    }
                    here.fields.push((name.clone(), new));
                }
                Step::Item(index) => {
                    if let Some(known) = here.item(*index) {
                        return known;
                    }
                    here.items.push((*index, new));
                }
                // Both end a path, and lead nowhere.
                Step::Each | Step::Key => return node,
            }
            self.nodes.push(Node::default());
            new
        })
    }

    /// What is wrong with these paths, whatever the format.
    pub fn faults(&self, columns: &Columns) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |column: usize, why: &str| {
            let name = &columns.columns[column].name;
            faults.push(name.fault(format!("column `{}`: {why}", name.text)));
        };
        let members = self.nodes.iter().any(|node| node.rows == Some(RowsOf::Members));
        for key in self.keys.iter().filter(|_| !members) {
            fault(*key, "only the members of a map have a key: `rows` has to end in `.*`, like `$.values.*`");
        }
        for node in &self.nodes {
            if let (Some(column), Shape::Rows) = (node.each.first(), self.shape) {
                fault(*column, "parallel arrays (`[*]` in a path) do not go with `rows`");
            }
            let other = node.is_way() || node.rows.is_some() || !node.each.is_empty();
            if let (Some(column), true) = (node.columns.first(), other) {
                fault(*column, "another path leads through its value");
            } else if let (Some(column), true) = (node.each.first(), node.is_way()) {
                fault(*column, "another path leads through its values");
            } else if node.rows.is_some() && node.is_way() {
                let at = columns.columns.first().map_or(0..0, |column| column.name.at.clone());
                faults.push(Fault::new(at, "a path of `$$` leads into the rows of `rows`"));
                return faults;
            }
        }
        faults
    }
}

fn payload_path((index, column): (usize, &crate::format::columns::Column)) -> Option<(usize, &Path)> {
    match &column.from {
        From::Payload(path) => Some((index, path)),
        _ => None,
    }
}
