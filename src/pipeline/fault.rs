//! Faults as people read them: the place, the line, what was expected, what to do.

use std::fmt::{self, Write as _};

use crate::component::Fault;
use crate::pipeline::secret::Secrets;

/// A tab on the screen.
const TAB: &str = "    ";
/// Line numbers have room for so many digits at least.
const MARGIN_DIGITS: usize = 2;

/// Every fault of a pipeline file, in the order of the file.
#[derive(Clone, Debug)]
pub struct Faults {
    file: String,
    text: String,
    secrets: Secrets,
    faults: Vec<Fault>,
}

/// A fault's place, as people count, and its line as it may be shown.
struct Place {
    line: usize,
    column: usize,
    before: String,
    marked: String,
    after: String,
}

impl Faults {
    /// Of a file. Sorted by place; the same fault at the same place stands once.
    pub(crate) fn new(file: &str, text: &str, secrets: Secrets, mut faults: Vec<Fault>) -> Self {
        faults.sort_by(|a, b| (a.at.start, a.at.end, &a.what).cmp(&(b.at.start, b.at.end, &b.what)));
        faults.dedup_by(|a, b| a.at == b.at && a.what == b.what);
        for fault in &mut faults {
            fault.what = secrets.told(&fault.what);
            fault.help = fault.help.as_deref().map(|help| secrets.told(help));
        }
        Self { file: file.to_owned(), text: text.to_owned(), secrets, faults }
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
        let Place { line, column, before, marked, after } = self.place(fault);
        let number = format!("{line:>MARGIN_DIGITS$}");
        let margin = " ".repeat(number.len());
        let _ = writeln!(out, "{red}error{off}: {}", fault.what);
        if self.text.is_empty() {
            let _ = writeln!(out, "{margin}{blue}-->{off} {}", self.file);
        } else {
            let gap = " ".repeat(before.chars().count());
            let marks = "^".repeat(marked.chars().count().max(1));
            let shown = format!("{before}{marked}{after}");
            let _ = writeln!(out, "{margin}{blue}-->{off} {}:{line}:{column}", self.file);
            let _ = writeln!(out, "{margin} {blue}|{off}");
            let _ = writeln!(out, "{blue}{number} |{off} {}", shown.trim_end());
            let _ = writeln!(out, "{margin} {blue}|{off} {gap}{red}{marks}{off}");
        }
        if let Some(help) = &fault.help {
            let _ = writeln!(out, "{margin} {blue}={off} help: {help}");
        }
        out.push('\n');
    }

    fn place(&self, fault: &Fault) -> Place {
        let text = &self.text;
        // What is wrong at the end of the file is shown at the end of its last line.
        let last = text.trim_end().len();
        let start = if fault.at.start >= text.len() { last } else { text.floor_char_boundary(fault.at.start) };
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = text.ceil_char_boundary(fault.at.end.clamp(start, line_end)).min(line_end);
        let marked = self.secrets.whole(start..end);
        let marked = marked.start.max(line_start)..marked.end.min(line_end);
        let shown = |from, to| screen(&self.secrets.shown(text, from..to));
        Place {
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            before: shown(line_start, marked.start),
            marked: shown(marked.start, marked.end),
            after: shown(marked.end, line_end),
        }
    }
}

/// Text as it takes one column a character: tabs as spaces, and nothing that a terminal would obey.
fn screen(text: &str) -> String {
    let text = text.trim_end_matches('\r').replace('\t', TAB);
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
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
    use crate::pipeline::file;

    fn render(text: &str, faults: Vec<Fault>) -> String {
        let secrets = Secrets::of(text, &file::parse(text).0);
        Faults::new("p.toml", text, secrets, faults).to_string()
    }

    #[test]
    fn a_fault_shows_its_line() {
        let text = "a = 1\n\tübung = \"x\"\n";
        let at = text.find("\"x\"").unwrap();
        assert_eq!(
            render(text, vec![Fault::new(at..at + 3, "expected y").help("did you mean `y`?")]),
            "error: expected y\n  --> p.toml:2:10\n   |\n 2 |     übung = \"x\"\n   |             ^^^\n   = help: did you mean `y`?\n\n\
             p.toml: 1 fault\n"
        );
    }

    #[test]
    fn a_fault_of_many_lines_shows_its_first() {
        let text = "a = [\r\n  1,\r\n]\r\n";
        assert_eq!(
            render(text, vec![Fault::new(4..14, "no array")]),
            "error: no array\n  --> p.toml:1:5\n   |\n 1 | a = [\n   |     ^\n\np.toml: 1 fault\n"
        );
    }

    #[test]
    fn faults_stand_in_the_order_of_the_file_and_once() {
        let text = "a = 1\nb = 2\n";
        let (one, two) = (Fault::new(0..1, "one"), Fault::new(6..7, "two"));
        let shown = render(text, vec![two.clone(), one.clone(), two]);
        assert!(shown.find("one") < shown.find("two") && shown.ends_with("p.toml: 2 faults\n"), "{shown}");
    }

    #[test]
    fn a_fault_beyond_the_text_is_shown_at_its_end() {
        let shown = render("a = 1\n\n", vec![Fault::new(7..99, "more is missing")]);
        assert!(shown.contains("p.toml:1:6\n   |\n 1 | a = 1\n   |      ^\n"), "{shown}");
        assert_eq!(render("", vec![Fault::new(0..0, "gone")]), "error: gone\n  --> p.toml\n\np.toml: 1 fault\n");
    }

    #[test]
    fn the_marks_stand_where_they_should_beside_a_secret() {
        let text = "x = { password = \"a very long password\", y = 1 }";
        let at = text.find("y =").unwrap();
        let shown = render(text, vec![Fault::new(at..at + 1, "unknown key")]);
        assert!(shown.contains(" 1 | x = { password = \"***\", y = 1 }\n   |                         ^\n"), "{shown}");
        let within = text.find("very").unwrap();
        let shown = render(text, vec![Fault::new(within..within + 4, "too long")]);
        assert!(shown.contains(" 1 | x = { password = \"***\", y = 1 }\n   |                  ^^^^^\n"), "{shown}");
    }
}
