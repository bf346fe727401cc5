"""Messages through the binary, and what came out against what was expected: for `conformance.py`."""

import base64
import json
import math
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

import duckdb

# The program; set by who runs it.
BINARY = ""
# What SenML's examples call now.
NOW = datetime.fromtimestamp(1498780179, timezone.utc)


def at(index):
    return NOW + timedelta(seconds=index)


def text(moment):
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"


class Run:
    """Messages `(topic, bytes)` through a decoder: rows and reasons by message, and the account of the source."""

    def __init__(self, messages, decode, columns):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            with open(folder / "r.jsonl", "w") as recording:
                for index, (topic, body) in enumerate(messages):
                    line = {"recv_time": text(at(index)), "topic": topic, "qos": 0, "retain": False, "enc": "base64"}
                    recording.write(json.dumps(line | {"payload": base64.b64encode(body).decode()}) + "\n")
            lines = "\n".join(f"{name} = {column}" for name, column in columns.items())
            (folder / "p.toml").write_text(f"""
[pipeline]
name = "conformance"
[sources.s]
type = "mqtt"
url = "mqtt://127.0.0.1:1"
topics = ["#"]
[sources.s.decode]
{decode}
[sources.s.columns]
arrived = {{ type = "timestamp", from = "arrival" }}
{lines}
[sinks.rows]
type = "parquet"
inputs = ["s"]
path = "rows"
[sinks.letters]
type = "parquet"
inputs = ["s.dead_letter"]
path = "letters"
""")
            command = [BINARY, "replay", "p.toml", "--recording", "r.jsonl", "--account", "account.json"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"{done.stdout}\n{done.stderr}")
            self.account = json.loads((folder / "account.json").read_text())["sources"]["s"]
            self.rows, self.reasons = {}, {}
            db = duckdb.connect()
            db.execute("SET TimeZone = 'UTC'")

            def read(sink):
                files = list((folder / sink).glob("**/*.parquet"))
                if not files:
                    return []
                found = db.execute("FROM read_parquet(?)", [[str(file) for file in files]])
                names = [column[0] for column in found.description]
                return [dict(zip(names, row)) for row in found.fetchall()]

            for row in read("rows"):
                self.rows.setdefault(index_of(row.pop("arrived")), []).append(row)
            for letter in read("letters"):
                self.reasons[index_of(letter["arrival"])] = letter["reason"]


def index_of(arrival):
    return round((arrival - NOW).total_seconds())


def same(expected, got):
    if isinstance(expected, float) and isinstance(got, (int, float)):
        return expected == got or (math.isnan(expected) and math.isnan(got))
    return expected == got


class Table:
    def __init__(self):
        self.wrong = 0
        print(f"{'set':34} {'messages':>9} {'right':>7} {'refused':>8} {'wrong':>6}")

    def judge(self, name, run, expected):
        """`expected`: for each message its rows, or None where it has to be refused with a reason."""
        right = refused = wrong = 0
        for index, rows in enumerate(expected):
            got, reason = run.rows.get(index, []), run.reasons.get(index)
            if rows is None:
                ok = reason and not got
                refused += bool(ok)
            else:
                equal = lambda row, other: all(same(value, other.get(key)) for key, value in row.items())
                ok = reason is None and len(rows) == len(got) and all(equal(*pair) for pair in zip(rows, got))
                right += bool(ok)
            if not ok:
                wrong += 1
                if wrong <= 3:
                    print(f"  {name}, message {index}: {reason or ''}\n    expected {rows}\n    got {got}")
        self.wrong += wrong
        print(f"{name:34} {len(expected):9} {right:7} {refused:8} {wrong:6}")

    def count(self, name, messages, expected, got, what):
        self.wrong += expected != got
        print(f"{name:34} {messages:9} {what} {got}, expected {expected}")
