//! Windows the naive way: every row that was accepted is kept, and counted anew whenever a window is due. It shares no
//! code with the operator but the types of its settings.

use std::collections::BTreeMap;

use streamgauge::operator::window::core::{Clock, Late};

use crate::case::{Case, Emission, Kind, Numbers, Place, Row, cut};

pub(crate) fn numbers(rows: &[Row]) -> Numbers {
    let mut valued: Vec<(i64, i64)> = rows.iter().filter_map(|row| row.2.map(|value| (row.0, value))).collect();
    valued.sort_by_key(|(at, _)| *at);
    let sum = (!valued.is_empty()).then(|| valued.iter().map(|(_, value)| value).sum());
    let first = valued.first().map(|first| first.1);
    (rows.len() as i64, sum, first, valued.last().map(|last| last.1))
}

/// The naive way: every window keeps its rows.
pub(crate) struct Oracle {
    case: Case,
    /// Open windows: rows, and how often each was emitted, and whether rows came since.
    open: BTreeMap<Place, (Vec<Row>, i64, bool)>,
    watermarks: BTreeMap<Option<u8>, i64>,
    pub(crate) emissions: Vec<Emission>,
    pub(crate) late: Vec<Row>,
}

impl Oracle {
    fn new(case: Case) -> Self {
        Self { case, open: BTreeMap::new(), watermarks: BTreeMap::new(), emissions: Vec::new(), late: Vec::new() }
    }

    fn closed(&self, device: Option<u8>) -> i64 {
        match self.watermarks.get(&device) {
            None => i64::MIN,
            Some(&i64::MAX) => i64::MAX,
            Some(watermark) => watermark - self.case.lateness,
        }
    }

    /// The windows that a row is in, if they were all open.
    fn places(&self, row: Row) -> Vec<Place> {
        match self.case.kind {
            Kind::Grid { size, slide, offset } => (-200..200)
                .map(|k| (offset + k * slide, offset + k * slide + size, row.1))
                .filter(|(start, end, _)| *start <= row.0 && row.0 < *end)
                .collect(),
            Kind::Session { gap } => {
                let near = |place: &&Place| place.2 == row.1 && row.0 < place.1 && row.0 + gap > place.0;
                let touched = self.open.keys().filter(near).map(|place| (place.0, place.1));
                let own = (row.0, row.0 + gap);
                let (start, end) = touched.fold(own, |all, place| (all.0.min(place.0), all.1.max(place.1)));
                vec![(start, end, row.1)]
            }
        }
    }

    fn push(&mut self, row: Row) {
        let closed = self.closed(row.1);
        let places: Vec<Place> = self.places(row).into_iter().filter(|place| place.1 > closed).collect();
        if places.is_empty() {
            self.late.push(row);
        }
        for place in places {
            let mut window = (Vec::new(), 0, true);
            if matches!(self.case.kind, Kind::Session { .. }) {
                let inside = |old: &Place| old.2 == row.1 && old.0 >= place.0 && old.1 <= place.1;
                let joined: Vec<Place> = self.open.keys().filter(|old| inside(old)).copied().collect();
                for old in joined {
                    let (rows, times, _) = self.open.remove(&old).unwrap();
                    window.0.extend(rows);
                    window.1 = times.max(window.1);
                }
            } else if let Some(old) = self.open.remove(&place) {
                window = old;
            }
            window.0.push(row);
            window.2 = true;
            self.open.insert(place, window);
        }
    }

    /// Emits what is due for a group, and closes what is to be closed.
    fn settle(&mut self, device: Option<u8>) {
        let closed = self.closed(device);
        let watermark = self.watermarks.get(&device).copied().unwrap_or(i64::MIN);
        let fire = if self.case.late == Late::Update { watermark } else { closed };
        for (place, window) in self.open.iter_mut().filter(|(place, _)| place.2 == device) {
            if window.2 && place.1 <= fire {
                self.emissions.push((*place, numbers(&window.0), window.1));
                window.1 += 1;
                window.2 = false;
            }
        }
        self.open.retain(|place, _| place.2 != device || place.1 > closed);
    }

    fn tick(&mut self, device: Option<u8>, watermark: i64) {
        let known = self.watermarks.entry(device).or_insert(i64::MIN);
        *known = watermark.max(*known);
        self.settle(device);
    }
}

pub(crate) const DEVICES: [Option<u8>; 4] = [None, Some(0), Some(1), Some(2)];

/// The oracle over batches of rows; a watermark of the stream follows each batch.
pub(crate) fn oracle(case: Case, rows: &[Row], cuts: &[usize]) -> Oracle {
    let mut oracle = Oracle::new(case);
    let mut seen = i64::MIN;
    for rows in cut(rows, cuts) {
        for row in rows {
            let late = oracle.late.len();
            oracle.push(*row);
            if late == oracle.late.len() {
                match case.clock {
                    Clock::Group => oracle.tick(row.1, row.0 - case.disorder),
                    // A window behind the watermark that gets a row shows it at once.
                    Clock::Stream => oracle.settle(row.1),
                }
            }
            seen = seen.max(row.0);
        }
        if case.clock == Clock::Group {
            let minute = 60_000_000;
            let floor = ((seen - case.disorder).div_euclid(minute) - case.idle_minutes) * minute;
            DEVICES.into_iter().for_each(|device| oracle.tick(device, floor));
        } else {
            DEVICES.into_iter().for_each(|device| oracle.tick(device, seen - case.disorder));
        }
    }
    DEVICES.into_iter().for_each(|device| oracle.tick(device, i64::MAX));
    oracle
}
