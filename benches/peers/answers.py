#!/usr/bin/env python3
"""Whether an engine's answer is ours: the same windows, counts exactly, other values to a part in 10⁹, and every row of an
archive. Needs DuckDB. Prints what differs, and ends with 1.

    answers.py OURS THEIRS
"""

import sys
from pathlib import Path

import duckdb

CSV = "read_csv('{}/windows.csv/**', header = false, names = ['window_start', 'device', 'samples', 'temp_min', 'temp_max', 'temp_avg'])"

WINDOWS = "SELECT window_start::TIMESTAMP AS window_start, device::VARCHAR AS device, samples::BIGINT AS samples, {} FROM {}"
VALUES = ["temp_min", "temp_max", "temp_avg"]

ROWS = "SELECT device::VARCHAR AS device, ts::TIMESTAMP AS ts, temp, q::BIGINT AS q, seq::BIGINT AS seq FROM {}"


def table(folder, name):
    if (folder / f"{name}.csv").exists():
        return CSV.format(folder)
    below = folder / name
    return f"read_parquet('{below}/**/*.parquet')" if below.is_dir() else f"read_parquet('{below}.parquet')"


def differences(name, query, keys, same):
    """Rows that only one has, and rows that differ."""
    on = " AND ".join(f"ours.{key} = theirs.{key}" for key in keys)
    count, missing, extra, other = duckdb.sql(f"""
        SELECT count(*), count(*) FILTER (theirs.{keys[0]} IS NULL), count(*) FILTER (ours.{keys[0]} IS NULL),
               count(*) FILTER (ours.{keys[0]} IS NOT NULL AND theirs.{keys[0]} IS NOT NULL AND NOT coalesce({same}, false))
        FROM ({query('ours')}) ours FULL JOIN ({query('theirs')}) theirs ON {on}""").fetchall()[0]
    if missing or extra or other:
        return [f"{name}: of {count} rows {missing} are missing, {extra} are too many, {other} differ"]
    return [] if count else [f"{name}: there is no row"]


def main(ours, theirs):
    folders = {"ours": Path(ours), "theirs": Path(theirs)}
    duckdb.execute("SET TimeZone = 'UTC'")
    close = " AND ".join(f"abs(ours.{value} - theirs.{value}) <= 1e-9 * abs(ours.{value})" for value in VALUES)
    query = lambda who: WINDOWS.format(", ".join(VALUES), table(folders[who], "windows"))
    wrong = differences("windows", query, ["window_start", "device"], f"ours.samples = theirs.samples AND {close}")
    if (folders["ours"] / "archive").exists():
        same = " AND ".join(f"ours.{column} = theirs.{column}" for column in ["device", "ts", "temp", "q"])
        wrong += differences("archive", lambda who: ROWS.format(table(folders[who], "archive")), ["seq"], same)
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
