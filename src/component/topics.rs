//! Topic patterns as a setting.

use crate::component::{Fault, Name};
use crate::flow::topic::Topics;

impl Topics {
    /// Reads patterns from a pipeline file. Every fault points at its pattern.
    pub fn read(patterns: &[Name]) -> Result<Self, Vec<Fault>> {
        Self::parse(patterns.iter().map(|name| name.text.as_str())).map_err(|wrong| {
            let fault = |(index, why): (usize, String)| {
                let name: &Name = &patterns[index];
                name.fault(format!("topic `{}`: {why}", name.text))
            };
            wrong.into_iter().map(fault).collect()
        })
    }
}
