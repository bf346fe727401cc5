//! `${VAR}`, `${VAR:-default}` and `${file:/path}` in parsed string values, never in raw text: a value can neither add
//! keys nor move the places that faults point at. `$${` is `${` itself; every other dollar sign stands for itself, as paths
//! (`$.env`) are full of them.

use crate::component::{Fault, Name, Node, Value};
use crate::pipeline::Variables;

/// The largest file that `${file:…}` takes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Expands every string below.
pub(crate) fn expand(entries: &mut [(Name, Node)], variables: Variables<'_>, faults: &mut Vec<Fault>) {
    entries.iter_mut().for_each(|(_, node)| expand_node(node, variables, faults));
}

fn expand_node(node: &mut Node, variables: Variables<'_>, faults: &mut Vec<Fault>) {
    match &mut node.value {
        Value::String(text) if text.contains('$') => match expand_text(text, variables) {
            Ok(expanded) => {
                *text = expanded;
                node.expanded = true;
            }
            Err(why) => faults.push(Fault::new(node.at.clone(), why)),
        },
        Value::Array(nodes) => nodes.iter_mut().for_each(|node| expand_node(node, variables, faults)),
        Value::Table(entries) => expand(entries, variables, faults),
        _ => (),
    }
}

fn expand_text(text: &str, variables: Variables<'_>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$${") {
            expanded.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let end = after
                .find('}')
                .ok_or_else(|| format!("`{rest}`: `${{` without `}}`; write `$${{` for `${{` itself"))?;
            expanded.push_str(&value(&after[..end], variables)?);
            rest = &after[end + 1..];
        } else {
            expanded.push('$');
            rest = &rest[1..];
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn value(inside: &str, variables: Variables<'_>) -> Result<String, String> {
    if let Some(path) = inside.strip_prefix("file:") {
        return file(path);
    }
    let (name, default) = inside.split_once(":-").map_or((inside, None), |(name, default)| (name, Some(default)));
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(plain) {
        return Err(format!("`${{{inside}}}`: expected `${{NAME}}`, `${{NAME:-default}}` or `${{file:/path}}`"));
    }
    // As in a shell, `:-` also stands in for a variable that is empty.
    let found = variables(name).filter(|value| default.is_none() || !value.is_empty());
    let missing = || format!("the variable `{name}` is not set; set it, or write `${{{name}:-default}}`");
    found.or_else(|| default.map(str::to_owned)).ok_or_else(missing)
}

fn file(path: &str) -> Result<String, String> {
    let wrong = |why: String| format!("`${{file:{path}}}`: {why}");
    let len = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if len > FILE_BYTES_MAX {
        return Err(wrong(format!("it has {len} bytes, more than {FILE_BYTES_MAX}")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    // Editors end files with a line break; secrets do not have one.
    Ok(text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text)).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, String> {
        expand_text(text, &|name| match name {
            "USER" => Some("ada".to_owned()),
            "EMPTY" => Some(String::new()),
            "EVIL" => Some("x\"]\ntype = \"${USER}".to_owned()),
            _ => None,
        })
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
            assert_eq!(expanded(text).as_deref(), Ok(result), "{text}");
        }
        for wrong in ["${NONE}", "${USER", "${}", "${a b}", "${file:/no/such/file}"] {
            assert!(expanded(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_lose_their_last_line_break() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "top\nsecret\r\n").unwrap();
        assert_eq!(expanded(&format!("${{file:{}}}", path.display())).as_deref(), Ok("top\nsecret"));
    }
}
