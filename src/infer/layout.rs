//! What was seen to rows and columns.

use std::collections::BTreeSet;

use crate::infer::column::Column;
use crate::infer::document::{Document, Node};
use crate::infer::names::{ID_NAMES, name, step, time_name};
use crate::infer::seen::Seen;
use crate::infer::times::Guess;

/// How many columns a source gets: what is beyond them is said.
const COLUMNS_MAX: usize = 256;
/// Arrays of one length, and no longer, are a column for each of their items.
const ITEMS_MAX: usize = 8;
/// A place is a time where so many of its values are.
const TIMES_SHARE: f64 = 0.9;

/// The rows and columns of a source.
#[derive(Debug, Default)]
pub struct Layout {
    /// The setting `rows`.
    pub rows: Option<String>,
    /// Its columns, in the order of the payload.
    pub columns: Vec<Column>,
    /// Index of the time.
    pub time: Option<usize>,
    /// Index of what tells devices apart.
    pub id: Option<usize>,
    /// What somebody should look at.
    pub notes: Vec<String>,
}

/// A place in the payload that can be a column.
struct Place<'d> {
    path: String,
    names: Vec<String>,
    seen: &'d Seen,
    shared: bool,
}

impl Layout {
    /// Of documents.
    pub fn of(document: &Document, taken: &[String]) -> Self {
        let mut layout = Self::default();
        let places = layout.places(&document.root);
        if document.passed_over > 0 {
            layout.notes.push(format!(
                "payloads have so many different fields that {} are not looked at",
                document.passed_over
            ));
        }
        let mut names: BTreeSet<String> =
            taken.iter().cloned().chain(["window_start".to_owned(), "window_end".to_owned()]).collect();
        for place in &places {
            if layout.columns.len() == COLUMNS_MAX {
                layout.notes.push(format!("only the first {COLUMNS_MAX} of {} fields are columns here", places.len()));
                break;
            }
            layout.add(place, &mut names);
        }
        layout.choose_time();
        layout.choose_id(!taken.is_empty());
        layout
    }

    /// Of single values, which are one column.
    pub fn of_scalar(document: &Document, taken: &[String]) -> Self {
        let mut layout = Self::default();
        let mut names: BTreeSet<String> = taken.iter().cloned().collect();
        let place =
            Place { path: String::new(), names: vec!["value".to_owned()], seen: &document.root.seen, shared: false };
        layout.add(&place, &mut names);
        for column in &mut layout.columns {
            // A scalar's column is the payload, whatever it is called; its text is read by its type.
            (column.path, column.time) = (None, None);
            column.settings.retain(|setting| !setting.starts_with("text") && !setting.starts_with("values"));
            if document.root.seen.texts > 0 && document.root.seen.digits == document.root.seen.texts {
                column.kind = "float64";
            }
        }
        layout
    }

    /// Decides what the rows are, and finds every place that can be a column.
    fn places<'d>(&mut self, root: &'d Node) -> Vec<Place<'d>> {
        let mut places = Vec::new();
        let found = row_arrays(root, "$", &mut Vec::new());
        let root_rows = root.arrays.as_ref().filter(|arrays| arrays.count > root.objects && arrays.item.objects > 0);
        if let Some(arrays) = root_rows {
            self.rows = Some("$[*]".to_owned());
            self.walk(&arrays.item, "$", &[], false, &mut places);
        } else if let Some((path, node)) = found.first() {
            self.rows = Some(format!("{path}[*]"));
            for (other, _) in &found[1..] {
                self.notes.push(format!(
                    "`{other}` is an array of readings, too: another source with rows = \"{other}[*]\" would read it"
                ));
            }
            self.walk(node, "$", &[], false, &mut places);
            self.walk(root, "$$", &[], true, &mut places);
        } else if let Some((path, node)) = map(root, "$") {
            self.rows = Some(format!("{path}.*"));
            self.notes
                .push(format!("`{path}` has {} different fields: each is a row, `key` is its name", node.fields.len()));
            self.columns.push(Column {
                name: "key".to_owned(),
                path: Some("$key".to_owned()),
                kind: "utf8",
                settings: Vec::new(),
                comment: format!("one of {}", node.fields.len()),
                is_measure: false,
                variety: node.fields.len(),
                values: 0,
                time: None,
                shared: false,
            });
            // The kind of the first of them; where others differ, they are let pass as null.
            if let Some((_, first)) = node.fields.iter().find(|(_, node)| node.seen.values() > 0) {
                places.push(Place {
                    path: "$".to_owned(),
                    names: vec!["value".to_owned()],
                    seen: &first.seen,
                    shared: false,
                });
            }
            self.walk(root, "$$", &[], true, &mut places);
        } else {
            self.walk(root, "$", &[], false, &mut places);
        }
        places
    }

    /// Finds the places below a node. Of a document around rows (`shared`), the rows are left out.
    fn walk<'d>(&mut self, node: &'d Node, path: &str, names: &[String], shared: bool, places: &mut Vec<Place<'d>>) {
        if node.seen.values() + node.seen.nulls > 0 && !names.is_empty() {
            places.push(Place { path: path.to_owned(), names: names.to_vec(), seen: &node.seen, shared });
            if node.objects > 0 {
                self.notes.push(format!("`{path}` is a single value in some payloads and an object in others: only one of the two can be read"));
                return;
            }
        }
        let parallel = !shared && self.rows.is_none() && is_parallel(node);
        for (name, field) in &node.fields {
            let Some(below) = step(path, name) else {
                self.notes.push(format!("the field {name:?} has a name that no path can have"));
                continue;
            };
            if shared && self.are_rows(&below) {
                continue;
            }
            let names: Vec<String> = names.iter().cloned().chain([name.clone()]).collect();
            self.walk(field, &below, &names, shared, places);
            let Some(arrays) = &field.arrays else { continue };
            let single = arrays.item.objects == 0 && arrays.item.arrays.is_none() && arrays.item.seen.values() > 0;
            if single && parallel {
                places.push(Place { path: format!("{below}[*]"), names, seen: &arrays.item.seen, shared });
            } else if single && arrays.least == arrays.most && (1..=ITEMS_MAX).contains(&arrays.most) {
                for index in 0..arrays.most {
                    let names = names.iter().cloned().chain([index.to_string()]).collect();
                    places.push(Place { path: format!("{below}[{index}]"), names, seen: &arrays.item.seen, shared });
                }
            } else if arrays.item.present() > 0 {
                let len = if arrays.least == arrays.most {
                    arrays.most.to_string()
                } else {
                    format!("{} to {}", arrays.least, arrays.most)
                };
                self.notes.push(format!(
                    "`{below}` is an array ({len} items) and no column: rows = \"{}[*]\" would make a row of each",
                    below.replacen("$$", "$", 1)
                ));
            }
        }
    }

    /// Whether the rows are what is at a place of the document around them, whose path begins with `$$`.
    fn are_rows(&self, place: &str) -> bool {
        let rows = self.rows.as_deref();
        let rows = rows.and_then(|rows| rows.strip_suffix("[*]").or_else(|| rows.strip_suffix(".*")));
        rows.is_some() && rows == place.strip_prefix('$')
    }

    fn add(&mut self, place: &Place<'_>, names: &mut BTreeSet<String>) {
        let seen = place.seen;
        if seen.values() == 0 {
            self.notes.push(format!("`{}` is always null, and no column", place.path));
            return;
        }
        let name = name(&place.names, names);
        let path = (place.path != format!("$.{name}")).then(|| place.path.clone());
        let last = place.names.last().map_or("", String::as_str);
        let mut column = Column {
            path,
            kind: "utf8",
            settings: Vec::new(),
            comment: String::new(),
            is_measure: false,
            variety: seen.variety().0,
            values: seen.values(),
            time: time_of(seen, last),
            shared: place.shared,
            name,
        };
        column.declare(seen, last, &mut self.notes);
        names.insert(column.name.clone());
        self.columns.push(column);
    }

    /// The event time: what is named like one, is one in nearly all payloads, and is near to the arrival.
    fn choose_time(&mut self) {
        let most = self.columns.iter().map(|column| column.values).max().unwrap_or(0);
        let score = |column: &Column| {
            let guess = column.time?;
            let last = column.path.as_deref().unwrap_or(&column.name);
            #[expect(clippy::cast_precision_loss, reason = "a share")]
            let share = |part: u64, all: u64| if all == 0 { 0.0 } else { part as f64 / all as f64 };
            let named = f64::from(time_name(last));
            let near = share(guess.near, guess.hits);
            // What is not in every payload loses those that lack it; one of the row is nearer to it than one of all rows.
            let score = named + 40.0 * near + if column.shared { 0.0 } else { 5.0 };
            let often = column.shared || column.values as f64 >= most as f64 * 0.5;
            ((named > 0.0 || near >= TIMES_SHARE) && often).then_some(score)
        };
        let scored = self.columns.iter().enumerate().filter_map(|(index, column)| Some((score(column)?, index)));
        self.time = scored.max_by(|(a, at), (b, bt)| a.total_cmp(b).then(bt.cmp(at))).map(|(_, index)| index);
        for (index, column) in self.columns.iter_mut().enumerate() {
            let Some(guess) = column.time else { continue };
            let is_time = self.time == Some(index);
            let all = guess.hits == column.values;
            let is_named = time_name(column.path.as_deref().unwrap_or(&column.name)) > 0;
            if !(is_time || all && is_named) {
                continue;
            }
            column.kind = "timestamp";
            column.is_measure = false;
            column.comment.clear();
            column.settings = vec![format!("unit = {:?}", guess.writing.unit)];
            if let Some(zone) = guess.writing.zone {
                column.settings.push(format!("zone = {zone:?}"));
                self.notes.push(format!(
                    "`{}` is a time without a zone: UTC is a guess; set `zone`, like \"Europe/Berlin\"",
                    column.name
                ));
            }
            if is_time && !all {
                let odd = column.values - guess.hits;
                self.notes.push(format!(
                    "{odd} of {} values of `{}`, the time, are none between 2000 and 2100",
                    column.values, column.name
                ));
            }
        }
    }

    /// What tells devices apart: what is named so, or else, where no topic does, the text of the most different values
    /// that come again and again.
    fn choose_id(&mut self, topics_tell: bool) {
        let named = |wanted: &str| {
            self.columns.iter().position(|column| {
                let plain: String = column.name.chars().filter(|c| *c != '_').collect();
                let is_key = matches!(column.kind, "utf8" | "int64" | "uint64");
                is_key
                    && (column.name == wanted || plain == wanted.replace('_', ""))
                    && column.variety as u64 <= column.values.div_ceil(2)
            })
        };
        let unnamed = || {
            let again = |column: &Column| {
                column.kind == "utf8" && column.variety > 1 && column.values / column.variety as u64 >= 4
            };
            let texts = self.columns.iter().enumerate().filter(|(_, column)| again(column));
            texts.max_by_key(|(at, column)| (column.variety, std::cmp::Reverse(*at))).map(|(at, _)| at)
        };
        self.id =
            ID_NAMES.iter().find_map(|wanted| named(wanted)).or_else(|| if topics_tell { None } else { unnamed() });
    }
}

/// Arrays of objects that have a time of their own: readings. The one with the most items first.
fn row_arrays<'d>(node: &'d Node, path: &str, found: &mut Vec<(String, &'d Node, u64)>) -> Vec<(String, &'d Node)> {
    fn look<'d>(node: &'d Node, path: &str, found: &mut Vec<(String, &'d Node, u64)>) {
        for (name, field) in &node.fields {
            let Some(below) = step(path, name) else { continue };
            if let Some(arrays) = field.arrays.as_ref().filter(|arrays| arrays.item.objects > 0) {
                let timed =
                    |(name, node): &(String, Node)| time_of(&node.seen, name).is_some_and(|_| time_name(name) > 0);
                if arrays.item.fields.iter().any(timed) {
                    found.push((below.clone(), &arrays.item, arrays.item.objects));
                }
            }
            look(field, &below, found);
        }
    }
    // A document with a time of its own is one reading; arrays in it are about how it came (gateways that heard it).
    let own = |(name, node): &(String, Node)| time_of(&node.seen, name).is_some() && time_name(name) > 0;
    if !node.fields.iter().any(own) {
        look(node, path, found);
    }
    found.sort_by_key(|(_, _, objects)| std::cmp::Reverse(*objects));
    found.drain(..).map(|(path, node, _)| (path, node)).collect()
}

/// Whether arrays side by side are columns: all of one length in every payload, and one of them the time.
fn is_parallel(node: &Node) -> bool {
    let timed = |(name, field): &(String, Node)| {
        field.arrays.as_ref().is_some_and(|arrays| time_of(&arrays.item.seen, name).is_some() && time_name(name) > 0)
    };
    node.level > 0 && node.uneven == 0 && node.fields.iter().any(timed)
}

/// The first map of names that change.
fn map<'d>(node: &'d Node, path: &str) -> Option<(String, &'d Node)> {
    if node.is_map() {
        return Some((path.to_owned(), node));
    }
    node.fields.iter().find_map(|(name, field)| map(field, &step(path, name)?))
}

/// How a place's values are written, if nearly all are times.
#[expect(clippy::cast_precision_loss, reason = "a share")]
fn time_of(seen: &Seen, name: &str) -> Option<Guess> {
    let guess = seen.times.best()?;
    let share = guess.hits as f64 / seen.values().max(1) as f64;
    (share >= TIMES_SHARE && time_name(name) >= 0).then_some(guess)
}
