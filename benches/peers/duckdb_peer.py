"""DuckDB's batch engine."""

import duckdb
from peer import run

FEED = """read_json('{feed}', format = 'newline_delimited',
    columns = {{device: 'VARCHAR', ts: 'BIGINT', temp: 'DOUBLE', q: 'BIGINT', seq: 'BIGINT'}})"""

AGGREGATES = "count(*) AS samples, min(temp) AS temp_min, max(temp) AS temp_max, avg(temp) AS temp_avg"

WINDOWS = f"""SELECT time_bucket(INTERVAL 10 SECOND, make_timestamp(ts * 1000)) AS window_start, device, {AGGREGATES}
    FROM {{feed}} GROUP BY ALL"""

# Each reading is in the sixty windows that begin in the minute before it.
HOPPING = f"""SELECT make_timestamp((ts // 1000 - back) * 1000000) AS window_start, device, {AGGREGATES}
    FROM {{feed}}, range(60) AS hop(back) GROUP BY ALL"""

COPY = "COPY ({query}) TO '{out}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"


def windows(feed, out):
    duckdb.execute(COPY.format(query=WINDOWS.format(feed=FEED.format(feed=feed)), out=out / "windows.parquet"))


def archive(feed, out):
    duckdb.execute(f"CREATE TABLE feed AS SELECT * REPLACE (make_timestamp(ts * 1000) AS ts) FROM {FEED.format(feed=feed)}")
    duckdb.execute(COPY.format(query="FROM feed", out=out / "archive.parquet"))
    query = WINDOWS.format(feed="feed").replace("make_timestamp(ts * 1000)", "ts")
    duckdb.execute(COPY.format(query=query, out=out / "windows.parquet"))


def hopping(feed, out):
    duckdb.execute(COPY.format(query=HOPPING.format(feed=FEED.format(feed=feed)), out=out / "windows.parquet"))


if __name__ == "__main__":
    run(duckdb.__version__, windows=windows, archive=archive, hopping=hopping)
