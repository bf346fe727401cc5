//! Paths into a payload: `$.env.hum`, `$.readings[0].t`, `$['a.b']`, `hum` (which is `$.hum`), `$` (all of it).
//!
//! Where a source explodes payloads (`rows = "$.readings[*]"`), `$` is the row and `$$` the whole document, so that
//! `$$.device` is shared by all rows of a payload. Without `rows` both are the document.
//!
//! `rows = "$.values.*"` has a row for each member of a map (an unpivot): `$` is the member's value, and `$key` its key.
//!
//! `$.temp[*]`, in a payload without `rows`, is an array of a column's values, one a row: parallel arrays. Paths without
//! `[*]` are shared by the rows, then.

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
    /// To every item of an array, one a row. The last step of a column's path.
    Each,
    /// To the key of the member that is the row. The only step.
    Key,
}

/// Where the rows of a payload are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowsPath {
    /// The way to the array or map.
    pub path: Path,
    /// What of it they are.
    pub of: RowsOf,
}

/// What the rows of a payload are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsOf {
    /// The items of an array.
    Items,
    /// The members of a map.
    Members,
}

/// What is behind the last step.
enum End {
    Value,
    Items,
    Members,
}

impl Path {
    /// The field of a name, whatever is in that name.
    pub fn field(name: &str) -> Self {
        Self { document: false, steps: vec![Step::Field(name.to_owned())] }
    }

    /// Reads the path of a column.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "$key" {
            return Ok(Self { document: false, steps: vec![Step::Key] });
        }
        let (mut path, end) = parse(text)?;
        match end {
            End::Value => (),
            End::Items => path.steps.push(Step::Each),
            End::Members => return Err(format!("path `{text}`: `.*` stands only in `rows`")),
        }
        Ok(path)
    }

    /// The way to an array whose items are the values of rows, if this is a path to them.
    pub fn each(&self) -> Option<&[Step]> {
        match &self.steps[..] {
            [way @ .., Step::Each] => Some(way),
            _ => None,
        }
    }

    /// Whether it is the key of a row.
    pub fn is_key(&self) -> bool {
        self.steps == [Step::Key]
    }
}

impl RowsPath {
    /// Reads the path of `rows`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match parse(text)? {
            (path, End::Items) => Ok(Self { path, of: RowsOf::Items }),
            (path, End::Members) => Ok(Self { path, of: RowsOf::Members }),
            _ => Err(format!(
                "rows `{text}`: expected a path that ends in `[*]` (the items of an array, like `$.readings[*]`) or in \
                 `.*` (the members of a map, like `$.values.*`)"
            )),
        }
    }
}

/// A path, and what it ends in.
fn parse(text: &str) -> Result<(Path, End), String> {
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
        let step = match (rest, rest.strip_prefix('.'), rest.strip_prefix('[')) {
            ("[*]", ..) => return Ok((path, End::Items)),
            (".*", ..) => return Ok((path, End::Members)),
            (_, Some(after), _) => name(after, &mut path),
            (_, _, Some(after)) => bracket(after, &mut path),
            _ => Err("expected `.name`, `[0]` or `['name']`"),
        };
        rest = step.map_err(|why| wrong(rest, why))?;
    }
    Ok((path, End::Value))
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
        if self.is_key() {
            return f.write_str("key");
        }
        for step in &self.steps {
            match step {
                Step::Item(index) => write!(f, "[{index}]")?,
                Step::Each => f.write_str("[*]")?,
                Step::Key => f.write_str(".$key")?,
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
            ("$.temp[*]", "$.temp[*]"),
            ("temp[*]", "$.temp[*]"),
            ("$[*]", "$[*]"),
            ("$key", "$key"),
        ];
        for (text, expected) in cases {
            assert_eq!(Path::parse(text).map(|path| path.to_string()).as_deref(), Ok(expected), "{text}");
        }
        let rows = |text| RowsPath::parse(text).map(|rows| (rows.path.to_string(), rows.of));
        assert_eq!(rows("$[*]"), Ok(("$".into(), RowsOf::Items)));
        assert_eq!(rows("$.a[*]"), Ok(("$.a".into(), RowsOf::Items)));
        assert_eq!(rows("$.*"), Ok(("$".into(), RowsOf::Members)));
        assert_eq!(rows("$.a['*'].*"), Ok(("$.a['*']".into(), RowsOf::Members)));
        assert_eq!(Path::parse("$.a[*]").unwrap().each(), Some(&[Step::Field("a".into())][..]));
        assert_eq!(Path::parse("$.a").unwrap().each(), None);
    }

    #[test]
    fn wrong_paths_say_why() {
        for text in
            ["", "$.", "$..a", "$.a[", "$.a[x]", "$.a[]", "$['a]", "$['a'", "$.a.*", "$.a[*].b", "$a", "$$$", "a b"]
        {
            assert!(Path::parse(text).is_err(), "{text}");
        }
        for text in ["$.a", "$.a[*].b[*]", "$.a.*.b", "$.a.*[*]", "$key"] {
            assert!(RowsPath::parse(text).is_err(), "{text}");
        }
    }
}
