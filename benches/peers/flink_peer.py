"""Flink SQL as a stream of one task slot. Its package on PyPI has no Parquet: it writes CSV."""

import os
from importlib.metadata import version

from peer import run
from pyflink.java_gateway import get_gateway
from pyflink.table import EnvironmentSettings, TableEnvironment

SOURCE = """CREATE TABLE feed (device STRING, ts BIGINT, temp DOUBLE, q BIGINT, seq BIGINT,
        rowtime AS TO_TIMESTAMP_LTZ(ts, 3), WATERMARK FOR rowtime AS rowtime)
    WITH ('connector' = 'filesystem', 'path' = 'file://{feed}', 'format' = 'json')"""

SINK = """CREATE TABLE answer (window_start TIMESTAMP(3), device STRING, samples BIGINT, temp_min DOUBLE, temp_max DOUBLE,
        temp_avg DOUBLE)
    WITH ('connector' = 'filesystem', 'path' = 'file://{out}/windows.csv', 'format' = 'csv')"""

INSERT = """INSERT INTO answer SELECT window_start, device, count(*), min(temp), max(temp), avg(temp)
    FROM TABLE({windows}) GROUP BY window_start, window_end, device"""

SETTINGS = {
    "parallelism.default": "1",
    "table.local-time-zone": "UTC",
    "table.exec.mini-batch.enabled": "true",
    "table.exec.mini-batch.allow-latency": "1 s",
    "table.exec.mini-batch.size": "10000",
}


def insert(feed, out, windows):
    table = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    for key, value in SETTINGS.items():
        table.get_config().set(key, value)
    table.execute_sql(SOURCE.format(feed=feed))
    table.execute_sql(SINK.format(out=out))
    table.execute_sql(INSERT.format(windows=windows)).wait()


def windows(feed, out):
    insert(feed, out, "TUMBLE(TABLE feed, DESCRIPTOR(rowtime), INTERVAL '10' SECOND)")


def hopping(feed, out):
    insert(feed, out, "HOP(TABLE feed, DESCRIPTOR(rowtime), INTERVAL '1' SECOND, INTERVAL '60' SECOND)")


def end_of_java():
    """Waits for the virtual machine, so that what it took is counted."""
    try:
        get_gateway().jvm.System.exit(0)
    except Exception:
        pass  # It is gone before it can answer.
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    run(version("apache-flink"), windows=windows, hopping=hopping)
    end_of_java()
