//! Whether a changed pipeline file can take up the state of the one before.
//!
//! State belongs to a stage of one name and kind, and to the settings that it depends on (its identity). Everything else may
//! change: filters and sinks come and go, lateness grows. A stage that is new begins empty.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::engine::checkpoint::manifest::{Manifest, StageState};
use crate::operator::Identity;

/// A stage as the pipeline file has it now.
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) identity: Identity,
    pub(crate) source: bool,
}

/// Takes the state of `reset` out of the manifest; what is wrong with the rest, if anything.
pub(crate) fn reconcile(
    manifest: &mut Manifest,
    wanted: &[Wanted],
    reset: &BTreeSet<String>,
    folder: &std::path::Path,
) -> Result<(), String> {
    if let Some(unknown) = reset.iter().find(|name| !manifest.stages.contains_key(*name)) {
        let known: Vec<&str> = manifest.stages.keys().map(String::as_str).collect();
        return Err(format!("--reset-operator {unknown}: the state has no such stage; it has {}", known.join(", ")));
    }
    let mut differences = String::new();
    let mut names = Vec::new();
    for (name, state) in &manifest.stages {
        let before = differences.len();
        if !reset.contains(name) {
            compare(name, state, wanted.iter().find(|wanted| wanted.name == *name), &mut differences);
        }
        if differences.len() > before {
            names.push(format!("--reset-operator {name}"));
        }
    }
    if !names.is_empty() {
        return Err(format!(
            "the pipeline file has changed so that the state in `{}` (epoch {}) does not fit any more:\n{differences}\
             put it back, or give up the state of these stages with {}, or all state with --reset-state; what is in open windows \
             is lost then",
            folder.display(),
            manifest.epoch,
            names.join(" ")
        ));
    }
    for name in reset {
        let state = manifest.stages.get_mut(name).expect("names were looked at above");
        state.parts.clear();
    }
    manifest.stages.retain(|name, _| wanted.iter().any(|wanted| wanted.name == *name));
    Ok(())
}

/// Adds a line for every difference that state cannot follow.
fn compare(name: &str, was: &StageState, now: Option<&Wanted>, out: &mut String) {
    let rows: u64 = was.parts.iter().map(|part| part.rows).sum();
    let mut line = |what: std::fmt::Arguments<'_>| {
        writeln!(out, "  {what}").expect("writing to a string never fails");
    };
    let Some(now) = now else {
        if was.source.is_some() {
            line(format_args!("`{name}`: was a source ({}), is gone; payloads may wait in its journal", was.kind));
        } else if rows > 0 {
            line(format_args!("`{name}`: was a {} with {rows} rows of state, is gone", was.kind));
        }
        return;
    };
    // A source may become one of another kind: what waits in its journal are payloads all the same.
    if now.kind != was.kind && (rows > 0 || was.source.is_some() && !now.source) {
        line(format_args!("`{name}`: was a {}, is a {}", was.kind, now.kind));
        return;
    }
    if was.parts.is_empty() {
        return;
    }
    let find = |identity: &Identity, key: &str| {
        identity.iter().find(|(known, _)| known == key).map_or("nothing".to_owned(), |(_, value)| format!("`{value}`"))
    };
    let keys: Vec<&str> = was.identity.iter().chain(&now.identity).map(|(key, _)| key.as_str()).collect();
    let mut seen = BTreeSet::new();
    for key in keys.into_iter().filter(|key| seen.insert(*key)) {
        let (before, after) = (find(&was.identity, key), find(&now.identity, key));
        if before != after {
            line(format_args!("`{name}.{key}`: was {before}, is {after}"));
        }
    }
    let order = |identity: &Identity| identity.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    if was.identity.len() == now.identity.len()
        && seen.len() == now.identity.len()
        && order(&was.identity) != order(&now.identity)
    {
        let list = |identity: &Identity| order(identity).join(", ");
        line(format_args!("`{name}`: the order was {}, is {}", list(&was.identity), list(&now.identity)));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::engine::checkpoint::manifest::PartFile;
    use crate::ingest::intake::SourceState;

    fn identity(pairs: &[(&str, &str)]) -> Identity {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn manifest() -> Manifest {
        let part = PartFile { name: "all".into(), file: "f".into(), bytes: 1, crc32c: 1, rows: 7 };
        let identity = identity(&[("window", "tumbling 10s"), ("group_by", "device utf8")]);
        let window = StageState { kind: "window".into(), identity, parts: vec![part], ..Default::default() };
        let filter = StageState { kind: "filter".into(), ..Default::default() };
        let stages = BTreeMap::from([("w".to_owned(), window), ("f".to_owned(), filter)]);
        Manifest { pipeline: "p".into(), run: "r".into(), file: "x".into(), epoch: 3, stages }
    }

    fn wanted(name: &str, kind: &'static str, pairs: &[(&str, &str)]) -> Wanted {
        Wanted { name: name.to_owned(), kind, identity: identity(pairs), source: kind == "mqtt" }
    }

    fn check(wanted: &[Wanted], reset: &[&str]) -> Result<Manifest, String> {
        let mut manifest = manifest();
        let reset = reset.iter().map(|name| (*name).to_owned()).collect();
        reconcile(&mut manifest, wanted, &reset, Path::new("state/p")).map(|()| manifest)
    }

    #[test]
    fn filters_and_sinks_come_and_go() {
        let same = [("window", "tumbling 10s"), ("group_by", "device utf8")];
        let after = check(&[wanted("w", "window", &same), wanted("s", "parquet", &[("input", "x")])], &[]).unwrap();
        assert_eq!(after.stages.keys().collect::<Vec<_>>(), ["w"]);
        assert_eq!(after.stages["w"].parts.len(), 1);
    }

    #[test]
    fn what_state_cannot_follow_is_told_exactly() {
        let other = [("window", "tumbling 20s"), ("group_by", "device utf8")];
        let why = check(&[wanted("w", "window", &other)], &[]).unwrap_err();
        assert!(why.contains("`w.window`: was `tumbling 10s`, is `tumbling 20s`\n"), "{why}");
        assert!(why.contains("--reset-operator w"), "{why}");
        let why = check(&[], &[]).unwrap_err();
        assert!(why.contains("`w`: was a window with 7 rows of state, is gone"), "{why}");
        let why = check(&[wanted("w", "dedupe", &[])], &[]).unwrap_err();
        assert!(why.contains("`w`: was a window, is a dedupe"), "{why}");
        let fewer = [("window", "tumbling 10s")];
        assert!(
            check(&[wanted("w", "window", &fewer)], &[])
                .unwrap_err()
                .contains("`w.group_by`: was `device utf8`, is nothing")
        );
    }

    #[test]
    fn a_source_may_become_another_kind_of_source_and_nothing_else() {
        let was = |now: &[Wanted]| {
            let source =
                StageState { kind: "fleet".into(), source: Some(SourceState::default()), ..Default::default() };
            let mut manifest = Manifest { stages: BTreeMap::from([("s".to_owned(), source)]), ..manifest() };
            reconcile(&mut manifest, now, &BTreeSet::new(), Path::new("state/p"))
        };
        assert_eq!(was(&[wanted("s", "mqtt", &[])]), Ok(()));
        assert!(was(&[wanted("s", "filter", &[])]).unwrap_err().contains("`s`: was a fleet, is a filter"));
        assert!(was(&[]).unwrap_err().contains("`s`: was a source (fleet), is gone"));
    }

    #[test]
    fn a_stage_can_be_begun_anew() {
        let other = [("window", "tumbling 20s")];
        let after = check(&[wanted("w", "window", &other)], &["w"]).unwrap();
        assert_eq!(after.stages["w"].parts, []);
        let why = check(&[wanted("w", "window", &other)], &["v"]).unwrap_err();
        assert_eq!(why, "--reset-operator v: the state has no such stage; it has f, w");
    }
}
