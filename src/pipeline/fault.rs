//! Faults as people read them: the place, the line, what was expected, what to do.

use std::fmt::{self, Write as _};

use crate::component::Fault;

/// Every fault of a pipeline file, in the order of the file.
#[derive(Clone, Debug)]
pub struct Faults {
    file: String,
    text: String,
    faults: Vec<Fault>,
}

/// A fault's place, as people count.
struct Place<'a> {
    line: usize,
    column: usize,
    /// The offending line, tabs as spaces.
    source: String,
    before: &'a str,
    marked: &'a str,
}

impl Faults {
    /// Of a file. Sorted by place; the same fault at the same place stands once.
    pub fn new(file: &str, text: &str, mut faults: Vec<Fault>) -> Self {
        faults.sort_by(|a, b| (a.at.start, a.at.end, &a.what).cmp(&(b.at.start, b.at.end, &b.what)));
        faults.dedup_by(|a, b| a.at == b.at && a.what == b.what);
        Self { file: file.to_owned(), text: text.to_owned(), faults }
    }

    /// The faults, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter()
    }

    /// As text, with colours where they are wanted.
    pub fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        for fault in &self.faults {
            self.render_one(fault, colour, &mut out);
        }
        let faults =
            if self.faults.len() == 1 { "1 fault".to_owned() } else { format!("{} faults", self.faults.len()) };
        let _ = writeln!(out, "{}: {faults}", self.file);
        out
    }

    fn render_one(&self, fault: &Fault, colour: bool, out: &mut String) {
        let (red, blue, off) = if colour { ("\x1b[1;31m", "\x1b[1;34m", "\x1b[0m") } else { ("", "", "") };
        let place = self.place(fault);
        let margin = " ".repeat(place.line.to_string().len());
        let _ = writeln!(out, "{red}error{off}: {}", fault.what);
        let _ = writeln!(out, "{margin}{blue}-->{off} {}:{}:{}", self.file, place.line, place.column);
        if !self.text.is_empty() {
            let gap = " ".repeat(width(place.before));
            let marks = "^".repeat(width(place.marked).max(1));
            let _ = writeln!(out, "{margin} {blue}|{off}");
            let _ = writeln!(out, "{blue}{} |{off} {}", place.line, place.source);
            let _ = writeln!(out, "{margin} {blue}|{off} {gap}{red}{marks}{off}");
        }
        if let Some(help) = &fault.help {
            let _ = writeln!(out, "{margin} {blue}={off} help: {help}");
        }
        out.push('\n');
    }

    fn place(&self, fault: &Fault) -> Place<'_> {
        let start = self.text.floor_char_boundary(fault.at.start.min(self.text.len()));
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let end = self.text.floor_char_boundary(fault.at.end.clamp(start, line_end));
        let before = &self.text[line_start..start];
        Place {
            line: self.text[..start].matches('\n').count() + 1,
            column: before.chars().count() + 1,
            source: masked(self.text[line_start..line_end].trim_end()).replace('\t', "    "),
            before,
            marked: &self.text[start..end],
        }
    }
}

/// Columns on the screen, tabs as four.
fn width(text: &str) -> usize {
    text.chars().map(|c| if c == '\t' { 4 } else { 1 }).sum()
}

/// The line without the value of a secret, should it have one: a literal one of the same width.
fn masked(line: &str) -> String {
    const SECRETS: [&str; 3] = ["password", "token", "secret"];
    let Some((key, value)) = line.split_once('=') else { return line.to_owned() };
    if !SECRETS.iter().any(|secret| key.to_lowercase().contains(secret)) || value.trim_start().starts_with("\"${") {
        return line.to_owned();
    }
    let Some(open) = value.find(['"', '\'']) else { return line.to_owned() };
    let quote = &value[open..=open];
    let Some(close) = value.rfind(quote).filter(|close| *close > open) else { return format!("{key}= ***") };
    format!("{key}={}{quote}***{quote}{}", &value[..open], &value[close + 1..])
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Faults {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_shows_its_line() {
        let text = "a = 1\n\tübung = \"x\"\n";
        let at = text.find("\"x\"").unwrap();
        let faults = Faults::new("p.toml", text, vec![Fault::new(at..at + 3, "expected y").help("did you mean `y`?")]);
        assert_eq!(
            faults.to_string(),
            "error: expected y\n --> p.toml:2:10\n  |\n2 |     übung = \"x\"\n  |             ^^^\n  = help: did you mean `y`?\n\n\
             p.toml: 1 fault\n"
        );
    }

    #[test]
    fn the_same_fault_stands_once_and_secrets_do_not_stand_at_all() {
        let text = "password = \"hunter2\" # x";
        let fault = Fault::new(0..8, "unknown key");
        let shown = Faults::new("p", text, vec![fault.clone(), fault]).to_string();
        assert!(shown.contains("1 fault\n") && shown.contains("\"***\" # x") && !shown.contains("hunter2"), "{shown}");
    }
}
