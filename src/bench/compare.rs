//! A bench beside an earlier one.

use std::fmt::Write as _;
use std::path::Path;
use std::str::FromStr;

use crate::bench::figures::{FORMAT, Report};
use crate::bench::table::{size, table, time, whole};

/// `5%`: how much worse a figure may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percent(f64);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected a percentage such as 5%, got {text}");
        let number: f64 = text.strip_suffix('%').ok_or_else(wrong)?.trim().parse().map_err(|_| wrong())?;
        if number.is_finite() && number >= 0.0 { Ok(Self(number)) } else { Err(wrong()) }
    }
}

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// Reads what an earlier `--json` wrote.
pub fn read_report(path: &Path) -> Result<Report, String> {
    let cannot = |why: String| format!("cannot read the earlier bench `{}`: {why}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| cannot(error.to_string()))?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| cannot(error.to_string()))?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format == u64::from(FORMAT) => {}
        Some(format) => return Err(cannot(format!("it is of format {format}, and this build knows format {FORMAT}"))),
        None => return Err(cannot("it has no `format`: no JSON of `bench --json`".to_owned())),
    }
    serde_json::from_value(value).map_err(|error| cannot(error.to_string()))
}

/// Two benches, figure by figure.
#[derive(Debug)]
pub struct Comparison {
    figures: Vec<Figure>,
    /// Under what they were not made alike.
    pub differences: Vec<String>,
    limit: Percent,
}

#[derive(Debug)]
struct Figure {
    name: &'static str,
    old: f64,
    new: f64,
    shown: fn(f64) -> String,
    better: Better,
    /// Whether it is judged, or only told.
    judged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Better {
    More,
    Less,
}

impl Comparison {
    /// Fails where the two have nothing in common: other payloads.
    pub fn new(old: &Report, new: &Report, limit: Percent) -> Result<Self, String> {
        if (old.payloads, old.payload_bytes) != (new.payloads, new.payload_bytes) {
            return Err(format!(
                "the earlier bench was of another recording: {} payloads of {} bytes, now {} of {}",
                old.payloads, old.payload_bytes, new.payloads, new.payload_bytes
            ));
        }
        Ok(Self { figures: figures(old, new), differences: differences(old, new), limit })
    }

    /// Those that are worse than may be.
    pub fn worse(&self) -> Vec<&'static str> {
        self.figures.iter().filter(|figure| figure.is_worse(self.limit)).map(|figure| figure.name).collect()
    }

    /// As a table; what is worse is red in `colour`.
    pub fn render(&self, colour: bool) -> String {
        let row = |figure: &Figure| {
            let verdict = match (figure.judged, figure.is_worse(self.limit)) {
                (false, _) => "",
                (true, true) => "worse",
                (true, false) => "ok",
            };
            let ratio = if figure.old > 0.0 { format!("{:.3}", figure.new / figure.old) } else { "–".to_owned() };
            let (old, new) = ((figure.shown)(figure.old), (figure.shown)(figure.new));
            vec![figure.name.to_owned(), old, new, ratio, verdict.to_owned()]
        };
        let rows: Vec<Vec<String>> = self.figures.iter().map(row).collect();
        let text = table(&["figure", "old", "new", "new/old", "verdict"], 1, &rows, colour);
        let mut text = if colour { text.replace("  worse\n", "  \x1b[31mworse\x1b[0m\n") } else { text };
        for difference in &self.differences {
            let _ = writeln!(text, "differs: {difference}");
        }
        text
    }
}

impl Figure {
    fn is_worse(&self, Percent(limit): Percent) -> bool {
        let limit = limit / 100.0;
        self.judged
            && match self.better {
                Better::More => self.new < self.old * (1.0 - limit),
                Better::Less => self.new > self.old * (1.0 + limit),
            }
    }
}

/// Judged is what is steady: the best rate, the least processor time, the memory.
#[expect(clippy::cast_precision_loss, reason = "bytes for people")]
fn figures(old: &Report, new: &Report) -> Vec<Figure> {
    let figure = |name, (old, new), shown, better, judged| Figure { name, old, new, shown, better, judged };
    let both = |of: fn(&Report) -> f64| (of(old), of(new));
    let mut figures = vec![
        figure("rows/s, best", both(|report| report.rows_per_second.best), whole, Better::More, true),
        figure("rows/s, median", both(|report| report.rows_per_second.median), whole, Better::More, false),
        figure("wall, best", both(|report| report.wall_seconds.best), time, Better::Less, false),
        figure("cpu, best", both(|report| report.cpu_seconds.best), time, Better::Less, true),
        figure("cpu, median", both(|report| report.cpu_seconds.median), time, Better::Less, false),
        figure("output", both(|report| report.output_bytes as f64), size, Better::Less, false),
    ];
    if let (Some(old), Some(new)) = (old.peak_resident_bytes, new.peak_resident_bytes) {
        figures.push(figure("memory", (old as f64, new as f64), size, Better::Less, true));
    }
    if let (Some(old), Some(new)) = (old.latency_seconds, new.latency_seconds) {
        figures.push(figure("latency, p50", (old.p50, new.p50), time, Better::Less, false));
        figures.push(figure("latency, p99", (old.p99, new.p99), time, Better::Less, false));
    }
    figures
}

fn differences(old: &Report, new: &Report) -> Vec<String> {
    let text = |report: &Report| {
        [
            ("version", report.version.clone()),
            ("pipeline file", report.pipeline_file.clone()),
            ("durable", report.durable.to_string()),
            ("checksum of the output", report.checksum.clone()),
            ("cores", report.machine.cores.to_string()),
            ("architecture", report.machine.architecture.clone()),
        ]
    };
    let pairs = text(old).into_iter().zip(text(new));
    let differ = pairs.filter(|((_, old), (_, new))| old != new);
    differ.map(|((what, old), (_, new))| format!("{what}: {old}, now {new}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(old: f64, new: f64, better: Better) -> Figure {
        Figure { name: "f", old, new, shown: whole, better, judged: true }
    }

    #[test]
    fn worse_is_beyond_the_limit_in_the_wrong_direction() {
        let limit = Percent(5.0);
        for (new, more, less) in
            [(94.0, true, false), (95.5, false, false), (104.5, false, false), (106.0, false, true)]
        {
            assert_eq!(figure(100.0, new, Better::More).is_worse(limit), more, "{new}");
            assert_eq!(figure(100.0, new, Better::Less).is_worse(limit), less, "{new}");
        }
    }

    #[test]
    fn percentages_are_read_as_they_are_written() {
        assert_eq!("5%".parse(), Ok(Percent(5.0)));
        assert_eq!("0.5 %".parse(), Ok(Percent(0.5)));
        for wrong in ["5", "-1%", "x%", "inf%", ""] {
            assert!(wrong.parse::<Percent>().is_err(), "{wrong}");
        }
        assert_eq!(Percent(5.0).to_string(), "5%");
    }
}
