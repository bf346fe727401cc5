#!/usr/bin/env python3
"""The same answer from the same file, by streamgauge and by DuckDB's batch engine.

    beside_duckdb.py BINARY FEED.jsonl
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb

QUERY = """
COPY (SELECT time_bucket(INTERVAL 10 SECOND, make_timestamp(ts * 1000)) AS window_start, device, count(*) AS samples,
             min(temp) AS temp_min, max(temp) AS temp_max, avg(temp) AS temp_avg
      FROM read_json('{feed}', format = 'newline_delimited',
                     columns = {{device: 'VARCHAR', ts: 'BIGINT', temp: 'DOUBLE', seq: 'BIGINT'}})
      GROUP BY ALL) TO '{out}' (FORMAT parquet, COMPRESSION zstd)"""


def timed(run):
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def main(binary, feed):
    pipeline = Path(__file__).parent / "tumbling.toml"
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(3):
            command = [binary, "replay", pipeline, "--recording", feed, "--bare", "--topic", "feed"]
            environment = os.environ | {"OUT": f"{folder}/ours"}
            run = lambda: subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            ours.append(timed(run))
            theirs.append(timed(lambda: duckdb.connect().execute(QUERY.format(feed=feed, out=f"{folder}/theirs.parquet"))))
        count = "SELECT count(*), sum(samples)::BIGINT FROM read_parquet('{}')"
        a = duckdb.sql(count.format(f"{folder}/ours/**/*.parquet")).fetchall()[0]
        b = duckdb.sql(count.format(f"{folder}/theirs.parquet")).fetchall()[0]
        assert a == b, f"streamgauge {a}, DuckDB {b}"
        print(f"{a[1]} rows, {a[0]} windows: streamgauge {min(ours):.2f} s, DuckDB {min(theirs):.2f} s, "
              f"DuckDB/streamgauge {min(theirs) / min(ours):.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
