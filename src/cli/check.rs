//! `streamgauge check`: opens, connects and creates nothing.

use std::path::PathBuf;
use std::process::ExitCode;

/// Prints the plan of each file, or every fault of all.
pub(super) fn check(paths: &[PathBuf]) -> ExitCode {
    match super::load(paths) {
        Ok(plans) => {
            plans.iter().for_each(|plan| print!("{plan}"));
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}
