"""What a case came to, by DuckDB, against its answers.

    cases.py ANSWERS.slt OUT_FOLDER

The answers are queries and their rows, as sqllogictest has them: a `query`, SQL, `----`, a row a line, values by blanks or
by ` | `. `out/NAME` is the view NAME, and a part of the account the view `account_PART`. Times are RFC 3339 in UTC.
"""

import json
import os
import sys
from datetime import datetime, timezone
from pathlib import Path

import duckdb


def shown(value):
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).lower()
        case datetime():
            text = value.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".")
            return text + "Z"
        case _:
            return str(value)


def blocks(text):
    """Pairs of SQL and expected rows."""
    for block in text.split("query\n")[1:]:
        sql, rows = block.split("\n----\n")
        lines = rows.split("\n\n")[0].rstrip("\n").split("\n")
        yield sql, [] if lines == [""] else lines


def main(answers, folder):
    os.chdir(folder)
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    for sink in sorted(Path("out").iterdir()):
        files = f"{sink}/**/*.parquet"
        if list(sink.glob("**/*.parquet")):
            db.execute(f"CREATE VIEW {sink.name} AS FROM read_parquet('{files}', hive_partitioning = true)")
    account = json.loads(Path("account.json").read_text())
    for part in ("sources", "operators", "sinks"):
        for name, counts in account[part].items():
            columns = ", ".join(f"{count} AS {key}" for key, count in counts.items())
            db.execute(f"CREATE VIEW account_{name} AS SELECT {columns}")
    failed = 0
    for sql, expected in blocks(Path(answers).read_text()):
        rows = db.execute(sql).fetchall()
        split = " | " if any(" | " in line for line in expected) else " "
        got = [split.join(shown(value) for value in row) for row in rows]
        if got != expected:
            failed += 1
            print(f"{sql}\nexpected\n  " + "\n  ".join(expected) + "\ngot\n  " + "\n  ".join(got))
    sys.exit(1 if failed else 0)


main(Path(sys.argv[1]).resolve(), sys.argv[2])
