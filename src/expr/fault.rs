//! DataFusion's errors as faults that point into the text.

use arrow::datatypes::Schema;
use datafusion_common::{Column, DataFusionError, SchemaError};

use crate::component::{Fault, Name};
use crate::expr::functions::function_names;
use crate::expr::planner::DEPTH_MAX;
use crate::expr::words;

/// The longest message, in letters: some of DataFusion's print whole plans.
const MESSAGE_MAX: usize = 160;

/// The error as a fault of `text`, at the word that is to blame as far as that can be told.
pub(crate) fn fault(text: &Name, schema: &Schema, error: &DataFusionError) -> Fault {
    match error.find_root() {
        DataFusionError::SchemaError(unknown, _) => match &**unknown {
            SchemaError::FieldNotFound { field, .. } => unknown_column(text, schema, field),
            other => text.fault(clean(&other.to_string())),
        },
        DataFusionError::SQL(wrong, _) => syntax(text, &wrong.to_string()),
        other => planning(text, &other.strip_backtrace()),
    }
}

fn unknown_column(text: &Name, schema: &Schema, column: &Column) -> Fault {
    let (names, wanted) = (schema.fields().iter().map(|field| field.name().as_str()), column.name.as_str());
    if let Some(table) = &column.relation {
        let what = format!("no column `{table}.{wanted}`: columns stand without the name of a table");
        return at_word(text, table.table(), what);
    }
    // Signs and spaces in a name have to be quoted.
    let plain = |name: &&str| name.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
    if let Some(name) = names.clone().find(|name| !plain(name) && name.contains(wanted) && text.text.contains(*name)) {
        return at_word(text, wanted, format!("no column `{wanted}`")).help(format!("write \"{name}\" in quotes"));
    }
    let all = names.clone().collect::<Vec<_>>().join(", ");
    at_word(text, wanted, format!("no column `{wanted}`; there are {all}")).nearest(wanted, names)
}

/// `… at Line: 1, Column: 9` is a place.
fn syntax(text: &Name, message: &str) -> Fault {
    let (what, place) = message.split_once(" at Line: ").unwrap_or((message, ""));
    let what = clean(what);
    if what.starts_with("recursion limit exceeded") {
        return text.fault(format!("it nests deeper than {DEPTH_MAX} levels"));
    }
    let expected = what.strip_prefix("expected: ").and_then(|rest| rest.rsplit_once(", found: "));
    if let Some((expected, "EOF")) = expected {
        return text.fault_within(words::last(&text.text), format!("expected {expected} after this, got nothing"));
    }
    let what = expected.map(|(expected, found)| {
        let expected = if expected == "end of expression" { "the end of the expression" } else { expected };
        format!("expected {expected}, got `{found}`")
    });
    let what = what.unwrap_or_else(|| clean(message.split_once(" at Line: ").unwrap_or((message, "")).0));
    let numbers = place.split_once(", Column: ").and_then(|(line, column)| {
        let column = column.trim_end_matches(|c: char| !c.is_ascii_digit());
        Some((line.parse().ok()?, column.parse().ok()?))
    });
    let Some((line, column)) = numbers else { return text.fault(what) };
    let at = words::word_at(&text.text, words::offset(&text.text, line, column));
    text.fault_within(at, what)
}

fn planning(text: &Name, message: &str) -> Fault {
    if let Some((_, why)) = message.split_once("regex parse error").and_then(|(_, rest)| rest.rsplit_once("error: ")) {
        return text.fault(format!("the regular expression cannot be read: {}", clean(why)));
    }
    let first = clean(message);
    if let Some((name, _)) = first.split_once("nvalid function '").and_then(|(_, rest)| rest.split_once('\'')) {
        let (scalars, aggregates) = function_names();
        let known = scalars.iter().chain(&aggregates).map(String::as_str);
        return at_word(text, name, format!("there is no function `{name}`")).nearest(name, known);
    }
    if let Some((name, what)) = arguments(&first) {
        return at_word(text, &name, what);
    }
    if let Some(name) = first.strip_prefix("unsupported SQL type ") {
        return at_word(text, name, format!("there is no type `{name}`"));
    }
    for (start, what) in REWORDED {
        if first.starts_with(start) {
            return text.fault(*what);
        }
    }
    if let Some((left, _)) = first.split_once(" to valid types").filter(|_| first.starts_with("cannot coerce")) {
        let types = left.trim_start_matches("cannot coerce arithmetic expression ");
        return text.fault(format!("cannot compute {types}"));
    }
    // Messages name what they are about in quotes.
    let quoted = first.split(['\'', '`']).skip(1).step_by(2).find(|word| words::find(&text.text, word).is_some());
    match quoted.map(str::to_owned) {
        Some(word) => at_word(text, &word, first),
        None => text.fault(first),
    }
}

/// How messages about what nobody can know of begin, and what they mean here.
const REWORDED: &[(&str, &str)] = &[
    ("getFieldAccess not supported", "nothing here has elements: `[…]` cannot be taken"),
    ("could not plan array literal", "there are no arrays here"),
    ("variable [", "there are no variables here"),
    ("placeholder ", "a placeholder has no value here"),
    ("unnest() can only", "there are no arrays here"),
    ("[return_type]", "it is always null, so it has no type; write CAST(NULL AS DOUBLE) or the like"),
];

/// What is wrong with the arguments of a function, and its name.
fn arguments(message: &str) -> Option<(String, String)> {
    if let Some((_, rest)) = message.split_once("satisfy a call to '") {
        let (name, rest) = rest.split_once('\'')?;
        let (got, wanted) = rest.split_once("coercion from ")?.1.split_once(" to the signature ")?;
        let wanted = wanted.strip_prefix("Exact(").and_then(|wanted| wanted.split_once(')'));
        let what = match wanted {
            Some((wanted, _)) => format!("`{name}` takes {wanted}, got {got}"),
            None => format!("`{name}` does not take {got}"),
        };
        return Some((name.to_owned(), what));
    }
    let name = message.split('\'').nth(1)?;
    if let Some((wanted, rest)) =
        message.split_once(" expects ").and_then(|(_, rest)| rest.split_once(" but received "))
    {
        let got = rest.split([',', ' ']).next()?;
        let (wanted, got) = match wanted.strip_suffix(" arguments") {
            Some("1") => ("1 argument", got),
            _ => (wanted, got),
        };
        return Some((name.to_owned(), format!("`{name}` takes {wanted}, got {got}")));
    }
    if message.contains(" does not support zero arguments") {
        return Some((name.to_owned(), format!("`{name}` takes at least 1 argument, got 0")));
    }
    let wanted: Vec<_> = message.split(" requires ").skip(1).filter_map(|rest| rest.split(", but").next()).collect();
    let (last, others) = wanted.split_last()?;
    let got = message.split("(DataType: ").nth(1)?.split(").").next()?.trim_end_matches(')');
    let got = if got.contains('(') { format!("{got})") } else { got.to_owned() };
    let wanted = if others.is_empty() { (*last).to_owned() } else { format!("{} or {last}", others.join(", ")) };
    Some((name.to_owned(), format!("`{name}` takes {wanted}, got {got}")))
}

fn at_word(text: &Name, word: &str, what: String) -> Fault {
    match words::find(&text.text, word) {
        Some(at) => text.fault_within(at, what),
        None => text.fault(what),
    }
}

/// The first sentence, without the names of the layers that it came through.
pub(crate) fn clean(message: &str) -> String {
    const LAYERS: [&str; 14] = [
        "Error during planning: ",
        "This feature is not implemented: ",
        "Execution error: ",
        "Schema error: ",
        "SQL error: ",
        "sql parser error: ",
        "Internal error: ",
        "External error: ",
        "Invalid argument error: ",
        "Arithmetic overflow: ",
        "Cast error: ",
        "Parser error: ",
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
    let text: String = match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_owned(),
    };
    // Signatures are read by us, and they are long.
    match text.char_indices().nth(MESSAGE_MAX) {
        Some((end, _)) if !text.contains("failed to match any signature") => format!("{}…", &text[..end]),
        _ => text,
    }
}
