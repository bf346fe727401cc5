//! The setting `window`: where windows lie, and the lengths of time in it.

use std::ops::Range;

use jiff::tz::TimeZone;

use super::shape::{DAY_MICROS, Grid, LONGEST_MICROS, Shape};
use crate::component::{Fault, Name, Node, Setting, Settings, Value};
use crate::flow::time::Span;

/// A length of time with its place; noted as a fault where it is too long to compute with.
pub(super) fn length(settings: &mut Settings, key: &'static str) -> Option<(Span, Range<usize>)> {
    let (name, node) = settings.take(key)?;
    let at = node.at.clone();
    match read_span(&node) {
        Ok(span) => Some((span, at)),
        Err(why) => {
            settings.fault(Fault::new(at, format!("`{}`: {why}", name.text)));
            None
        }
    }
}

fn read_span(node: &Node) -> Result<Span, String> {
    let span = Span::read(node)
        .map_err(|why| why.unwrap_or_else(|| format!("expected {}, got {}", Span::EXPECTED, node.value.type_name())))?;
    if span.micros() > LONGEST_MICROS {
        return Err(format!("{span} is longer than {}", Span::from_micros(LONGEST_MICROS)));
    }
    Ok(span)
}

/// One that is not nought.
fn positive(settings: &mut Settings, key: &'static str) -> Option<(Span, Range<usize>)> {
    let (span, at) = length(settings, key)?;
    if span == Span::ZERO {
        settings.fault(Fault::new(at, format!("`{key}`: a window of no length holds no row")));
        return None;
    }
    Some((span, at))
}

/// `window = { … }`, and a line on it.
pub(super) fn shape(settings: &mut Settings) -> Option<(Shape, String)> {
    const EXAMPLES: &str = "{ tumbling = \"10s\" } or { hopping = \"60s\", every = \"1s\" } or { session = \"30s\" }";
    let Some((_, node)) = settings.take("window") else {
        settings.fault(Fault::new(settings.at.clone(), format!("`window` is missing: expected {EXAMPLES}")));
        return None;
    };
    if !matches!(node.value, Value::Table(_)) {
        let got = node.value.type_name();
        settings.fault(Fault::new(node.at, format!("`window`: expected {EXAMPLES}, got {got}")));
        return None;
    }
    let mut table = settings.as_table("window", node)?;
    let kinds = ["tumbling", "hopping", "session"].into_iter().filter(|kind| table.has(kind)).collect::<Vec<_>>();
    let kind = kinds.first().copied();
    if kinds.len() != 1 {
        let what = match kind {
            None => format!("`window`: expected {EXAMPLES}"),
            Some(_) => format!("`window`: one kind at a time, got {}", kinds.join(" and ")),
        };
        settings.fault(Fault::new(table.at.clone(), what));
        for key in ["tumbling", "hopping", "session", "every", "offset", "timezone"] {
            table.take(key);
        }
    }
    let shape = match kind.filter(|_| kinds.len() == 1) {
        Some("tumbling") => tumbling(&mut table),
        Some("hopping") => hopping(&mut table),
        Some(_) => session(&mut table),
        None => None,
    };
    table.finish();
    shape
}

/// Notes keys that another kind of window has.
fn only_of(table: &mut Settings, keys: &[&'static str], kind: &str, whose: &str) {
    for key in keys {
        if let Some((name, _)) = table.take(key) {
            table.fault(name.fault(format!("`{key}` is for {whose} windows, not for {kind} windows")));
        }
    }
}

fn tumbling(table: &mut Settings) -> Option<(Shape, String)> {
    let size = positive(table, "tumbling");
    let offset = length(table, "offset");
    let zone = timezone(table);
    only_of(table, &["every"], "tumbling", "hopping");
    let (size, _) = size?;
    let offset_micros = offset.as_ref().map_or(0, |(offset, _)| offset.micros());
    let mut about = format!("tumbling {size}");
    if let Some((offset, at)) = offset {
        let bound = if zone.is_some() { Span::from_micros(DAY_MICROS) } else { size };
        if offset >= bound {
            table.fault(Fault::new(at, format!("`offset`: {offset} is not less than {bound}")));
            return None;
        }
        about.push_str(&format!(" + {offset}"));
    }
    let Some((zone, at)) = zone else {
        return Some((Shape::Grid(Grid::fixed(size.micros(), size.micros(), offset_micros)), about));
    };
    if size.micros() % DAY_MICROS != 0 {
        let what = format!("`timezone` is for windows of whole days, like tumbling = \"1d\", not of {size}");
        table.fault(Fault::new(at, what));
        return None;
    }
    about.push_str(&format!(" in {}", zone.iana_name().unwrap_or("a time zone")));
    let days = size.micros() / DAY_MICROS;
    Some((Shape::Grid(Grid::Days { zone, days, offset: offset_micros }), about))
}

fn timezone(table: &mut Settings) -> Option<(TimeZone, Range<usize>)> {
    let name = table.optional::<Name>("timezone")?;
    match TimeZone::get(&name.text) {
        Ok(zone) => Some((zone, name.at)),
        Err(_) => {
            let what = format!("`timezone`: `{}` is no time zone; expected one like \"Europe/Berlin\"", name.text);
            table.fault(name.fault(what));
            None
        }
    }
}

fn hopping(table: &mut Settings) -> Option<(Shape, String)> {
    let size = positive(table, "hopping");
    if !table.has("every") {
        table.fault(Fault::new(
            table.at.clone(),
            "`every` is missing: how far apart hopping windows begin, like \"1s\"",
        ));
    }
    let every = positive(table, "every");
    let offset = length(table, "offset");
    only_of(table, &["timezone"], "hopping", "tumbling");
    let ((size, _), (every, at)) = (size?, every?);
    if every > size {
        let what = format!("`every`: {every} is longer than the window, {size}: rows between windows would be lost");
        table.fault(Fault::new(at, what));
        return None;
    }
    let mut about = format!("hopping {size} every {every}");
    let mut offset_micros = 0;
    if let Some((offset, at)) = offset {
        if offset >= every {
            table.fault(Fault::new(at, format!("`offset`: {offset} is not less than `every`, {every}")));
            return None;
        }
        about.push_str(&format!(" + {offset}"));
        offset_micros = offset.micros();
    }
    Some((Shape::Grid(Grid::fixed(size.micros(), every.micros(), offset_micros)), about))
}

fn session(table: &mut Settings) -> Option<(Shape, String)> {
    let gap = positive(table, "session");
    only_of(table, &["every"], "session", "hopping");
    only_of(table, &["offset", "timezone"], "session", "tumbling");
    let (gap, _) = gap?;
    Some((Shape::Session { gap: gap.micros() }, format!("session {gap}")))
}
