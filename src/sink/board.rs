//! Where `metrics` sinks show their newest rows to the HTTP server.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

/// Batches that a slow client of `/api/v1/stream` may be behind; then it is told how many it missed.
const EVENTS_KEPT: usize = 16;

/// The boards of all `metrics` sinks, by pipeline and sink.
#[derive(Debug, Default)]
pub struct Boards(RwLock<BTreeMap<(String, String), Arc<Board>>>);

impl Boards {
    /// Puts a board up; in the place of one that another run of the same sink left.
    pub fn put(&self, board: Arc<Board>) {
        let key = (board.pipeline.clone(), board.sink.clone());
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key, board);
    }

    /// All boards, by pipeline and sink.
    pub fn all(&self) -> Vec<Arc<Board>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The board of a sink; of the first pipeline that has one of this name, where no pipeline is asked for.
    pub fn get(&self, pipeline: Option<&str>, sink: &str) -> Option<Arc<Board>> {
        let boards = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = boards.values().filter(|board| board.sink == sink);
        found.find(|board| pipeline.is_none_or(|pipeline| board.pipeline == pipeline)).cloned()
    }
}

/// The newest row of every group that one sink has seen.
#[derive(Debug)]
pub struct Board {
    /// The pipeline's name.
    pub pipeline: String,
    /// The sink's name.
    pub sink: String,
    /// The names of the gauges, in the order of [`Series::values`].
    pub gauges: Vec<String>,
    /// At most so many groups are shown.
    series_max: usize,
    /// Groups that got no row for so long are not shown.
    stale_after: Option<Duration>,
    series: RwLock<HashMap<String, Series>>,
    events: broadcast::Sender<Arc<str>>,
    /// Rows of groups for which there was no room.
    dropped: AtomicU64,
}

/// The newest row of a group.
#[derive(Clone, Debug)]
pub struct Series {
    /// As JSON.
    pub json: String,
    /// The gauges.
    pub values: Vec<Option<f64>>,
    /// Its event time, in microseconds.
    pub time: i64,
    /// When it came.
    pub seen: Instant,
    /// Where the sink has the row itself: among its batches, and within one.
    pub(crate) kept: (usize, usize),
}

impl Board {
    /// An empty board.
    pub fn new(
        pipeline: &str,
        sink: &str,
        gauges: Vec<String>,
        series_max: usize,
        stale_after: Option<Duration>,
    ) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            sink: sink.to_owned(),
            gauges,
            series_max,
            stale_after,
            series: RwLock::default(),
            events: broadcast::channel(EVENTS_KEPT).0,
            dropped: AtomicU64::new(0),
        }
    }

    /// Rows of groups for which there was no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Every batch from now on, as a JSON array.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        self.events.subscribe()
    }

    /// Whether anybody listens to [`Board::subscribe`].
    pub(crate) fn is_watched(&self) -> bool {
        self.events.receiver_count() > 0
    }

    /// Tells the listeners of a batch.
    pub(crate) fn announce(&self, rows: &str) {
        // Nobody listens any more: nothing to tell.
        let _ = self.events.send(Arc::from(rows));
    }

    /// Changes the shown rows under one lock, for a whole batch.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Shown<'_>)) {
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        let mut shown = Shown { board: self, series: &mut series, now: Instant::now(), cleared: false, dropped: 0 };
        change(&mut shown);
        self.dropped.fetch_add(shown.dropped, Relaxed);
    }

    /// Visits every group that is shown: its labels as Prometheus text without braces, and its row.
    pub fn visit(&self, mut visit: impl FnMut(&str, &Series)) {
        let now = Instant::now();
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        series.iter().filter(|(_, row)| !self.is_stale(row, now)).for_each(|(labels, row)| visit(labels, row));
    }

    /// The newest rows as a JSON array, ordered by their labels.
    pub fn latest(&self) -> String {
        let mut rows = Vec::new();
        self.visit(|labels, row| rows.push((labels.to_owned(), row.json.clone())));
        rows.sort();
        let mut out = String::from("[");
        for (index, (_, json)) in rows.iter().enumerate() {
            write!(out, "{}{json}", if index > 0 { "," } else { "" }).expect("writing to a string never fails");
        }
        out.push(']');
        out
    }

    fn is_stale(&self, row: &Series, now: Instant) -> bool {
        self.stale_after.is_some_and(|after| after < now.saturating_duration_since(row.seen))
    }
}

/// A board while it is changed.
pub(crate) struct Shown<'a> {
    board: &'a Board,
    series: &'a mut HashMap<String, Series>,
    now: Instant,
    /// Stale groups were taken down already.
    cleared: bool,
    dropped: u64,
}

impl Shown<'_> {
    /// Takes down what is not shown any more, and visits the rest in the order of the labels.
    pub(crate) fn each(&mut self, mut visit: impl FnMut(&mut Series)) {
        self.series.retain(|_, row| !self.board.is_stale(row, self.now));
        let mut series: Vec<_> = self.series.iter_mut().collect();
        series.sort_by(|a, b| a.0.cmp(b.0));
        series.into_iter().for_each(|(_, row)| visit(row));
    }

    /// How many groups there are.
    pub(crate) fn len(&self) -> usize {
        self.series.len()
    }

    /// Shows a row, unless its group shows a newer one or there is no room. `fill` gets the row that is replaced.
    pub(crate) fn row(&mut self, labels: &str, time: i64, fill: impl FnOnce(&mut Series)) {
        if !self.series.contains_key(labels) && !self.make_room() {
            self.dropped += 1;
            return;
        }
        if let Some(row) = self.series.get_mut(labels) {
            if row.time <= time {
                (row.time, row.seen) = (time, self.now);
                row.json.clear();
                row.values.clear();
                fill(row);
            }
            return;
        }
        let mut row = Series { json: String::new(), values: Vec::new(), time, seen: self.now, kept: (0, 0) };
        fill(&mut row);
        self.series.insert(labels.to_owned(), row);
    }

    fn make_room(&mut self) -> bool {
        if self.series.len() >= self.board.series_max && !self.cleared {
            self.series.retain(|_, row| !self.board.is_stale(row, self.now));
            self.cleared = true;
        }
        self.series.len() < self.board.series_max
    }
}
