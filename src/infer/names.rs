//! Names: what they say of a value, and how columns, paths and settings are written.

use std::collections::BTreeSet;

/// Words that name a time, and how well.
const TIME_NAMES: [(&str, i32); 22] = [
    ("ts", 50),
    ("time", 50),
    ("timestamp", 50),
    ("datetime", 45),
    ("date_time", 45),
    ("event_time", 50),
    ("measured_at", 50),
    ("sampled_at", 50),
    ("observed_at", 50),
    ("recorded_at", 45),
    ("t", 40),
    ("at", 35),
    ("date", 35),
    ("tst", 40),
    ("published_at", 35),
    ("created_at", 30),
    ("reported_at", 35),
    ("sent_at", 35),
    ("last_seen", 30),
    ("updated_at", 25),
    ("last_updated", 25),
    ("received_at", 15),
];
/// Words in the name of a time that is none of the payload.
const OTHER_TIMES: [&str; 8] = ["boot", "start", "expir", "next", "uptime", "since", "install", "until"];
/// Names of what tells devices apart, the best first.
pub(super) const ID_NAMES: [&str; 16] = [
    "device_id",
    "deviceid",
    "device",
    "dev_eui",
    "deveui",
    "sensor_id",
    "sensor",
    "node_id",
    "node",
    "id",
    "serial",
    "sn",
    "mac",
    "host",
    "name",
    "meter",
];
/// Parts of names of whole numbers that stay whole.
const WHOLE_NAMES: [&str; 14] = [
    "count", "cnt", "seq", "counter", "num", "port", "index", "code", "version", "rssi", "id", "serial", "uptime",
    "state",
];

/// How well the last word of a path names a time.
pub(super) fn time_name(path: &str) -> i32 {
    let last = path.rsplit(['.', '\'']).find(|part| part.chars().any(char::is_alphanumeric)).unwrap_or(path);
    let last = snake(last.trim_end_matches("[*]"));
    let last = last.trim_matches('_');
    if OTHER_TIMES.iter().any(|other| last.contains(other)) {
        return -50;
    }
    let known = TIME_NAMES.iter().find(|(name, _)| *name == last).map(|(_, score)| *score);
    let parts = || last.split('_').any(|part| matches!(part, "ts" | "time" | "timestamp" | "at" | "date"));
    known.unwrap_or_else(|| if parts() { 15 } else { 0 })
}

/// A step down into a field; none where no path can name it.
pub(super) fn step(path: &str, name: &str) -> Option<String> {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    match name {
        _ if bare => Some(format!("{path}.{name}")),
        _ if name.is_empty() => None,
        _ if !name.contains('\'') => Some(format!("{path}['{name}']")),
        _ if !name.contains('"') => Some(format!("{path}[\"{name}\"]")),
        _ => None,
    }
}

/// A name for a column that nobody has yet: the last part of its path, or more of them.
pub(super) fn name(parts: &[String], names: &BTreeSet<String>) -> String {
    // What begins with a digit is no name.
    let named = |parts: &[String]| match snake(&parts.join("_")) {
        name if name.starts_with(|c: char| c.is_ascii_digit()) => format!("_{name}"),
        name => name,
    };
    for from in (0..parts.len()).rev() {
        let name = named(&parts[from..]);
        let is_index = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
        if !is_index && !names.contains(&name) {
            return name;
        }
    }
    let name = named(parts);
    (2..).map(|count| format!("{name}_{count}")).find(|name| !names.contains(name)).unwrap_or(name)
}

/// `relHum.2` to `rel_hum_2`.
pub fn snake(name: &str) -> String {
    let mut out = String::new();
    let mut before = '_';
    for c in name.chars() {
        let plain = if c.is_ascii_alphanumeric() { c } else { '_' };
        if plain.is_ascii_uppercase() && (before.is_ascii_lowercase() || before.is_ascii_digit()) {
            out.push('_');
        }
        if plain != '_' || before != '_' {
            out.push(plain.to_ascii_lowercase());
        }
        before = plain;
    }
    out.trim_end_matches('_').to_owned()
}

/// A key of a TOML table.
pub fn key(word: &str) -> String {
    let bare = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if bare { word.to_owned() } else { quoted(word) }
}

/// A string of TOML.
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Whether the numbers of a name stay whole: what is counted or coded, not measured.
pub(super) fn stays_whole(name: &str) -> bool {
    snake(name).split('_').any(|word| WHOLE_NAMES.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_columns() {
        for (from, to) in [
            ("relHum", "rel_hum"),
            ("PM2.5", "pm2_5"),
            ("_timestamp", "timestamp"),
            ("Ünit", "nit"),
            ("devEUI", "dev_eui"),
        ] {
            assert_eq!(snake(from).trim_start_matches('_'), to, "{from}");
        }
        let mut names = BTreeSet::new();
        let parts = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
        for (path, expected) in [
            (&["env", "temp"][..], "temp"),
            (&["out", "temp"], "out_temp"),
            (&["out", "temp"], "out_temp_2"),
            (&["acc", "0"], "acc_0"),
            (&["3d"], "_3d"),
            (&["b", "3d"], "b_3d"),
            (&["3d"], "_3d_2"),
        ] {
            let name = name(&parts(path), &names);
            assert_eq!(name, expected);
            names.insert(name);
        }
    }

    #[test]
    fn paths_name_any_field() {
        assert_eq!(step("$", "a-b").as_deref(), Some("$.a-b"));
        assert_eq!(step("$.x", "a.b").as_deref(), Some("$.x['a.b']"));
        assert_eq!(step("$", "it's").as_deref(), Some("$[\"it's\"]"));
        assert_eq!(step("$", "'\"").as_deref(), None);
    }

    #[test]
    fn names_tell_times() {
        assert!(time_name("$.ts") > time_name("$.received_at"));
        assert!(time_name("$['Time']") > 0 && time_name("$.t[*]") > 0);
        assert!(time_name("$.uptime") < 0 && time_name("$.boot_time") < 0);
        assert_eq!(time_name("$.state"), 0);
    }
}
