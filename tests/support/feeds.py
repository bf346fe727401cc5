"""Recorded feeds through windows, under rules that DuckDB and a row-by-row loop apply on their own.

    feeds.py plugs BINARY FOLDER     repeated seconds, under each rule of what is the same reading
    feeds.py gateways BINARY FOLDER  times of gateways, one of whose clocks is years slow
    feeds.py air BINARY FOLDER       a clean control: nothing late, nothing lost
"""

import csv
import gzip
import heapq
import json
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from datetime import datetime, timedelta, timezone
from pathlib import Path

import duckdb

WINDOW = {
    "head": '[operators.{name}]\ntype = "window"\ninputs = ["{input}"]\nwindow = {{ tumbling = "{size}" }}\ngroup_by = ["{key}"]\n{more}\n',
    "sink": '[sinks.of_{name}]\ntype = "parquet"\ninputs = ["{name}"]\npath = "out/{name}"\n',
}
SOURCE = '[pipeline]\nname = "feeds"\ndurability = "none"\n[sources.feed]\ntype = "mqtt"\nurl = "mqtt://127.0.0.1:1"\ntopics = ["#"]\n'


def window(name, input, size, key, aggregates, more=""):
    lines = "\n".join(f'{column} = "{text}"' for column, text in aggregates.items())
    head = WINDOW["head"].format(name=name, input=input, size=size, key=key, more=more)
    return f"{head}[operators.{name}.aggregates]\n{lines}\n" + WINDOW["sink"].format(name=name)


def replay(folder, pipeline, bare):
    (folder / "p.toml").write_text(pipeline)
    command = [BINARY, "replay", "p.toml", "--recording", "r.jsonl", "--account", "account.json"]
    done = subprocess.run(command + (["--bare", "--topic", "t"] if bare else []), cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)
    return json.loads((folder / "account.json").read_text())


def check(what, expected, got):
    print(f"{what}: {got}")
    if expected != got:
        sys.exit(f"{what}: expected {expected}, got {got}")


def plugs(data, folder):
    def rows(path):
        with gzip.open(path, "rt") as file:
            for line in file:
                at, watts, mean = line.strip().split(";")[:3]
                yield datetime.strptime(at, "%d/%m/%Y %H:%M:%S"), at, path.name.split(".")[0], watts, mean

    files = sorted((data / "tracebase-plugs/2012-01-20").rglob("*.csv.gz"))
    with open(folder / "r.jsonl", "w") as out:
        for number, (_, at, plug, watts, mean) in enumerate(heapq.merge(*map(rows, files), key=lambda row: row[0])):
            out.write(f'{{"plug": "{plug}", "at": "{at}", "w": {watts}, "w8": {mean}, "n": {number}}}\n')
    rules = {"second": '["plug", "at"]', "reading": '["plug", "at", "w", "w8"]'}
    aggregates = {"rows": "count(*)", "total": "sum(w)"}
    pipeline = SOURCE + """
decode = { format = "json" }
time = { column = "at", out_of_orderness = "1m" }
[sources.feed.columns]
at = { type = "timestamp", unit = "%d/%m/%Y %H:%M:%S", zone = "Europe/Berlin" }
plug = "utf8"
w = "float64"
w8 = "float64"
"""
    for rule, keys in rules.items():
        pipeline += f'[operators.{rule}]\ntype = "dedupe"\ninputs = ["feed"]\nkeys = {keys}\nwithin = "1m"\n'
        pipeline += window(f"by_{rule}", rule, "1m", "plug", aggregates)
    pipeline += window("by_feed", "feed", "1m", "plug", aggregates)
    account = replay(folder, pipeline, True)
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    db.execute(f"CREATE TABLE feed AS FROM read_json('{folder}/r.jsonl', format = 'newline_delimited')")
    rows = db.execute("SELECT count(*) FROM feed").fetchone()[0]
    for rule, keys in {"feed": "n", "second": 'plug, "at"', "reading": 'plug, "at", w, w8'}.items():
        kept = f"SELECT * FROM feed QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY n) = 1"
        expected = db.execute(f"SELECT count(*) FROM ({kept})").fetchone()[0]
        got = account["operators"][f"by_{rule}"]["accepted"]
        check(f"tracebase, a reading is the same by {keys}: rows of {rows}", expected, got)
        wrong = db.execute(f"""
            WITH e AS (SELECT time_bucket(INTERVAL 1 MINUTE, strptime("at", '%d/%m/%Y %H:%M:%S') - INTERVAL 1 HOUR) AS s, plug,
                              count(*) AS rows, sum(w) AS total FROM ({kept}) GROUP BY ALL),
                 a AS (SELECT window_start::TIMESTAMP AS s, plug, rows, total FROM read_parquet('{folder}/out/by_{rule}/**/*.parquet'))
            SELECT * FROM e FULL JOIN a USING (s, plug)
            WHERE e.rows IS DISTINCT FROM a.rows OR NOT coalesce(abs(e.total - a.total) <= 1e-9 * greatest(1, abs(e.total)), false)""")
        check(f"  windows that differ", [], wrong.fetchall())


def gateways(data, folder):
    receptions = []
    for path in sorted((data / "campusiot-lorawan/SaintEynard/logs").glob("*.ndjson.gz")):
        with gzip.open(path, "rt") as file:
            for line in file:
                message = json.loads(line)
                for seen in message.get("rxInfo", []):
                    if "time" in seen and "gatewayID" in seen:
                        receptions.append((message["_timestamp"], seen["gatewayID"], seen["time"]))
    receptions.sort(key=lambda reception: reception[0])
    moment = lambda millis: datetime.fromtimestamp(millis / 1000, timezone.utc)
    with open(folder / "r.jsonl", "w") as out:
        for arrival, gateway, time in receptions:
            line = {"recv_time": moment(arrival).strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z", "topic": "up", "qos": 0, "retain": False}
            out.write(json.dumps(line | {"enc": "utf8", "payload": json.dumps({"gateway": gateway, "time": time})}) + "\n")
    pipeline = SOURCE + """
decode = { format = "json" }
columns = { gateway = "utf8", time = { type = "timestamp", unit = "rfc3339" } }
time = { column = "time", out_of_orderness = "10s", max_future = "5m", idle_after = "never" }
""" + window("by_gateway", "feed", "1h", "gateway", {"rows": "count(*)"})
    pipeline += '[sinks.late]\ntype = "parquet"\ninputs = ["by_gateway.late"]\npath = "out/late"\n'
    account = replay(folder, pipeline, False)
    # Row by row: what lies too far ahead never moves the watermark, and what comes behind the end of its window is late.
    hour, newest = timedelta(hours=1), datetime.min.replace(tzinfo=timezone.utc)
    epoch = datetime.fromtimestamp(0, timezone.utc)
    windows, late, future = Counter(), Counter(), 0
    for arrival, gateway, time in receptions:
        at = datetime.fromisoformat(time.replace("Z", "+00:00"))
        if at > moment(arrival) + timedelta(minutes=5):
            future += 1
            continue
        start = epoch + (at - epoch) // hour * hour
        if start + hour <= newest - timedelta(seconds=10) if newest.year > 1 else False:
            late[gateway] += 1
        else:
            windows[start, gateway] += 1
        newest = max(newest, at)
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    read = lambda sink, what: db.execute(f"SELECT {what} FROM read_parquet('{folder}/out/{sink}/**/*.parquet') GROUP BY ALL").fetchall()
    check("campusiot, receptions", len(receptions), account["sources"]["feed"]["received"])
    check("  too far ahead", future, account["sources"]["feed"]["future"])
    got = Counter(dict(read("late", "gateway, count(*)")))
    check("  late by gateway", late, got)
    slow = next((count for gateway, count in late.items() if gateway.startswith("be10aea2")), 0)
    check("  of the clock that is 2.56 years slow, all", sum(g.startswith("be10aea2") for _, g, _ in receptions), slow)
    got = {(start.astimezone(timezone.utc), gateway): rows for start, gateway, rows in read("by_gateway", "window_start, gateway, rows")}
    check("  windows that differ", {}, dict(set(windows.items()) ^ set(got.items())))


def air(data, folder):
    rows = defaultdict(list)
    for path in sorted((data / "beijing-air").glob("*.csv.gz")):
        with gzip.open(path, "rt") as file:
            for row in csv.DictReader(file):
                at = datetime(int(row["year"]), int(row["month"]), int(row["day"]), int(row["hour"]))
                rows[at].append((row["station"], row["PM2.5"], row["wd"]))
    zone = timezone(timedelta(hours=8))
    with open(folder / "r.jsonl", "w") as out:
        for at in sorted(rows):
            arrival = at.replace(tzinfo=zone).astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"
            for station, pm, wind in rows[at]:
                line = {"recv_time": arrival, "topic": f"air/{station}", "qos": 0, "retain": False, "enc": "utf8"}
                out.write(json.dumps(line | {"payload": f"{at:%Y-%m-%d %H:%M},{station},{pm},{wind}"}) + "\n")
    pipeline = SOURCE + """
decode = { format = "csv" }
time = { column = "at" }
[sources.feed.columns]
at = { type = "timestamp", unit = "%Y-%m-%d %H:%M", zone = "Asia/Shanghai" }
station = "utf8"
pm = { type = "float64", nulls = ["NA"] }
wind = { type = "utf8", nulls = ["NA"] }
""" + window("by_station", "feed", "1d", "station", {"rows": "count(*)", "values_": "count(pm)", "winds": "count(wind)", "most": "max(pm)"})
    account = replay(folder, pipeline, False)
    source, operator = account["sources"]["feed"], account["operators"]["by_station"]
    total = sum(map(len, rows.values()))
    got = [source["rows"], source["dropped"], source["dead_letter"], source["future"], operator["accepted"], operator["late"]]
    check("beijing-air, rows, dropped, dead letters, ahead, accepted, late", [total, 0, 0, 0, total, 0], got)
    db = duckdb.connect()
    values = [row for hour in rows.values() for row in hour]
    expected = (total, sum(pm != "NA" for _, pm, _ in values), sum(wind != "NA" for _, _, wind in values))
    expected += (max(float(pm) for _, pm, _ in values if pm != "NA"),)
    got = db.execute(f"SELECT sum(rows)::BIGINT, sum(values_)::BIGINT, sum(winds)::BIGINT, max(most) FROM read_parquet('{folder}/out/by_station/**/*.parquet')")
    check("  rows, values, winds, most", expected, got.fetchone())


BINARY = str(Path(sys.argv[2]).resolve())
with tempfile.TemporaryDirectory() as folder:
    {"plugs": plugs, "gateways": gateways, "air": air}[sys.argv[1]](Path(sys.argv[3]), Path(folder))
