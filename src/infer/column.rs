//! One column: its type, by what was seen.

use crate::infer::names::{ID_NAMES, key, stays_whole};
use crate::infer::seen::Seen;
use crate::infer::times::Guess;

/// Whole numbers beyond 2^53 are not exact as `float64`.
const EXACT_MAX: i128 = 1 << 53;
/// Texts that are numbers are read as such where there are so many different ones: fewer may be versions.
const VARIETY_MIN: usize = 3;
/// A column as a pipeline file declares it.
#[derive(Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its path; `None` where the name says it.
    pub path: Option<String>,
    /// Its type.
    pub kind: &'static str,
    /// Other settings, as TOML.
    pub settings: Vec<String>,
    /// What was seen.
    pub comment: String,
    /// Numbers that are worth an average.
    pub is_measure: bool,
    /// How many different values, where somebody counted.
    pub(super) variety: usize,
    pub(super) values: u64,
    pub(super) time: Option<Guess>,
    pub(super) shared: bool,
}

impl Column {
    /// Chooses the type of what was seen, and says what it was.
    pub(super) fn declare(&mut self, seen: &Seen, last: &str, notes: &mut Vec<String>) {
        let (numbers, texts) = (seen.numbers(), seen.texts);
        let mixed = [numbers > 0, texts > 0, seen.bools > 0].into_iter().filter(|some| *some).count() > 1;
        let is_id = ID_NAMES.contains(&self.name.as_str());
        if numbers > 0 && texts > seen.digits && seen.null_words().is_some() && seen.bools == 0 {
            // Words for no value between numbers.
            let words: Vec<String> =
                seen.null_words().unwrap_or_default().iter().map(|word| format!("{word:?}")).collect();
            self.number(seen, last);
            self.settings.push(format!("nulls = [{}]", words.join(", ")));
            if seen.digits > 0 {
                self.settings.push("text = true".to_owned());
            }
        } else if mixed && seen.bools == 0 && texts == seen.digits {
            self.number(seen, last);
            self.settings.push("text = true".to_owned());
        } else if mixed {
            let most = seen.bools.max(numbers).max(texts);
            if most == numbers {
                self.number(seen, last);
            } else {
                self.kind = if most == texts { "utf8" } else { "boolean" };
            }
            self.settings.push("mismatch = \"null\"".to_owned());
            notes.push(format!(
                "`{}` is of mixed types ({}): it is {} here, what is none is null and counted",
                self.name,
                kinds(seen),
                self.kind
            ));
        } else if seen.bools > 0 {
            self.kind = "boolean";
            self.comment = "true or false".to_owned();
        } else if numbers > 0 {
            self.number(seen, last);
        } else if seen.digits == texts && seen.padded == 0 && !is_id && seen.variety().0 >= VARIETY_MIN {
            self.number(seen, last);
            self.settings.push("text = true".to_owned());
        } else if let Some(words) = seen.truth_words() {
            self.kind = "boolean";
            let words: Vec<String> = words.iter().map(|(word, truth)| format!("{} = {truth}", key(word))).collect();
            self.settings.push(format!("values = {{ {} }}", words.join(", ")));
            self.comment = "as words".to_owned();
        } else {
            self.comment = vocabulary(seen);
        }
        if seen.nulls > 0 {
            self.comment.push_str(&format!("{}{} null", if self.comment.is_empty() { "" } else { ", " }, seen.nulls));
        }
        for (sentinel, count) in &seen.sentinels {
            let end = seen
                .range
                .is_some_and(|(least, greatest)| (least - sentinel).abs() < 1e-9 || (greatest - sentinel).abs() < 1e-9);
            if end && *count < numbers {
                notes.push(format!(
                    "`{}` is {sentinel} {count} times: where that stands for no value, set nulls = [{sentinel}]",
                    self.name
                ));
            }
        }
    }

    fn number(&mut self, seen: &Seen, last: &str) {
        let (least, greatest) = seen.range.unwrap_or_default();
        let stays_whole = stays_whole(last);
        self.kind = match seen.whole_range {
            _ if seen.fractions > 0 || seen.digits > 0 => "float64",
            Some((_, most)) if most > i128::from(i64::MAX) => "uint64",
            Some((least, most)) if most > EXACT_MAX || least < -EXACT_MAX || stays_whole => "int64",
            _ => "float64",
        };
        self.is_measure = !ID_NAMES.contains(&self.name.as_str()) && self.kind == "float64";
        self.comment = match seen.whole_range.filter(|_| seen.fractions == 0 && seen.digits == 0) {
            Some((least, most)) if least == most => format!("always {least}"),
            Some((least, most)) => format!("{least} to {most}, whole so far"),
            None if least.to_bits() == greatest.to_bits() => format!("always {least}"),
            None => format!("{least} to {greatest}"),
        };
    }
}

fn kinds(seen: &Seen) -> String {
    let kinds = [("number", seen.numbers()), ("text", seen.texts), ("true or false", seen.bools)];
    let kinds: Vec<String> =
        kinds.iter().filter(|(_, count)| *count > 0).map(|(kind, count)| format!("{count} {kind}")).collect();
    kinds.join(", ")
}

fn vocabulary(seen: &Seen) -> String {
    let shown = |words: &std::collections::BTreeMap<String, u64>| {
        let words: Vec<String> = words.keys().take(6).map(|word| format!("{word:?}")).collect();
        words.join(" ")
    };
    match (seen.vocabulary(), seen.variety()) {
        (Some(words), _) if words.len() <= 6 => shown(words),
        (_, (count, false)) => format!(
            "{count} different, like {}",
            shown(&seen.words).split("\" \"").next().unwrap_or_default().trim_end_matches('"').to_owned() + "\""
        ),
        (_, (count, true)) => format!("{count} different or more"),
    }
}
