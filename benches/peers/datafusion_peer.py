"""DataFusion's batch engine."""

import datafusion
import pyarrow as pa
from peer import run

SCHEMA = pa.schema([("device", pa.string()), ("ts", pa.int64()), ("temp", pa.float64()), ("q", pa.int64()),
                    ("seq", pa.int64())])

WINDOWS = """SELECT date_bin(INTERVAL '10 seconds', to_timestamp_millis(ts)) AS window_start, device,
        count(*) AS samples, min(temp) AS temp_min, max(temp) AS temp_max, avg(temp) AS temp_avg
    FROM feed GROUP BY 1, 2"""


def context(feed):
    context = datafusion.SessionContext()
    context.register_json("feed", feed, schema=SCHEMA, file_extension=".jsonl")
    return context


def write(frame, path):
    frame.write_parquet(str(path), compression="zstd", compression_level=1)


def windows(feed, out):
    write(context(feed).sql(WINDOWS), out / "windows.parquet")


def archive(feed, out):
    # Parsed once, held in memory for both.
    held = datafusion.SessionContext()
    held.register_table("feed", context(feed).sql("SELECT * FROM feed").cache())
    write(held.sql("SELECT device, to_timestamp_millis(ts) AS ts, temp, q, seq FROM feed"), out / "archive.parquet")
    write(held.sql(WINDOWS), out / "windows.parquet")


if __name__ == "__main__":
    run(datafusion.__version__, windows=windows, archive=archive)
