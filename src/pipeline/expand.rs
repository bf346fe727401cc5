//! `${VAR}`, `${VAR:-default}` and `${file:/path}` in parsed string values, never in raw text: a value can neither add
//! keys nor move the places that faults point at. `$${` is `${` itself; every other dollar sign stands for itself, as paths
//! (`$.env`) are full of them.

use std::ops::Range;
use std::path::Path;

use crate::component::{Fault, Name, Node, Value};
use crate::pipeline::Variables;

/// What is to be known after expanding.
#[derive(Debug, Default)]
pub(crate) struct Expanded {
    /// What came from files, so that no fault shows it.
    pub(crate) from_files: Vec<String>,
    /// The strings that could not be expanded: what else is wrong with them is no wonder.
    pub(crate) failed: Vec<Range<usize>>,
}

/// Expands every string below.
pub(crate) fn expand(entries: &mut [(Name, Node)], variables: Variables<'_>, faults: &mut Vec<Fault>) -> Expanded {
    let mut expander = Expander { variables, faults, expanded: Expanded::default() };
    expander.table(entries);
    expander.expanded
}

struct Expander<'a> {
    variables: Variables<'a>,
    faults: &'a mut Vec<Fault>,
    expanded: Expanded,
}

/// Why a string cannot be expanded: which bytes of it, and what is wrong with them.
type Wrong = (Range<usize>, String);

impl Expander<'_> {
    fn table(&mut self, entries: &mut [(Name, Node)]) {
        entries.iter_mut().for_each(|(_, node)| self.node(node));
    }

    fn node(&mut self, node: &mut Node) {
        match &mut node.value {
            Value::String(text) if text.contains("${") => match self.text(text) {
                Ok(expanded) => {
                    *text = expanded;
                    node.expanded = true;
                }
                Err((within, why)) => {
                    let written = Name { text: text.clone(), at: node.at.clone(), expanded: false };
                    self.faults.push(written.fault_within(within, why));
                    self.expanded.failed.push(node.at.clone());
                }
            },
            Value::Array(nodes) => nodes.iter_mut().for_each(|node| self.node(node)),
            Value::Table(entries) => self.table(entries),
            _ => (),
        }
    }

    fn text(&mut self, text: &str) -> Result<String, Wrong> {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            expanded.push_str(&rest[..at]);
            rest = &rest[at..];
            let start = text.len() - rest.len();
            if let Some(after) = rest.strip_prefix("$${") {
                expanded.push_str("${");
                rest = after;
            } else if let Some(after) = rest.strip_prefix("${") {
                let open =
                    || (start..text.len(), format!("`{rest}`: `${{` without `}}`; write `$${{` for `${{` itself"));
                let end = after.find('}').ok_or_else(open)?;
                let value = self.value(&after[..end]).map_err(|why| (start..start + end + 3, why))?;
                expanded.push_str(&value);
                rest = &after[end + 1..];
            } else {
                expanded.push('$');
                rest = &rest[1..];
            }
        }
        expanded.push_str(rest);
        Ok(expanded)
    }

    /// What stands in place of `${inside}`.
    fn value(&mut self, inside: &str) -> Result<String, String> {
        if let Some(path) = inside.strip_prefix("file:") {
            let text = super::text_of(Path::new(path)).map_err(|why| format!("`${{{inside}}}`: {why}"))?;
            // Editors end files with a line break; secrets do not have one.
            let text = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
            self.expanded.from_files.push(text.to_owned());
            return Ok(text.to_owned());
        }
        let (name, default) = inside.split_once(":-").map_or((inside, None), |(name, default)| (name, Some(default)));
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(format!("`${{{inside}}}`: expected `${{NAME}}`, `${{NAME:-default}}` or `${{file:/path}}`"));
        }
        if default.is_some_and(|default| default.contains("${")) {
            return Err(format!("`${{{inside}}}`: a default is taken as it stands, so there may be no `${{` in it"));
        }
        // As in a shell, `:-` also stands in for a variable that is empty.
        let found = (self.variables)(name).filter(|value| default.is_none() || !value.is_empty());
        let missing = || format!("the variable `{name}` is not set; set it, or write `${{{name}:-default}}`");
        found.or_else(|| default.map(str::to_owned)).ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, Fault> {
        let mut faults = Vec::new();
        let value = Node { at: 100..102 + text.len(), value: Value::String(text.to_owned()), expanded: false };
        let name = Name { text: "key".to_owned(), at: 0..3, expanded: false };
        let mut entries = [(name, value)];
        expand(&mut entries, &variable, &mut faults);
        let [(_, Node { value: Value::String(text), .. })] = entries else { panic!("it was a string") };
        faults.pop().map_or(Ok(text), Err)
    }

    fn variable(name: &str) -> Option<String> {
        match name {
            "USER" => Some("ada".to_owned()),
            "EMPTY" => Some(String::new()),
            "EVIL" => Some("x\"]\ntype = \"${USER}".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_expanded_once() {
        for (text, result) in [
            ("mqtt://${USER}@h", "mqtt://ada@h"),
            ("${NONE:-a:-b}", "a:-b"),
            ("${NONE:-}", ""),
            ("${EMPTY:-full}|${EMPTY}|", "full||"),
            ("$.env.hum", "$.env.hum"),
            ("$$.time ${USER}$", "$$.time ada$"),
            ("$${USER}", "${USER}"),
            ("${EVIL}", "x\"]\ntype = \"${USER}"),
        ] {
            assert_eq!(expanded(text).as_deref().ok(), Some(result), "{text}");
        }
        for wrong in ["${NONE}", "${USER", "${}", "${a b}", "${file:/no/such/file}", "${A:-${USER}}"] {
            assert!(expanded(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_lose_their_last_line_break() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "top\nsecret\r\n").unwrap();
        assert_eq!(expanded(&format!("${{file:{}}}", path.display())).as_deref().ok(), Some("top\nsecret"));
    }

    #[test]
    fn a_fault_points_at_its_part_of_the_string() {
        assert_eq!(expanded("mqtt://${NONE}:1883").unwrap_err().at, 108..115);
        assert_eq!(expanded("ü${A").unwrap_err().at, 103..106);
    }

    #[test]
    fn what_came_from_files_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "hunter2\n").unwrap();
        let value = Value::String(format!("a ${{file:{}}} ${{USER}}", path.display()));
        let name = Name { text: "key".to_owned(), at: 0..3, expanded: false };
        let mut entries = [(name, Node { at: 0..0, value, expanded: false })];
        assert_eq!(expand(&mut entries, &variable, &mut Vec::new()).from_files, ["hunter2"]);
        assert_eq!(entries[0].1.value, Value::String("a hunter2 ada".to_owned()));
    }
}
