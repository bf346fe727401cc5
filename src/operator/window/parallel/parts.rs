//! The parts of a snapshot: whose they are, and how another number of workers takes them back.

use arrow::array::cast::AsArray;
use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Int64Type, UInt8Type};

use super::owners::owner;
use crate::flow::state::{Part, Restored};
use crate::operator::OperatorError;

/// How the names of parts begin that a worker wrote: `worker-NUMBER-OF-` and the part's own name.
const PREFIX: &str = "worker-";

/// The columns whose values are less than the number of any row to come.
const COUNTED: [&str; 2] = ["order", "begun"];

/// Parts with their worker's name before theirs.
pub(super) fn named(parts: Vec<Part>, worker: usize, workers_len: usize) -> impl Iterator<Item = Part> {
    parts.into_iter().map(move |part| Part { name: format!("{PREFIX}{worker}-{workers_len}-{}", part.name), ..part })
}

/// Whose a part is, of how many, and its own name.
fn whose(name: &str) -> Option<(usize, usize, &str)> {
    let (worker, rest) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let (workers_len, own) = rest.split_once('-')?;
    Some((worker.parse().ok()?, workers_len.parse().ok()?, own))
}

/// A part's own name, whoever wrote it.
pub(in super::super) fn own_name(name: &str) -> &str {
    whose(name).map_or(name, |(_, _, own)| own)
}

/// The number of the first row to come.
pub(super) fn next_row(parts: &[Restored]) -> i64 {
    let greatest = |(_, rows): &Restored| {
        let columns = COUNTED.iter().filter_map(|name| rows.column_by_name(name));
        let columns = columns.filter(|column| *column.data_type() == DataType::Int64);
        columns.filter_map(|column| arrow::compute::max(column.as_primitive::<Int64Type>())).max()
    };
    parts.iter().filter_map(greatest).max().map_or(0, |greatest| greatest.saturating_add(1).max(0))
}

/// What every worker takes back, and whether those are the very parts that it wrote.
pub(super) fn shares(parts: &[Restored], workers_len: usize) -> Result<Vec<(Vec<Restored>, bool)>, OperatorError> {
    let written = |(name, rows): &Restored| {
        let (worker, of, own) = whose(name)?;
        (of == workers_len && worker < of).then(|| (worker, (own.to_owned(), rows.clone())))
    };
    if let Some(all) = parts.iter().map(written).collect::<Option<Vec<_>>>() {
        let mut shares = vec![(Vec::new(), true); workers_len];
        all.into_iter().for_each(|(worker, part)| shares[worker].0.push(part));
        return Ok(shares);
    }
    let share = |worker: usize| {
        let own = |(name, rows): &Restored| Ok((own_name(name).to_owned(), of_worker(rows, worker, workers_len)?));
        Ok((parts.iter().map(own).collect::<Result<_, OperatorError>>()?, false))
    };
    (0..workers_len).map(share).collect()
}

/// The rows of a worker's key groups; all of a part that has none.
fn of_worker(rows: &RecordBatch, worker: usize, workers_len: usize) -> Result<RecordBatch, OperatorError> {
    let Some(groups) = rows.column_by_name("key_group").filter(|groups| *groups.data_type() == DataType::UInt8) else {
        return Ok(rows.clone());
    };
    let groups = groups.as_primitive::<UInt8Type>().values();
    let is_own = |group: &u8| Some(usize::from(owner(*group, workers_len)) == worker);
    Ok(filter_record_batch(rows, &groups.iter().map(is_own).collect::<BooleanArray>())?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, UInt8Array};

    use super::*;

    fn part(name: &str, groups: Vec<u8>, order: Vec<i64>) -> Restored {
        let groups: ArrayRef = Arc::new(UInt8Array::from(groups));
        let order: ArrayRef = Arc::new(Int64Array::from(order));
        (name.to_owned(), RecordBatch::try_from_iter([("key_group", groups), ("order", order)]).unwrap())
    }

    fn groups((_, rows): &Restored) -> Vec<u8> {
        rows.column(0).as_primitive::<UInt8Type>().values().to_vec()
    }

    #[test]
    fn workers_get_their_own_parts_back() {
        let rows = part("pane-5", vec![1], vec![0]).1;
        let parts: Vec<_> =
            (0..2).flat_map(|worker| named(vec![Part::changed("pane-5", rows.clone())], worker, 2)).collect();
        assert_eq!((&*parts[0].name, &*parts[1].name), ("worker-0-2-pane-5", "worker-1-2-pane-5"));
        let parts: Vec<Restored> = parts.into_iter().map(|part| (part.name, part.rows.unwrap())).collect();
        let shares = shares(&parts, 2).unwrap();
        assert!(shares.iter().all(|(parts, same)| *same && parts.len() == 1 && parts[0].0 == "pane-5"));
    }

    #[test]
    fn others_get_the_rows_of_their_key_groups() {
        let parts =
            [part("worker-0-2-pane--7", vec![0, 100], vec![3, 9]), part("worker-1-2-pane--7", vec![200], vec![12])];
        assert_eq!(next_row(&parts), 13);
        let shares = shares(&parts, 3).unwrap();
        let all: Vec<Vec<Vec<u8>>> = shares.iter().map(|(parts, _)| parts.iter().map(groups).collect()).collect();
        assert_eq!(all, [[vec![0], vec![]], [vec![100], vec![]], [vec![], vec![200]]]);
        assert!(shares.iter().all(|(parts, same)| !same && parts.iter().all(|(name, _)| name == "pane--7")));
        // One operator wrote this.
        let alone = [part("pane-1", vec![255], vec![0])];
        assert_eq!(super::shares(&alone, 2).unwrap()[1].0.iter().map(groups).collect::<Vec<_>>(), [[255]]);
        assert_eq!(next_row(&[]), 0);
    }
}
