"""Prepares recorded feeds, and compares windows with DuckDB to the last row.

    real_data.py prepare NAME FOLDER FEED.jsonl
    real_data.py compare NAME FEED.jsonl RESULT_FOLDER
"""

import gzip
import heapq
import json
import sys
from datetime import datetime
from pathlib import Path

import duckdb


def prepare_aws(folder, feed):
    path = next(p for p in sorted(folder.rglob("*")) if p.name.startswith("raw_data") and "small" not in p.name)
    opened = gzip.open(path) if path.suffix == ".gz" else open(path, "rb")
    with opened as file, open(feed, "w") as out:
        for message in json.load(file):
            out.write(json.dumps(message) + "\n")


def prepare_plugs(folder, feed):
    def rows(path):
        with gzip.open(path, "rt") as file:
            for line in file:
                at, watts, mean = line.strip().split(";")[:3]
                yield datetime.strptime(at, "%d/%m/%Y %H:%M:%S"), at, path.name.split(".")[0], watts, mean

    with open(feed, "w") as out:
        for _, at, plug, watts, mean in heapq.merge(*(rows(p) for p in sorted(folder.rglob("*.csv.gz"))), key=lambda row: row[0]):
            out.write(f'{{"plug": "{plug}", "at": "{at}", "w": {watts}, "w8": {mean}}}\n')


# Windows as SQL over the raw feed; columns as in testdata/real/NAME.toml.
EXPECTED = {
    "aws-env-sensors": """
        SELECT time_bucket(INTERVAL 10 MINUTE, make_timestamp(CAST(round(ts * 1e6) AS BIGINT))) AS s, device_id AS k,
               count(*) AS n, min(temp) AS lo, max(temp) AS hi, avg(temp) AS mean, avg(humidity) AS mean2,
               count(*) FILTER (WHERE light) AS hits
        FROM (SELECT ts, device_id, data.temp AS temp, data.humidity AS humidity, data.light AS light
              FROM read_json('{feed}', format = 'newline_delimited', columns = {{ts: 'DOUBLE', device_id: 'VARCHAR',
                   data: 'STRUCT(temp DOUBLE, humidity DOUBLE, light BOOLEAN)'}}))
        GROUP BY ALL""",
    "tracebase-plugs": """
        SELECT time_bucket(INTERVAL 1 MINUTE, strptime("at", '%d/%m/%Y %H:%M:%S') - INTERVAL 1 HOUR) AS s, plug AS k,
               count(*) AS n, min(w) AS lo, max(w) AS hi, avg(w) AS mean, avg(w8) AS mean2,
               count(*) FILTER (WHERE w > 100) AS hits
        FROM read_json('{feed}', format = 'newline_delimited',
                       columns = {{plug: 'VARCHAR', "at": 'VARCHAR', w: 'DOUBLE', w8: 'DOUBLE'}})
        GROUP BY ALL""",
}


def compare(name, feed, result):
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    db.execute(f"CREATE TABLE expected AS {EXPECTED[name].format(feed=feed)}")
    db.execute(f"""CREATE TABLE actual AS SELECT epoch_us(window_start) AS s, k, n, lo, hi, mean, mean2, hits
                   FROM read_parquet('{result}/**/*.parquet')""")
    expected, = db.execute("SELECT count(*) FROM expected").fetchone()
    actual, = db.execute("SELECT count(*) FROM actual").fetchone()
    wrong = db.execute("""
        SELECT * FROM (SELECT epoch_us(s) AS s, * EXCLUDE (s) FROM expected) e FULL JOIN actual a USING (s, k)
        WHERE e.n IS DISTINCT FROM a.n OR e.lo IS DISTINCT FROM a.lo OR e.hi IS DISTINCT FROM a.hi
           OR e.hits IS DISTINCT FROM a.hits OR NOT coalesce(abs(e.mean - a.mean) <= 1e-9 * greatest(1, abs(e.mean)), false)
           OR NOT coalesce(abs(e.mean2 - a.mean2) <= 1e-9 * greatest(1, abs(e.mean2)), false)""").fetchall()
    rows, = db.execute("SELECT sum(n) FROM actual").fetchone()
    print(f"{name}: {rows} rows, {actual} windows, DuckDB {expected}, different {len(wrong)}")
    if wrong or actual != expected or expected == 0:
        sys.exit(f"first differences: {wrong[:3]}")


if __name__ == "__main__":
    command, name, *paths = sys.argv[1:]
    if command == "prepare":
        {"aws-env-sensors": prepare_aws, "tracebase-plugs": prepare_plugs}[name](Path(paths[0]), paths[1])
    else:
        compare(name, *paths)
