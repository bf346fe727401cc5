"""Recordings of public feeds for `streamgauge infer`, and what a pipeline file that was inferred means, by DuckDB.

    inferred.py prepare NAME FOLDER RECORDING.jsonl
    inferred.py compare PIPELINE.toml RECORDING.jsonl OUT_FOLDER

`compare` reads the pipeline file by itself (topics, paths, types, times, windows, keys, aggregates), computes every window
over the raw payloads in SQL, and compares all values with the Parquet files of a replay.
"""

import csv
import gzip
import json
import re
import sys
import tomllib
from datetime import datetime, timezone
from pathlib import Path

import duckdb

ROWS_MAX = 100_000


def utc(millis):
    at = datetime.fromtimestamp(millis / 1000, timezone.utc)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"


def aws(folder):
    with gzip.open(folder / "raw_data_xlarge.json.gz") as file:
        for message in json.load(file):
            yield utc(message["ts"] * 1000), f"sensors/{message['device_id']}", json.dumps(message)


def plugs(folder):
    rows = []
    for path in sorted(folder.rglob("*.csv.gz")):
        with gzip.open(path, "rt") as file:
            for line in file:
                at, watts, mean = line.strip().split(";")[:3]
                when = datetime.strptime(at, "%d/%m/%Y %H:%M:%S").replace(tzinfo=timezone.utc)
                rows.append((when, path.name.split(".")[0], json.dumps({"at": at, "w": int(watts), "w8": int(mean)})))
    for when, plug, body in sorted(rows, key=lambda row: row[0])[:ROWS_MAX]:
        yield utc(when.timestamp() * 1000), f"plugs/{plug}/power", body


def zigbee(folder):
    for line in (folder / "bridge-payloads.jsonl").read_text().splitlines():
        message = json.loads(line)
        topic = "zigbee2mqtt/" + "/".join(filter(None, [message["entity"], message.get("service")]))
        yield None, topic, message["payload"]


def helium(folder):
    path = folder / "Helium" / "IMST_33323431007C727B.ndjson.gz"
    with gzip.open(path, "rt") as file:
        for line in file:
            message = json.loads(line)
            yield utc(message["_timestamp"]), f"helium/{message['dev_eui']}/up", line.strip()


def air(folder):
    rows = []
    for path in sorted(folder.glob("*.csv.gz"))[:4]:
        with gzip.open(path, "rt") as file:
            for row in csv.DictReader(file):
                at = datetime(*(int(row[part]) for part in ("year", "month", "day", "hour")), tzinfo=timezone.utc)
                body = {"time": at.strftime("%Y-%m-%dT%H:%M:%SZ")}
                for name in ("PM2.5", "SO2", "TEMP", "WSPM"):
                    body[name] = None if row[name] == "NA" else json.loads(row[name])
                body["wd"] = row["wd"]
                rows.append((at, row["station"], json.dumps(body)))
    for at, station, body in sorted(rows, key=lambda row: row[0])[:ROWS_MAX]:
        yield utc(at.timestamp() * 1000), f"air/{station}", body


SETS = {"aws": aws, "plugs": plugs, "zigbee": zigbee, "helium": helium, "air": air}


def prepare(name, folder, to):
    with open(to, "w") as out:
        for arrival, topic, payload in SETS[name](Path(folder)):
            envelope = {"topic": topic, "payload": payload} | ({"recv_time": arrival} if arrival else {})
            out.write(json.dumps(envelope) + "\n")


def text(sql):
    return "'" + sql.replace("'", "''") + "'"


def json_path(path):
    """`$.a['b.c'][0]` as DuckDB's JSON path `$."a"."b.c"[0]`."""
    steps = re.findall(r"\.([^.\[]+)|\[(\d+)\]|\['([^']*)'\]|\[\"([^\"]*)\"\]", path)
    return "$" + "".join(f"[{index}]" if index else f'."{name or single or double}"' for name, index, single, double in steps)


def value(name, column, source):
    """A column as SQL over `payload` (JSON) and `topic`."""
    column = {"type": column} if isinstance(column, str) else column
    if column.get("from") == "topic":
        return "topic"
    found = f"json_extract(payload, {text(json_path(column.get('path', f'$.{name}')))})"
    plain = f"json_extract_string(payload, {text(json_path(column.get('path', f'$.{name}')))})"
    kind = column["type"]
    number = f"json_type({found}) IN ('BIGINT', 'UBIGINT', 'DOUBLE', 'HUGEINT')"
    if kind == "timestamp":
        unit = column["unit"]
        scale = {"s": "1000000", "ms": "1000", "us": "1", "ns": "0.001"}.get(unit)
        if scale:
            return f"make_timestamp(CAST(floor(CAST({plain} AS DECIMAL(38, 9)) * {scale} + 0.5) AS BIGINT))"
        if unit == "rfc3339":
            return f"CAST(CAST({plain} AS TIMESTAMPTZ) AT TIME ZONE 'UTC' AS TIMESTAMP)"
        return f"strptime({plain}, {text(unit.replace('%.f', ''))})"
    if kind == "boolean" and "values" in column:
        yes = [text(word) for word, truth in column["values"].items() if truth]
        no = [text(word) for word, truth in column["values"].items() if not truth]
        branches = [f"WHEN {plain} IN ({', '.join(words)}) THEN {truth}" for words, truth in ((yes, "true"), (no, "false")) if words]
        return f"CASE {' '.join(branches)} END"
    if kind == "boolean":
        return f"CASE WHEN json_type({found}) = 'BOOLEAN' THEN CAST({plain} AS BOOLEAN) END"
    if kind == "utf8":
        return f"CASE WHEN json_type({found}) = 'VARCHAR' THEN {plain} END"
    cast = {"float64": "DOUBLE", "int64": "BIGINT", "uint64": "UBIGINT"}[kind]
    if column.get("text"):
        return f"TRY_CAST({plain} AS {cast})"
    return f"CASE WHEN {number} THEN CAST({plain} AS {cast}) END"


def compare(pipeline, recording, out):
    plan = tomllib.loads(Path(pipeline).read_text())
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    db.execute(f"""CREATE TABLE lines AS SELECT topic, payload AS body, recv_time FROM read_json('{recording}',
        format = 'newline_delimited', maximum_object_size = 33554432,
        columns = {{topic: 'VARCHAR', payload: 'VARCHAR', recv_time: 'VARCHAR'}})""")
    windows = 0
    for name, operator in plan["operators"].items():
        source = plan["sources"][operator["inputs"][0]]
        assert source["decode"]["format"] == "json" and "rows" not in source["decode"], "only rows that are payloads"
        patterns = []
        for pattern in source["topics"]:
            levels = [f"(?P<{level[1:-1]}>[^/]*)" if level.startswith("{") else re.escape(level) for level in pattern.split("/")]
            patterns.append("/".join(levels))
        matching = " OR ".join(f"regexp_full_match(topic, {text(re.sub('P<[^>]*>', '', p).replace('(?', '('))})" for p in patterns)
        captures = re.findall(r"\{(\w+)\}", source["topics"][0]) if len(patterns) == 1 else []
        columns = [f"regexp_extract(topic, {text('^' + re.sub('[?]P<[^>]*>', '', patterns[0]) + '$')}, {at + 1}) AS {c}" for at, c in enumerate(captures)]
        columns += [f'{value(column, spec, source)} AS "{column}"' for column, spec in source.get("columns", {}).items()]
        time = source.get("time", {}).get("column")
        if not time and db.execute("SELECT count(recv_time) FROM lines").fetchone() == (0,):
            print(f"{name}: neither payloads nor recording tell the time")
            continue
        (unit, seconds), = [(u, s) for u, s in {"s": 1, "m": 60, "h": 3600, "d": 86400}.items() if operator["window"]["tumbling"].endswith(u)]
        micros = int(operator["window"]["tumbling"][: -len(unit)]) * seconds * 1_000_000
        keys = operator.get("group_by", [])
        aggregates = operator["aggregates"]
        at = f'"{time}"' if time else "CAST(CAST(recv_time AS TIMESTAMPTZ) AT TIME ZONE 'UTC' AS TIMESTAMP)"
        select = [f"(epoch_us({at}) - ((epoch_us({at}) % {micros}) + {micros}) % {micros}) AS s"] + [f'"{key}"' for key in keys]
        select += [f"{sql} AS a{index}" for index, sql in enumerate(aggregates.values())]
        required = f'WHERE "{time}" IS NOT NULL' if time else ""
        db.execute(f"""CREATE OR REPLACE TABLE expected AS SELECT {', '.join(select)} FROM (SELECT topic, recv_time, {', '.join(columns)}
            FROM (SELECT topic, recv_time, CAST(body AS JSON) AS payload FROM lines WHERE ({matching}) AND json_valid(body))) {required}
            GROUP BY ALL""")
        path = next(sink["path"] for sink in plan["sinks"].values() if sink["type"] == "parquet" and sink["inputs"] == [name])
        actual = ["epoch_us(window_start) AS s"] + [f'"{key}"' for key in keys] + [f'"{a}" AS a{index}' for index, a in enumerate(aggregates)]
        db.execute(f"CREATE OR REPLACE TABLE actual AS SELECT {', '.join(actual)} FROM read_parquet('{out}/{path}/**/*.parquet')")
        counts = [db.execute(f"SELECT count(*), coalesce(sum(a0), 0) FROM {table}").fetchone() for table in ("expected", "actual")]
        joined = " AND ".join(["e.s = a.s"] + [f'e."{key}" IS NOT DISTINCT FROM a."{key}"' for key in keys])
        differs = [f"""NOT (e.a{i} IS NOT DISTINCT FROM a.a{i} OR coalesce(abs(e.a{i} - a.a{i}) <= 1e-9 * greatest(1, abs(e.a{i})), false))"""
                   for i in range(len(aggregates))]
        wrong = db.execute(f"SELECT e.*, a.* FROM expected e FULL JOIN actual a ON {joined} WHERE {' OR '.join(differs)}").fetchall()
        print(f"{name}: DuckDB {counts[0][0]} windows of {counts[0][1]} rows, streamgauge {counts[1][0]} of {counts[1][1]}, different {len(wrong)}")
        if wrong or counts[0] != counts[1]:
            sys.exit(f"first differences: {wrong[:3]}")
        windows += counts[0][0]
    if windows == 0:
        sys.exit("there was nothing to compare")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    {"prepare": prepare, "compare": compare}[command](*arguments)
