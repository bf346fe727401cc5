//! What a bench measures, beyond what the engine counts anyway: checksums of what sinks are given, output that goes
//! elsewhere, the figures as a report, as tables, and beside those of an earlier bench. The command that runs it is
//! `cli::bench`.

mod checksum;
mod compare;
mod elsewhere;
mod figures;
mod print;
mod table;
mod tap;

pub use checksum::Checksum;
pub use compare::{Comparison, Percent, read_report};
pub use elsewhere::{Elsewhere, bytes_below};
pub use figures::{
    Best, Bottleneck, FORMAT, LatencyFigures, Machine, Report, Shares, SinkFigures, SinkUse, StageFigures, bottleneck,
};
pub use tap::{Tapped, Told, Written};
