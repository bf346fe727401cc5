"""Bytewax: a dataflow of one worker, as Python runs one thread at a time."""

from datetime import datetime, timedelta, timezone
from importlib.metadata import version

import bytewax.operators as op
import bytewax.operators.windowing as win
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from bytewax.connectors.files import FileSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main
from peer import run

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
LENGTH = timedelta(seconds=10)
COLUMNS = ["window_start", "device", "samples", "temp_min", "temp_max", "temp_avg"]


def decoded(line):
    reading = orjson.loads(line)
    return reading["device"], (EPOCH + timedelta(milliseconds=reading["ts"]), reading["temp"])


def empty():
    return 0, float("inf"), float("-inf"), 0.0


def folded(state, reading):
    count, low, high, total = state
    temp = reading[1]
    return count + 1, min(low, temp), max(high, temp), total + temp


def merged(a, b):
    return a[0] + b[0], min(a[1], b[1]), max(a[2], b[2]), a[3] + b[3]


def row(item):
    device, (window, (count, low, high, total)) = item
    return EPOCH + window * LENGTH, device, count, low, high, total / count


class Rows(StatelessSinkPartition):
    def __init__(self, path):
        self.path, self.rows = path, []

    def write_batch(self, items):
        self.rows.extend(items)

    def close(self):
        pq.write_table(pa.table(list(map(list, zip(*self.rows))), names=COLUMNS), self.path, compression="zstd")


class RowsSink(DynamicSink):
    def __init__(self, path):
        self.path = path

    def build(self, _step, _worker, _workers):
        return Rows(self.path)


def windows(feed, out):
    flow = Dataflow("windows")
    readings = op.map("decode", op.input("feed", flow, FileSource(feed)), decoded)
    clock = win.EventClock(ts_getter=lambda reading: reading[0], wait_for_system_duration=timedelta(0))
    windower = win.TumblingWindower(length=LENGTH, align_to=EPOCH)
    closed = win.fold_window("windows", readings, clock, windower, empty, folded, merged, ordered=False)
    op.output("out", op.map("row", closed.down, row), RowsSink(out / "windows.parquet"))
    run_main(flow)


if __name__ == "__main__":
    run(version("bytewax"), windows=windows)
