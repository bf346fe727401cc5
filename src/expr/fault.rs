//! DataFusion's errors as faults that point into the text.

use arrow::datatypes::Schema;
use datafusion_common::{DataFusionError, SchemaError};

use crate::component::{Fault, Name};
use crate::expr::functions::function_names;

/// The error as a fault of `text`, at the word that is to blame as far as that can be told.
pub(crate) fn fault(text: &Name, schema: &Schema, error: &DataFusionError) -> Fault {
    match error.find_root() {
        DataFusionError::SchemaError(unknown, _) => match &**unknown {
            SchemaError::FieldNotFound { field, .. } => unknown_column(text, schema, &field.name),
            other => text.fault(clean(&other.to_string())),
        },
        DataFusionError::SQL(wrong, _) => syntax(text, &wrong.to_string()),
        other => planning(text, &other.strip_backtrace()),
    }
}

fn unknown_column(text: &Name, schema: &Schema, column: &str) -> Fault {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let what = format!("no column `{column}`; there are {}", names.join(", "));
    at_word(text, column, what).nearest(column, names.iter().copied())
}

/// `… at Line: 1, Column: 9` is a place.
fn syntax(text: &Name, message: &str) -> Fault {
    let (what, place) = message.split_once(" at Line: ").unwrap_or((message, ""));
    let what = clean(what);
    let mut numbers =
        place.split(", Column: ").map(|number| number.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<usize>());
    let (Some(Ok(line)), Some(Ok(column))) = (numbers.next(), numbers.next()) else { return text.fault(what) };
    let before: usize = text.text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let rest = &text.text[before.min(text.text.len())..];
    let start = before + rest.chars().take(column.saturating_sub(1)).map(char::len_utf8).sum::<usize>();
    let word = text.text[start.min(text.text.len())..].split_whitespace().next().map_or(0, str::len);
    text.fault_within(start..start + word, what)
}

fn planning(text: &Name, message: &str) -> Fault {
    let first = clean(message);
    if let Some(rest) = first.split("nvalid function '").nth(1)
        && let Some((name, _)) = rest.split_once('\'')
    {
        let (scalars, aggregates) = function_names();
        let known = scalars.iter().chain(&aggregates).map(String::as_str);
        return at_word(text, name, format!("there is no function `{name}`")).nearest(name, known);
    }
    // Messages name what they are about in quotes.
    let quoted = first.split(['\'', '`']).skip(1).step_by(2).find(|word| find_word(&text.text, word).is_some());
    match quoted.map(str::to_owned) {
        Some(word) => at_word(text, &word, first),
        None => text.fault(first),
    }
}

fn at_word(text: &Name, word: &str, what: String) -> Fault {
    match find_word(&text.text, word) {
        Some(start) => text.fault_within(start..start + word.len(), what),
        None => text.fault(what),
    }
}

/// Where a whole word stands first.
fn find_word(text: &str, word: &str) -> Option<usize> {
    let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let lower = (text.to_lowercase(), word.to_lowercase());
    if word.is_empty() || lower.0.len() != text.len() {
        return None;
    }
    let mut places = lower.0.match_indices(&lower.1).map(|(at, _)| at);
    places.find(|at| !letter(text[..*at].chars().next_back()) && !letter(text[at + word.len()..].chars().next()))
}

/// The first sentence, without the names of the layers that it came through.
fn clean(message: &str) -> String {
    const LAYERS: [&str; 9] = [
        "Error during planning: ",
        "This feature is not implemented: ",
        "Execution error: ",
        "Schema error: ",
        "SQL error: ",
        "sql parser error: ",
        "Internal error: ",
        "type_coercion",
        "Arrow error: ",
    ];
    let mut text = message.lines().next().unwrap_or(message).trim();
    while let Some(rest) = LAYERS.iter().find_map(|layer| text.strip_prefix(layer)) {
        text = rest.trim();
    }
    let text = text.trim_end_matches(['.', '!']);
    let mut letters = text.chars();
    // Lower case, unless it is a word in capitals.
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_owned(),
    }
}
