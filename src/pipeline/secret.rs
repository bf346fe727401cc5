//! What must never be shown: which parts of a pipeline file, and which texts, faults print as `***`.

use std::ops::Range;

use crate::component::{Name, Node, Value};

/// What stands in place of a secret.
const HIDDEN: &str = "***";
/// A key with one of these in it has a secret for its value.
const WORDS: [&str; 3] = ["password", "token", "secret"];
/// A shorter text is not looked for in messages: it would be found everywhere.
const TEXT_BYTES_MIN: usize = 4;

/// The secrets of a pipeline file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secrets {
    /// Bytes of the file.
    places: Vec<Range<usize>>,
    /// Texts that came from elsewhere, the longest first.
    texts: Vec<String>,
}

impl Secrets {
    /// Of a file that could be read: the strings of keys such as `password`. A string that only says where the
    /// secret is (`"${NAME}"`) is none.
    pub(crate) fn of(text: &str, entries: &[(Name, Node)]) -> Self {
        let mut secrets = Self::default();
        secrets.table(text, entries);
        secrets.places.sort_by_key(|place| place.start);
        secrets
    }

    /// Of a file whose values are not known for sure: all that follows such a key on its line, up to the end of
    /// a string of several lines.
    pub(crate) fn guessed(text: &str) -> Self {
        let mut places = Vec::new();
        let mut from = 0;
        let lower = text.to_ascii_lowercase();
        while let Some(word) = WORDS.iter().filter_map(|word| lower[from..].find(word)).min() {
            let line_end = |at: usize| text[at..].find('\n').map_or(text.len(), |len| at + len);
            let key = from + word;
            from = line_end(key);
            let Some(sign) = text[key..from].find('=') else { continue };
            let value = key + sign + 1;
            let quotes = text[value..].trim_start_matches([' ', '\t']);
            if let Some(quote) = ["\"\"\"", "'''"].into_iter().find(|quote| quotes.starts_with(quote)) {
                let open = text.len() - quotes.len() + quote.len();
                from = text[open..].find(quote).map_or(text.len(), |len| line_end(open + len));
            }
            let start = text.len() - quotes.len();
            places.push(start.min(from)..from);
        }
        Self { places, texts: Vec::new() }
    }

    /// And texts that came from files.
    #[must_use]
    pub(crate) fn and(mut self, texts: Vec<String>) -> Self {
        self.texts.extend(texts.into_iter().filter(|text| text.len() >= TEXT_BYTES_MIN));
        self.texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        self
    }

    fn table(&mut self, text: &str, entries: &[(Name, Node)]) {
        for (name, node) in entries {
            let key = name.text.to_ascii_lowercase();
            if WORDS.iter().any(|word| key.contains(word)) {
                self.value(text, node);
            }
            self.inner(text, node);
        }
    }

    fn inner(&mut self, text: &str, node: &Node) {
        match &node.value {
            Value::Table(entries) => self.table(text, entries),
            Value::Array(nodes) => nodes.iter().for_each(|node| self.inner(text, node)),
            _ => (),
        }
    }

    /// The strings of one value, not those of tables in it: they have keys of their own.
    fn value(&mut self, text: &str, node: &Node) {
        match &node.value {
            Value::String(_) if !text.get(node.at.clone()).is_some_and(only_refers) => {
                self.places.push(node.at.clone())
            }
            Value::Array(nodes) => nodes.iter().for_each(|node| self.value(text, node)),
            _ => (),
        }
    }

    /// `within` of the file, which lies on one line, as it may be shown.
    pub(crate) fn shown(&self, text: &str, within: Range<usize>) -> String {
        let mut shown = String::new();
        let mut at = within.start;
        for place in &self.places {
            if place.end <= at || place.start >= within.end {
                continue;
            }
            shown.push_str(&text[at..place.start.max(at)]);
            shown.push_str(&format!("\"{HIDDEN}\""));
            at = place.end.min(within.end);
        }
        shown.push_str(&text[at..within.end]);
        self.told(&shown)
    }

    /// The range, widened so that it cuts no secret in two.
    pub(crate) fn whole(&self, range: Range<usize>) -> Range<usize> {
        let cut = |at: usize| self.places.iter().find(|place| place.start < at && at < place.end);
        cut(range.start).map_or(range.start, |place| place.start)..cut(range.end).map_or(range.end, |place| place.end)
    }

    /// A message without secrets: neither those that came from files, nor passwords in addresses.
    pub(crate) fn told(&self, message: &str) -> String {
        let mut told = message.to_owned();
        for text in &self.texts {
            told = told.replace(text, HIDDEN);
        }
        without_passwords(&told)
    }
}

/// Whether a string, as written, is nothing but `${NAME}` or `${file:…}`.
fn only_refers(written: &str) -> bool {
    let inside = written.trim_matches(['"', '\'']).strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    inside.is_some_and(|inside| !inside.contains(['$', '}']) && !inside.contains(":-"))
}

/// `scheme://user:password@host` with the password hidden.
fn without_passwords(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let end = after.find(|c: char| c == '/' || c == '"' || c == '\'' || c == '`' || c.is_whitespace());
        let (authority, following) = after.split_at(end.unwrap_or(after.len()));
        let hidden = authority.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?, host)));
        match hidden {
            // What only refers to a password may be seen: it says what to set.
            Some(((user, password), host)) if !only_refers(password) => {
                shown.push_str(&format!("{user}:{HIDDEN}@{host}"));
            }
            _ => shown.push_str(authority),
        }
        rest = following;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let (entries, faults) = crate::pipeline::file::parse(text);
        let secrets = if faults.is_empty() { Secrets::of(text, &entries) } else { Secrets::guessed(text) };
        let mut start = 0;
        let mut lines = Vec::new();
        for line in text.split('\n') {
            lines.push(secrets.shown(text, start..start + line.len()));
            start += line.len() + 1;
        }
        lines.join("\n")
    }

    #[test]
    fn secrets_of_a_file_do_not_show() {
        for (text, expected) in [
            ("password = \"hunter2\" # x", "password = \"***\" # x"),
            (
                "login = { user = \"ada\", password = 'hunter2', a = 1 }",
                "login = { user = \"ada\", password = \"***\", a = 1 }",
            ),
            ("api_tokens = [\"one\", \"two\"]", "api_tokens = [\"***\", \"***\"]"),
            ("[secrets]\nuser = \"ada\"", "[secrets]\nuser = \"ada\""),
            ("password = \"${PW}\"", "password = \"${PW}\""),
            ("password = \"${PW:-hunter2}\"", "password = \"***\""),
            ("url = \"mqtt://ada:hunter2@host:1883/x\"", "url = \"mqtt://ada:***@host:1883/x\""),
            ("url = \"mqtt://ada:${PW}@host\"", "url = \"mqtt://ada:${PW}@host\""),
            ("url = \"mqtt://host:1883\"", "url = \"mqtt://host:1883\""),
            ("password = \"\"\"\nhunter2\n\"\"\"", "password = \"***\"\n\"***\"\n\"***\""),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn secrets_of_a_broken_file_do_not_show_either() {
        for (text, expected) in [
            ("password = \"hunter2", "password = \"***\""),
            ("a = { token = hunter2, b = \nc = 1", "a = { token = \"***\"\nc = 1"),
            ("password = '''\nhunter2''' x\nc = 1", "password = \"***\"\n\"***\"\nc = 1"),
            ("[secret\nuser = \"ada\"", "[secret\nuser = \"ada\""),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn texts_of_files_do_not_show_in_messages() {
        let secrets = Secrets::default().and(vec!["hunter2".to_owned(), "hunter2-long".to_owned(), "x".to_owned()]);
        assert_eq!(secrets.told("`hunter2-long` and `hunter2` and `x`"), "`***` and `***` and `x`");
    }
}
