//! How fast recorded or simulated time passes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::component::{Node, Setting, Value};
use crate::flow::time::Span;

/// How fast arrival times are played: `max`, `1x`, `60x`, `0.5x`.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Speed {
    /// As fast as the pipeline takes it.
    #[default]
    Max,
    /// So many times as fast as it happened; greater than 0.
    Times(f64),
}

impl Speed {
    /// How long after the first payload the one that arrived `later` is due. `None` at once.
    pub fn wait(self, later: Span) -> Option<Duration> {
        match self {
            Self::Max => None,
            // What is no duration lies beyond every run.
            Self::Times(times) => Some(Duration::try_from_secs_f64(later.seconds() / times).unwrap_or(Duration::MAX)),
        }
    }
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no speed; write \"max\", \"1x\", \"60x\" or \"0.5x\"");
        if text == "max" {
            return Ok(Self::Max);
        }
        let number = text.strip_suffix('x').filter(|number| number.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
        let times: f64 = number.ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
        if times > 0.0 && times.is_finite() { Ok(Self::Times(times)) } else { Err(wrong()) }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max => f.write_str("max"),
            Self::Times(times) => write!(f, "{times}x"),
        }
    }
}

impl Setting for Speed {
    const EXPECTED: &'static str = "a speed like \"1x\" or \"max\"";

    fn read(node: &Node) -> Result<Self, Option<String>> {
        match &node.value {
            Value::String(text) => text.parse().map_err(Some),
            _ => Err(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_read_back_as_they_print() {
        for text in ["max", "1x", "60x", "0.5x"] {
            assert_eq!(text.parse::<Speed>().unwrap().to_string(), text);
        }
        for wrong in ["", "x", "0x", "-1x", "1", "infx", "nanx", "1e400x", "fast"] {
            assert!(wrong.parse::<Speed>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn time_passes_as_fast_as_it_is_told_to() {
        let minute = Span::from_secs(60);
        assert_eq!(Speed::Max.wait(minute), None);
        assert_eq!(Speed::Times(60.0).wait(minute), Some(Duration::from_secs(1)));
        assert_eq!(Speed::Times(0.5).wait(minute), Some(Duration::from_secs(120)));
        assert_eq!(Speed::Times(1e-300).wait(minute), Some(Duration::MAX));
    }
}
