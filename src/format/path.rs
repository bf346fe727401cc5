//! Paths into a payload: `$.env.hum`, `$.readings[0].t`, `$['a.b']`, `hum` (which is `$.hum`), `$` (all of it).
//!
//! Where a source explodes payloads (`rows = "$.readings[*]"`), `$` is the row and `$$` the whole document, so that
//! `$$.device` is shared by all rows of a payload. Without `rows` both are the document.

use std::fmt;

/// A path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Begins with `$$`.
    pub document: bool,
    /// The way down.
    pub steps: Vec<Step>,
}

/// One step down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into an object.
    Field(String),
    /// Into an array, counted from 0.
    Item(usize),
}

impl Path {
    /// The field of a name, whatever is in that name.
    pub fn field(name: &str) -> Self {
        Self { document: false, steps: vec![Step::Field(name.to_owned())] }
    }

    /// Reads a path to one value.
    pub fn parse(text: &str) -> Result<Self, String> {
        match parse(text)? {
            (path, false) => Ok(path),
            _ => Err(format!("path `{text}`: `[*]` stands only in `rows`")),
        }
    }

    /// Reads the path of `rows`: it ends in `[*]`, and is the way to the array.
    pub fn parse_rows(text: &str) -> Result<Self, String> {
        match parse(text)? {
            (path, true) => Ok(path),
            _ => Err(format!("rows `{text}`: expected a path that ends in `[*]`, like `$.readings[*]`")),
        }
    }
}

/// A path, and whether it ends in `[*]`.
fn parse(text: &str) -> Result<(Path, bool), String> {
    let wrong = |rest: &str, why: &str| format!("path `{text}`: {why} at byte {}", text.len() - rest.len());
    let document = text.starts_with("$$");
    let mut path = Path { document, steps: Vec::new() };
    let mut rest = text.strip_prefix("$$").unwrap_or(text);
    let bare = !document && !rest.starts_with('$');
    if bare {
        rest = name(text, &mut path).map_err(|why| wrong(text, why))?;
    } else if !document {
        rest = &rest[1..];
    }
    while !rest.is_empty() {
        if rest == "[*]" {
            return Ok((path, true));
        }
        let step = if let Some(after) = rest.strip_prefix('.') {
            name(after, &mut path)
        } else if let Some(after) = rest.strip_prefix('[') {
            bracket(after, &mut path)
        } else {
            Err("expected `.name`, `[0]` or `['name']`")
        };
        rest = step.map_err(|why| wrong(rest, why))?;
    }
    Ok((path, false))
}

/// Takes `name`, and gives what follows it.
fn name<'t>(text: &'t str, path: &mut Path) -> Result<&'t str, &'static str> {
    let end = text.find(['.', '[', ']', '\'', '"', '$', '*', ' ']).unwrap_or(text.len());
    if end == 0 {
        return Err("expected a name (one with other signs is written `['a.b']`)");
    }
    path.steps.push(Step::Field(text[..end].to_owned()));
    Ok(&text[end..])
}

/// Takes `0]` or `'name']`, and gives what follows it.
fn bracket<'t>(text: &'t str, path: &mut Path) -> Result<&'t str, &'static str> {
    if let Some(quote) = text.chars().next().filter(|sign| matches!(sign, '\'' | '"')) {
        let (name, after) = text[1..].split_once(quote).ok_or("the quote is not closed")?;
        path.steps.push(Step::Field(name.to_owned()));
        return after.strip_prefix(']').ok_or("expected `]` after the name");
    }
    let (number, after) = text.split_once(']').ok_or("the bracket is not closed")?;
    if number == "*" {
        return Err("`[*]` stands only at the end");
    }
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("expected a whole number or a quoted name in the brackets");
    }
    path.steps.push(Step::Item(number.parse().map_err(|_| "expected an index")?));
    Ok(after)
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.document { "$$" } else { "$" })?;
        for step in &self.steps {
            match step {
                Step::Item(index) => write!(f, "[{index}]")?,
                Step::Field(name) if name.contains(['.', '[', ']', '\'', '"', '$', '*', ' ']) => {
                    write!(f, "['{name}']")?;
                }
                Step::Field(name) => write!(f, ".{name}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read() {
        let cases = [
            ("$.env.hum", "$.env.hum"),
            ("$.readings[0].t", "$.readings[0].t"),
            ("$['a.b']", "$['a.b']"),
            ("$[\"x\"]", "$.x"),
            ("hum", "$.hum"),
            ("env.hum", "$.env.hum"),
            ("$", "$"),
            ("$$.device", "$$.device"),
        ];
        for (text, expected) in cases {
            assert_eq!(Path::parse(text).map(|path| path.to_string()).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(Path::parse_rows("$[*]").unwrap().steps, []);
        assert_eq!(Path::parse_rows("$.a[*]").unwrap(), Path::field("a"));
    }

    #[test]
    fn wrong_paths_say_why() {
        for text in
            ["", "$.", "$..a", "$.a[", "$.a[x]", "$.a[]", "$['a]", "$['a'", "$.a[*]", "$.a[*].b", "$a", "$$$", "a b"]
        {
            assert!(Path::parse(text).is_err(), "{text}");
        }
        assert!(Path::parse_rows("$.a").is_err());
        assert!(Path::parse_rows("$.a[*].b[*]").is_err());
    }
}
