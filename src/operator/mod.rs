//! Steps between source and sink: rows to rows.

use arrow::error::ArrowError;

use crate::component::{Fault, Kind};
use crate::flow::batch::Batch;
use crate::flow::message::Severed;
use crate::flow::outbox::Emit;
use crate::flow::schema::StreamSchema;
use crate::flow::state::{Part, Restored};
use crate::flow::time::Timestamp;

pub mod aggregate;
pub mod dedupe;
pub mod derive;
pub mod filter;
pub mod key_group;
pub mod window;

/// Every kind of operator.
pub static OPERATORS: &[Kind<dyn OperatorSpec>] = &[filter::KIND, derive::KIND, dedupe::KIND, window::KIND];

/// A synchronous step. One thread owns it; it knows no channel, clock, lock or counter of the pipeline, and no thread but
/// its own workers.
pub trait Operator: Send {
    /// Takes one batch, and emits any number.
    fn process(&mut self, batch: Batch, out: &mut dyn Emit) -> Result<(), OperatorError>;

    /// Event time has reached `watermark`. The stage passes the watermark on after this.
    fn advance(&mut self, watermark: Timestamp, out: &mut dyn Emit) -> Result<(), OperatorError> {
        let _ = (watermark, out);
        Ok(())
    }

    /// Emits what is still under way: an epoch is over. Called before every snapshot.
    fn flush(&mut self, out: &mut dyn Emit) -> Result<(), OperatorError> {
        let _ = out;
        Ok(())
    }

    /// How many groups or keys its state holds; `None` for an operator that keeps none.
    fn held(&self) -> Option<usize> {
        None
    }

    /// All parts of the state, in an order of the operator's own; none for an operator that keeps none. A part that has not
    /// changed since the snapshot before, or since `restore`, need not give its rows again. The operator goes on with it.
    fn snapshot(&mut self) -> Result<Vec<Part>, OperatorError> {
        Ok(Vec::new())
    }

    /// Takes back the parts of a snapshot, in their order; or of the snapshots of several workers, one after the other, each
    /// with all its parts. Of parts with a column `key_group` there may be the rows of some key groups only. Called at most
    /// once, before any row.
    fn restore(&mut self, parts: &[Restored]) -> Result<(), OperatorError> {
        if parts.is_empty() { Ok(()) } else { Err(OperatorError::Stateless) }
    }
}

/// An operator as the pipeline file describes it, checked as far as it can be without its input.
pub trait OperatorSpec: std::fmt::Debug + Send + Sync {
    /// Resolves columns and types. What can be wrong about the operator is found wrong here.
    fn bind(&self, input: &StreamSchema) -> Result<Bound, Vec<Fault>>;

    /// Whether it gathers rows by key, so that it must see all rows of a key.
    fn gathers(&self) -> bool {
        false
    }

    /// The columns by which it groups rows, in order: worth numbers from the source (see [`Batch`]).
    fn groups_by(&self) -> Vec<String> {
        Vec::new()
    }
}

/// An operator ready to run, and the shapes of what it emits.
pub struct Bound {
    /// The rows at its main output.
    pub output: StreamSchema,
    /// Its side output, if it has one: what follows the dot (`late`), and the rows there.
    pub side: Option<(&'static str, StreamSchema)>,
    /// The operator.
    pub operator: Box<dyn Operator>,
    /// One line for `check`.
    pub about: String,
    /// What its state depends on, by the setting's name: after a restart state is taken up only where all of it is as it
    /// was. Empty for an operator without state.
    pub identity: Identity,
}

/// Settings and types by name, as text that can be compared and shown.
pub type Identity = Vec<(String, String)>;

/// Why an operator failed.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Downstream is gone; the reason is downstream's to tell.
    #[error(transparent)]
    Severed(#[from] Severed),
    /// A kernel refused.
    #[error("cannot compute")]
    Compute(#[from] ArrowError),
    /// A declared limit was reached, and the pipeline file says to stop.
    #[error("{0}")]
    Limit(String),
    /// A worker cannot be started.
    #[error("cannot start a worker")]
    Thread(#[source] std::io::Error),
    /// State was given to an operator that keeps none, or that is not its own.
    #[error("the checkpoint has state that this operator cannot take")]
    Stateless,
}
