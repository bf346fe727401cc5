//! What was inferred as the text of a pipeline file, with what was seen beside it.

use std::fmt::Write as _;
use std::path::Path;

use crate::flow::time::{Span, Timestamp};
use crate::infer::column::Column;
use crate::infer::layout::Layout;
use crate::infer::names::{key, quoted, snake};
use crate::infer::topics::{Group, Look};
use crate::infer::{Request, Source};

/// How many columns get a minimum, an average and a maximum.
const MEASURES_MAX: usize = 8;
/// Column of the text at which comments begin, where there is room.
const COMMENT_AT: usize = 56;
/// How many devices with a wrong clock are named.
const CLOCKS_NAMED_MAX: usize = 5;
/// How many rows of a device a window should have.
const ROWS_A_WINDOW: i64 = 10;

/// Lengths of time that people choose.
const SPANS: [i64; 19] =
    [0, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400, 604_800];
/// Lengths of windows that people choose.
const WINDOWS: [i64; 7] = [10, 60, 300, 900, 3_600, 21_600, 86_400];

/// Words of SQL that are no column without quotes.
const SQL_WORDS: [&str; 44] = [
    "all",
    "and",
    "any",
    "as",
    "asc",
    "between",
    "by",
    "case",
    "cast",
    "current",
    "date",
    "desc",
    "distinct",
    "else",
    "end",
    "false",
    "filter",
    "from",
    "group",
    "having",
    "in",
    "interval",
    "into",
    "is",
    "join",
    "left",
    "like",
    "limit",
    "not",
    "null",
    "on",
    "or",
    "order",
    "over",
    "right",
    "select",
    "then",
    "time",
    "timestamp",
    "true",
    "union",
    "using",
    "when",
    "where",
];

/// What a text is made of, whatever the sources turn out to be.
pub(super) struct Draft<'d> {
    pub(super) request: &'d Request,
    pub(super) recording: &'d Path,
    pub(super) payloads: u64,
    pub(super) notes: &'d [String],
}

/// A name for a source that none has yet: the last word of its pattern.
pub(super) fn source_name(group: &Group, names: &mut Vec<String>) -> String {
    let words = group.patterns.first().into_iter().flat_map(|pattern| pattern.split('/').rev());
    let mut words = words
        .filter(|level| !level.starts_with('{'))
        .map(snake)
        .filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
    let word = words.next().unwrap_or_else(|| "feed".to_owned());
    let free = |name: &String| !names.contains(name);
    let name = Some(word.clone()).filter(free);
    let name = name.or_else(|| (2..).map(|count| format!("{word}_{count}")).find(free)).unwrap_or(word);
    names.push(name.clone());
    name
}

/// The columns by which rows of a device are grouped.
pub(super) fn keys(group: &Group, captures: &[String], layout: &Layout) -> Vec<String> {
    let mut keys: Vec<String> = if group.patterns.len() > 1 { vec!["topic".to_owned()] } else { captures.to_vec() };
    keys.extend(layout.id.map(|id| layout.columns[id].name.clone()));
    // Each row of a map is of another measure.
    keys.extend(
        layout.columns.iter().filter(|column| column.path.as_deref() == Some("$key")).map(|column| column.name.clone()),
    );
    keys
}

impl Draft<'_> {
    /// The pipeline file.
    pub(super) fn text(&self, sources: &[Source]) -> String {
        let mut text = String::new();
        self.head(sources, &mut text);
        let _ = writeln!(text, "\n[pipeline]\nname = {}", quoted(&self.request.name));
        line(&mut text, "epoch = \"10s\"", "how often results become visible");
        for source in sources {
            source.write(self.request, &mut text);
        }
        text
    }

    fn head(&self, sources: &[Source], text: &mut String) {
        let file = self.recording.file_name().unwrap_or_default().to_string_lossy();
        let rows: u64 = sources.iter().map(|source| source.rows).sum();
        let dead: u64 = sources.iter().map(|source| source.dead_letters).sum();
        let mut notes: Vec<String> = self.notes.to_vec();
        for source in sources {
            notes.extend(source.notes().into_iter().map(|note| format!("{}: {note}", source.name)));
        }
        let _ = writeln!(text, "# Inferred from {} of {file}.", some(self.payloads, "payload"));
        let _ = writeln!(text, "# Read by this file they are {} and {}.", some(rows, "row"), some(dead, "dead letter"));
        if !notes.is_empty() {
            text.push_str("#\n# Look at this:\n");
            notes.iter().for_each(|note| wrapped(note, text));
        }
    }
}

impl Source {
    /// What somebody should look at.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.layout.notes.clone();
        for (count, why) in &self.reasons {
            notes.push(format!("dead letters, {}: {why}", some(*count, "payload")));
        }
        let found = &self.findings;
        if self.layout.time.is_none() {
            let known =
                if found.gaps.is_some() { "" } else { ", and the recording does not say it: its windows are empty" };
            notes.push(format!("no time was found in the payloads: the arrival is the time of a row{known}"));
        }
        if found.future > 0 {
            notes.push(format!("{} more than 5m after the arrival: set aside", some(found.future, "row")));
        }
        for (device, ahead) in found.clocks_off.iter().take(CLOCKS_NAMED_MAX) {
            let way = if *ahead > 0 { "ahead of" } else { "behind" };
            let by = rounded(Span::from_micros(ahead.abs()));
            notes.push(format!("the clock of {device} is {by} {way} the others'"));
        }
        if found.clocks_off.len() > CLOCKS_NAMED_MAX {
            notes.push(format!("{} clocks are off", found.clocks_off.len()));
        }
        if let Some(ahead) = found.ahead.filter(|ahead| self.layout.time.is_some() && ahead.abs() > 300_000_000) {
            let way = if ahead > 0 { "after" } else { "before" };
            notes.push(format!(
                "times are {} {way} their arrival: they were recorded later, or the zone is another",
                rounded(Span::from_micros(ahead.abs()))
            ));
        }
        if self.repeated > 0 {
            notes.push(format!("{} that came before, byte for byte", some(self.repeated, "payload")));
        }
        if found.same_time > 0 && self.layout.time.is_some() {
            notes.push(format!(
                "{} with a time that their device had before: where those are repeats, a `dedupe` operator drops them",
                some(found.same_time, "row")
            ));
        }
        notes
    }

    fn write(&self, request: &Request, text: &mut String) {
        let (name, layout) = (&self.name, &self.layout);
        let _ = writeln!(text, "\n[sources.{name}]\ntype = \"mqtt\"\nurl = {}", quoted(&request.url));
        let patterns: Vec<String> = self.group.patterns.iter().map(|pattern| quoted(pattern)).collect();
        line(text, &format!("topics = [{}]", patterns.join(", ")), &some(self.payloads, "payload"));
        let format = if self.group.look == Look::Document { "json" } else { "scalar" };
        let _ = writeln!(text, "\n[sources.{name}.decode]\nformat = \"{format}\"");
        if let Some(rows) = &layout.rows {
            let _ = writeln!(text, "rows = {}", quoted(rows));
        }
        let _ = writeln!(text, "\n[sources.{name}.columns]");
        if self.group.patterns.len() > 1 {
            text.push_str("topic = { type = \"utf8\", from = \"topic\" }\n");
        }
        layout.columns.iter().for_each(|column| column.write(text));
        self.write_time(text);
        self.write_window(request, text);
    }

    fn write_time(&self, text: &mut String) {
        let _ = writeln!(text, "\n[sources.{}.time]", self.name);
        let found = &self.findings;
        if let Some(time) = self.layout.time {
            let seen = found.times.map_or_else(String::new, |(first, last)| {
                format!("{} to {}", Timestamp::from_micros(first), Timestamp::from_micros(last))
            });
            line(text, &format!("column = {}", quoted(&self.layout.columns[time].name)), &seen);
            let [most, last] = found.behind.unwrap_or_default();
            let comment = match found.late_rows {
                0 => "no row is behind another".to_owned(),
                rows => format!(
                    "{rows} rows are behind others: 99.9 % of all at most {}, the last {}",
                    rounded(most),
                    rounded(last)
                ),
            };
            line(text, &format!("out_of_orderness = \"{}\"", self.out_of_orderness()), &comment);
        }
        match found.gaps {
            Some([most, last]) => {
                let idle = up(Span::from_micros(most.micros().saturating_mul(3)).max(Span::from_secs(10)), &SPANS);
                let comment =
                    format!("99.9 % of the payloads come within {}, the last after {}", rounded(most), rounded(last));
                line(text, &format!("idle_after = \"{idle}\""), &comment);
            }
            None => line(text, "# idle_after = \"30s\"", "the recording does not say when payloads arrived"),
        }
        line(text, "max_future = \"5m\"", "rows further ahead of their arrival are set aside");
    }

    /// What 99.9 % of the rows need, or all of them where that is not much more.
    fn out_of_orderness(&self) -> Span {
        let [most, last] = self.findings.behind.unwrap_or_default();
        let enough = if last.micros() <= most.micros().saturating_mul(4) { last } else { most };
        up(enough.max(Span::from_secs(1)), &SPANS)
    }

    /// Whether each device is in order by itself, and only all together are not.
    fn needs_own_clocks(&self) -> bool {
        let [_, last] = self.findings.behind.unwrap_or_default();
        let apart = self.findings.behind_in_device.micros() * 4 < last.micros() && last > Span::from_secs(60);
        !self.keys.is_empty() && (apart || !self.findings.clocks_off.is_empty())
    }

    fn write_window(&self, request: &Request, text: &mut String) {
        let name = &self.name;
        let step = self.findings.step;
        let size = up(
            Span::from_micros(step.map_or(60_000_000, |step| step.micros().saturating_mul(ROWS_A_WINDOW))),
            &WINDOWS,
        );
        let _ = writeln!(text, "\n[operators.{name}_windows]\ntype = \"window\"\ninputs = [\"{name}\"]");
        let comment = step.map_or_else(String::new, |step| format!("a device has a row every {}", rounded(step)));
        line(text, &format!("window = {{ tumbling = \"{size}\" }}"), &comment);
        if !self.keys.is_empty() {
            let keys: Vec<String> = self.keys.iter().map(|key| quoted(key)).collect();
            line(text, &format!("group_by = [{}]", keys.join(", ")), &some(self.findings.devices as u64, "device"));
        }
        if self.needs_own_clocks() {
            line(text, "clock = \"group\"", "each device is in order by itself");
        }
        let _ = writeln!(text, "\n[operators.{name}_windows.aggregates]\nsamples = \"count(*)\"");
        let measures: Vec<&Column> = self.layout.columns.iter().filter(|column| column.is_measure).collect();
        for column in measures.iter().take(MEASURES_MAX) {
            let name = &column.name;
            let operand = if SQL_WORDS.contains(&name.as_str()) { format!("\"{name}\"") } else { name.clone() };
            for (short, function) in [("min", "min"), ("avg", "avg"), ("max", "max")] {
                let _ = writeln!(
                    text,
                    "{} = {}",
                    key(&format!("{name}_{short}")),
                    quoted(&format!("{function}({operand})"))
                );
            }
        }
        if measures.len() > MEASURES_MAX {
            let more: Vec<&str> =
                measures[MEASURES_MAX..].iter().take(MEASURES_MAX).map(|column| column.name.as_str()).collect();
            let _ = writeln!(text, "# {} more: {} …", measures.len() - MEASURES_MAX, more.join(" "));
        }
        let path = quoted(&format!("out/{}/{name}", request.name));
        let _ = writeln!(
            text,
            "\n[sinks.{name}_history]\ntype = \"parquet\"\ninputs = [\"{name}_windows\"]\npath = {path}"
        );
        let _ = writeln!(text, "\n[sinks.{name}_live]\ntype = \"metrics\"\ninputs = [\"{name}_windows\"]");
    }
}

impl Column {
    fn write(&self, text: &mut String) {
        let mut settings = vec![format!("type = \"{}\"", self.kind)];
        settings.extend(self.path.iter().map(|path| format!("path = {}", quoted(path))));
        settings.extend(self.settings.iter().cloned());
        let value =
            if settings.len() == 1 { format!("\"{}\"", self.kind) } else { format!("{{ {} }}", settings.join(", ")) };
        line(text, &format!("{} = {value}", key(&self.name)), &self.comment);
    }
}

/// `1 row`, `2 rows`.
fn some(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A line with a comment behind it.
fn line(text: &mut String, setting: &str, comment: &str) {
    let comment: String = comment.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let _ = match comment.as_str() {
        "" => writeln!(text, "{setting}"),
        comment => writeln!(text, "{setting:<COMMENT_AT$} # {comment}"),
    };
}

/// A note in comment lines of a readable length.
fn wrapped(note: &str, text: &mut String) {
    let (mut width, mut begin) = (usize::MAX, "# - ");
    let note: String = note.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    for word in note.split(' ') {
        if width.saturating_add(word.len()) > 110 {
            text.push_str(if width == usize::MAX { "" } else { "\n" });
            text.push_str(begin);
            (width, begin) = (begin.len(), "#   ");
        } else {
            text.push(' ');
        }
        text.push_str(word);
        width += word.len() + 1;
    }
    text.push('\n');
}

/// The next length of time that people choose; whole days beyond.
fn up(span: Span, choices: &[i64]) -> Span {
    let seconds = span.micros().div_euclid(1_000_000) + i64::from(span.micros() % 1_000_000 > 0);
    let days = seconds.div_euclid(86_400) + i64::from(seconds % 86_400 > 0);
    Span::from_secs(choices.iter().copied().find(|choice| *choice >= seconds).unwrap_or(days * 86_400))
}

/// A length of time to two units, for people.
fn rounded(span: Span) -> Span {
    let micros = span.micros();
    let unit = match micros {
        0..1_000_000 => 1_000,
        1_000_000..60_000_000 => 100_000,
        60_000_000..3_600_000_000 => 1_000_000,
        3_600_000_000..86_400_000_000 => 60_000_000,
        _ => 3_600_000_000,
    };
    Span::from_micros(micros / unit * unit)
}
