//! Topic patterns: `sites/{site}/devices/{device}/telemetry` subscribes `sites/+/devices/+/telemetry`, and its
//! captures become columns. `{_}` matches a level without keeping it, a trailing `#` any number of levels.

/// The patterns of a source, and the captures of all of them.
#[derive(Clone, Debug, Default)]
pub struct Topics {
    patterns: Vec<Pattern>,
    captures: Vec<String>,
}

#[derive(Clone, Debug)]
struct Pattern {
    filter: String,
    levels: Vec<Level>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Literal(String),
    /// Any one level; with its place among the captures, if it is kept.
    Any(Option<usize>),
    /// Any number of levels, also none. Only at the end.
    Rest,
}

impl Topics {
    /// Of patterns. The errors say which of them is wrong, counted from nought, and why.
    pub fn parse<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Self, Vec<(usize, String)>> {
        let mut topics = Self::default();
        let mut wrong = Vec::new();
        for (index, text) in patterns.into_iter().enumerate() {
            match topics.pattern(text) {
                Ok(pattern) => topics.patterns.push(pattern),
                Err(why) => wrong.push((index, why)),
            }
        }
        if wrong.is_empty() { Ok(topics) } else { Err(wrong) }
    }

    fn pattern(&mut self, text: &str) -> Result<Pattern, String> {
        if text.is_empty() || text.len() > 65_535 || text.contains('\0') {
            return Err("expected 1 to 65535 bytes without NUL".to_owned());
        }
        let mut levels = Vec::new();
        let mut seen = Vec::new();
        let mut parts = text.split('/').peekable();
        while let Some(part) = parts.next() {
            levels.push(match part {
                "#" if parts.peek().is_none() => Level::Rest,
                "#" => return Err("`#` may stand only at the end".to_owned()),
                "+" | "{_}" => Level::Any(None),
                _ => match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                    Some(name) => {
                        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
                        if name.is_empty() || !name.chars().all(plain) {
                            return Err(format!("`{{{name}}}`: a capture is named by letters, digits and `_`"));
                        }
                        if seen.contains(&name) {
                            return Err(format!("`{{{name}}}` stands there twice"));
                        }
                        seen.push(name);
                        Level::Any(Some(self.capture(name)))
                    }
                    None if part.contains(['{', '}', '+', '#']) => {
                        return Err(format!("level `{part}`: a capture or wildcard is a whole level"));
                    }
                    None => Level::Literal(part.to_owned()),
                },
            });
        }
        let filter = levels.iter().map(|level| match level {
            Level::Literal(text) => text.as_str(),
            Level::Any(_) => "+",
            Level::Rest => "#",
        });
        Ok(Pattern { filter: filter.collect::<Vec<_>>().join("/"), levels })
    }

    fn capture(&mut self, name: &str) -> usize {
        self.captures.iter().position(|known| known == name).unwrap_or_else(|| {
            self.captures.push(name.to_owned());
            self.captures.len() - 1
        })
    }

    /// The names of the captures of all patterns: the columns that come from the topic.
    pub fn captures(&self) -> &[String] {
        &self.captures
    }

    /// What to subscribe to, a filter a pattern.
    pub fn filters(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(|pattern| pattern.filter.as_str())
    }

    /// The captures of a topic by the first pattern that matches it, in the order of [`Self::captures`]: `None`
    /// where that pattern has no such capture. False, and no captures, where no pattern matches.
    pub fn matches<'t>(&self, topic: &'t [u8], captures: &mut Vec<Option<&'t [u8]>>) -> bool {
        self.patterns.iter().any(|pattern| {
            captures.clear();
            captures.resize(self.captures.len(), None);
            pattern.matches(topic, captures)
        }) || {
            captures.clear();
            captures.resize(self.captures.len(), None);
            false
        }
    }
}

impl Pattern {
    fn matches<'t>(&self, topic: &'t [u8], captures: &mut [Option<&'t [u8]>]) -> bool {
        let mut parts = topic.split(|byte| *byte == b'/');
        for (index, level) in self.levels.iter().enumerate() {
            match (level, parts.next()) {
                // A wildcard at the front does not match the broker's own `$SYS` topics (MQTT 5, 4.7.2).
                (Level::Rest | Level::Any(_), _) if index == 0 && topic.first() == Some(&b'$') => return false,
                (Level::Rest, _) => return true,
                (Level::Literal(text), Some(part)) if text.as_bytes() == part => (),
                (Level::Any(None), Some(_)) => (),
                (Level::Any(Some(place)), Some(part)) => captures[*place] = Some(part),
                _ => return false,
            }
        }
        parts.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(patterns: &[&str]) -> Result<Topics, Vec<(usize, String)>> {
        Topics::parse(patterns.iter().copied())
    }

    fn captured(topics: &Topics, topic: &str) -> Option<String> {
        let mut captures = Vec::new();
        let matched = topics.matches(topic.as_bytes(), &mut captures);
        let text =
            |part: &Option<&[u8]>| part.map_or("-".to_owned(), |part| String::from_utf8_lossy(part).into_owned());
        matched.then(|| captures.iter().map(text).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn captures_become_columns() {
        let topics = topics(&["sites/{site}/{_}/{device}/t", "alt/{device}/#"]).unwrap();
        assert_eq!(topics.filters().collect::<Vec<_>>(), ["sites/+/+/+/t", "alt/+/#"]);
        assert_eq!(topics.captures(), ["site", "device"]);
        assert_eq!(captured(&topics, "sites/a/x/d1/t").as_deref(), Some("a,d1"));
        assert_eq!(captured(&topics, "sites//x//t").as_deref(), Some(","));
        assert_eq!(captured(&topics, "alt/d2/any/thing").as_deref(), Some("-,d2"));
        assert_eq!(captured(&topics, "alt/d2").as_deref(), Some("-,d2"));
        assert_eq!(captured(&topics, "sites/a/x/d1/t/u"), None);
        assert_eq!(captured(&topics, "sites/a/x/d1"), None);
    }

    #[test]
    fn wildcards_leave_the_brokers_topics_alone() {
        assert_eq!(captured(&topics(&["#"]).unwrap(), "$SYS/broker"), None);
        assert_eq!(captured(&topics(&["+/broker"]).unwrap(), "$SYS/broker"), None);
        assert_eq!(captured(&topics(&["$SYS/#"]).unwrap(), "$SYS/broker").as_deref(), Some(""));
    }

    #[test]
    fn wrong_patterns_say_why() {
        for wrong in ["", "a/#/b", "a/b{c}", "a/{}", "a/{x y}", "{a}/{a}", "a+/b"] {
            assert!(topics(&[wrong]).is_err(), "{wrong}");
        }
    }
}
