//! The declared paths of a source's columns, merged: what a value of a document is for.

use crate::format::columns::{Column, Columns, From};
use crate::format::path::{Path, Step};

pub(super) fn payload_columns(columns: &Columns) -> impl Iterator<Item = usize> {
    let payload = |(index, column): (usize, &Column)| matches!(column.from, From::Payload(_)).then_some(index);
    columns.columns.iter().enumerate().filter_map(payload)
}

/// The declared paths, merged. Node 0 is the document, node 1 the row of an exploded payload.
#[derive(Debug)]
pub(super) struct Trie {
    pub(super) nodes: Vec<TrieNode>,
}

pub(super) const DOCUMENT: usize = 0;
pub(super) const ROW: usize = 1;

#[derive(Debug, Default)]
pub(super) struct TrieNode {
    pub(super) fields: Vec<(String, usize)>,
    pub(super) items: Vec<(usize, usize)>,
    pub(super) columns: Vec<usize>,
    pub(super) rows: bool,
}

impl Trie {
    /// The paths of `columns`, and which of these have a value in every row (the others are shared).
    pub(super) fn new(rows: Option<&Path>, columns: &Columns) -> (Self, Vec<usize>) {
        let mut trie = Self { nodes: vec![TrieNode::default(), TrieNode::default()] };
        let mut per_row = Vec::new();
        for (index, column) in columns.columns.iter().enumerate() {
            let From::Payload(path) = &column.from else { continue };
            let shared = rows.is_some() && path.document;
            let root = if rows.is_some() && !shared { ROW } else { DOCUMENT };
            let node = trie.insert(root, &path.steps);
            trie.nodes[node].columns.push(index);
            if !shared {
                per_row.push(index);
            }
        }
        if let Some(rows) = rows {
            let node = trie.insert(DOCUMENT, &rows.steps);
            trie.nodes[node].rows = true;
        }
        (trie, per_row)
    }

    fn insert(&mut self, root: usize, steps: &[Step]) -> usize {
        steps.iter().fold(root, |node, step| {
            let (new, here) = (self.nodes.len(), &self.nodes[node]);
            let known = match step {
                Step::Field(name) => here.fields.iter().find(|(known, _)| known == name).map(|(_, next)| *next),
                Step::Item(index) => here.items.iter().find(|(known, _)| known == index).map(|(_, next)| *next),
            };
            known.unwrap_or_else(|| {
                let here = &mut self.nodes[node];
                match step {
                    Step::Field(name) => here.fields.push((name.clone(), new)),
                    Step::Item(index) => here.items.push((*index, new)),
                }
                self.nodes.push(TrieNode::default());
                new
            })
        })
    }
}
