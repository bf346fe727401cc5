//! `streamgauge list`: what this build contains.

use std::process::ExitCode;

use crate::component::Kind;
use crate::operator::aggregate;

/// Prints a table a kind of part.
pub(super) fn list() -> ExitCode {
    section("sources", crate::ingest::SOURCES);
    section("formats", crate::format::FORMATS);
    section("operators", crate::operator::OPERATORS);
    println!("aggregates");
    for (name, about) in aggregate::AGGREGATES {
        println!("  {name:<14}{about}");
    }
    let ours: Vec<&str> = aggregate::AGGREGATES.iter().map(|(name, _)| *name).collect();
    let (_, aggregates) = crate::expr::function_names();
    let others: Vec<String> = aggregates.into_iter().filter(|name| !ours.contains(&name.as_str())).collect();
    println!("  and by DataFusion: {}", others.join(" "));
    section("sinks", crate::sink::SINKS);
    ExitCode::SUCCESS
}

fn section<S: ?Sized>(title: &str, kinds: &[Kind<S>]) {
    println!("{title}");
    for kind in kinds {
        println!("  {:<14}{}", kind.name, kind.about);
    }
}
