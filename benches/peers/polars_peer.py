"""Polars' streaming batch engine."""

import polars as pl
from peer import run

SCHEMA = {"device": pl.String, "ts": pl.Int64, "temp": pl.Float64, "q": pl.Int64, "seq": pl.Int64}


def rows(feed):
    return pl.scan_ndjson(feed, schema=SCHEMA).with_columns(pl.from_epoch("ts", time_unit="ms"))


def grouped(frame):
    temp = pl.col("temp")
    aggregates = [pl.len().alias("samples"), temp.min().alias("temp_min"), temp.max().alias("temp_max"),
                  temp.mean().alias("temp_avg")]
    return frame.group_by(pl.col("ts").dt.truncate("10s").alias("window_start"), "device").agg(aggregates)


def sink(frame, path):
    return frame.sink_parquet(path, compression="zstd", compression_level=1, lazy=True)


def windows(feed, out):
    sink(grouped(rows(feed)), out / "windows.parquet").collect(engine="streaming")


def archive(feed, out):
    # One scan for both.
    frame = rows(feed)
    both = [sink(frame, out / "archive.parquet"), sink(grouped(frame), out / "windows.parquet")]
    pl.collect_all(both, engine="streaming")


if __name__ == "__main__":
    run(pl.__version__, windows=windows, archive=archive)
