"""Public payloads through the binary, against oracles that share no code with it: Python's json and float, and what the
sets themselves say. Prints a table; ends with 1 if any message came out wrong.

    conformance.py BINARY DATA_FOLDER
"""

import base64
import csv
import gzip
import json
import math
import re
import struct
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

import duckdb

# What SenML's examples call now.
NOW = datetime.fromtimestamp(1498780179, timezone.utc)
COLUMNS_MAX = 600


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


# JSON: every scalar of every message at its path, by Python's own decoder.


class Twice(ValueError):
    pass


def pairs(found):
    keys = [key for key, _ in found]
    if len(set(keys)) < len(keys):
        raise Twice
    return dict(found)


def refuse(word):
    raise ValueError(word)


def parsed(body):
    """The value, or None where it is no JSON, or has a key twice."""
    try:
        return (json.loads(body.decode(), object_pairs_hook=pairs, parse_constant=refuse),)
    except (ValueError, UnicodeDecodeError):
        return None


def leaves(value, path=()):
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, path + (key,))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:4]):
            yield from leaves(inner, path + (index,))


def kind(values):
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return "boolean"
    if kinds == {str}:
        return "utf8"
    if kinds == {int}:
        most, least = max(v for v in values if v is not None), min(v for v in values if v is not None)
        if -(2**63) <= least and most < 2**63:
            return "int64"
        return "uint64" if least >= 0 and most < 2**64 else None
    return "float64" if kinds and kinds <= {int, float} else None


def written(path):
    def step(part):
        if isinstance(part, int):
            return f"[{part}]"
        quote = '"' if "'" in part else "'"
        return f"[{quote}{part}{quote}]"

    return "$" + "".join(step(part) for part in path)


RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)$")


def moment(value):
    """A time as RFC 3339 has it, to the microsecond; None where it is none."""
    if not RFC3339.match(value):
        return None
    try:
        value = re.sub(r"(\.\d{6})\d+", r"\1", value)
        return datetime.fromisoformat(value).astimezone(timezone.utc)
    except ValueError:
        return None


def json_set(table, name, messages, times=False):
    values = [parsed(body) for _, body in messages]
    seen, through = {}, {}
    for value in values:
        for path, leaf in leaves(value[0]) if value else ():
            if isinstance(leaf, (dict, list)):
                through.setdefault(path, set()).add(type(leaf))
            else:
                seen.setdefault(path, []).append(leaf)
    columns, where = {}, {}
    for path in sorted(seen, key=str):
        # A path that is sometimes a value and sometimes leads on has no type; nor has what is below it.
        above = [path[:end] for end in range(len(path) + 1)]
        mixed = any(p in through and (len(through[p]) > 1 or any(v is not None for v in seen.get(p, []))) for p in above)
        type_ = kind(seen[path])
        has_both = any(isinstance(part, str) and "'" in part and '"' in part for part in path)
        if mixed or type_ is None or has_both or len(columns) >= COLUMNS_MAX:
            continue
        is_time = times and type_ == "utf8" and sum(moment(v) is not None for v in seen[path] if v) * 5 > 4 * len(seen[path])
        column = f"c{len(columns)}"
        columns[column] = json.dumps(written(path)).join(
            ['{ type = "timestamp", unit = "rfc3339", path = ' if is_time else f'{{ type = "{type_}", path = ', " }"]
        )
        where[column] = (path, is_time)

    def found(value, path):
        for part in path:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def row(value):
        values = {}
        for column, (path, is_time) in where.items():
            leaf = found(value, path)
            if is_time and leaf is not None:
                leaf = moment(leaf)
                if leaf is None:
                    return None
            values[column] = leaf
        return [values]

    expected = [None if value is None else row(value[0]) for value in values]
    table.judge(name, Run(messages, 'format = "json"\nmax_bytes = "4MiB"', columns), expected)


def jsonl(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line]


# SenML: the sets' own resolved form.


def senml(table, folder):
    columns = {name: '"utf8"' for name in ("n", "u", "vs", "vd")} | {"v": '"float64"', "s": '"float64"', "vb": '"boolean"'}
    columns["t"] = '{ type = "timestamp", unit = "s" }'
    messages, expected = [], []
    for resolved in sorted(folder.glob("*.resolved.json")):
        example = resolved.name.split(".")[0]
        for body in (folder / f"{example}.json", folder / f"{example}.gen.json", folder / f"{example}.gen.cbor"):
            if not body.exists():
                continue
            rows = []
            for record in json.loads(resolved.read_text()):
                # Resolved without a time of its own: when the set was made.
                made = example in ("ex1", "ex2", "ex7", "ex9") and "bt" not in body.read_text(errors="replace")
                time = at(len(messages)) if made else datetime.fromtimestamp(round(record["t"] * 1e6) / 1e6, timezone.utc)
                rows.append({key: record.get(key) for key in ("n", "u", "v", "vs", "vb", "vd", "s")} | {"t": time})
            if example == "ex7":
                # The tool that resolved the examples leaves data values out (section 5.1.7 has this one).
                rows.append({"n": "urn:dev:ow:10e2073a01080063:nfv-reader", "vd": "aGkgCg", "t": at(len(messages))})
            expected.append(rows)
            messages.append(("senml", body.read_bytes()))
    table.judge("senml-rfc8428", Run(messages, 'format = "senml"', columns), expected)


# Sparkplug B: a reader of the wire format.


def wire(body):
    fields, at = [], 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = body[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(body):
        key = varint()
        match key & 7:
            case 0:
                value = varint()
            case 1:
                value, at = body[at : at + 8], at + 8
            case 2:
                size = varint()
                value, at = body[at : at + size], at + size
            case 5:
                value, at = body[at : at + 4], at + 4
        fields.append((key >> 3, value))
    return fields


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


SPARKPLUG = {
    "at": '{ type = "timestamp", unit = "ms", path = "$.timestamp" }',
    "message": '"utf8"',
    "name": '"utf8"',
    "number": '"float64"',
    "string": '"utf8"',
    "boolean": '"boolean"',
}


def sparkplug(table, folder):
    names, messages, expected = {}, [], []
    order = ["NDATA_BEFORE_BIRTH", "NBIRTH_V1", "NDATA_V1", "NDATA_GAP", "NDATA_WRAPAROUND", "NDEATH_V1", "NBIRTH_LARGE", "NDATA_V1"]
    counts = {entry["file"]: entry["metric_count"] for entry in json.loads((folder / "manifest.json").read_text())}
    for vector in order:
        body, message = (folder / f"{vector}.bin").read_bytes(), vector.split("_")[0]
        fields, rows = wire(body), []
        if message == "NBIRTH":
            names = {}
        for number, value in fields:
            if number != 2:
                continue
            metric = dict(wire(value))
            name = metric[1].decode() if 1 in metric else names.get(metric.get(2))
            if message == "NBIRTH" and 2 in metric:
                names[metric[2]] = name
            row = {"message": message, "name": name, "number": None, "string": None, "boolean": None}
            for field, read in ((10, float), (11, float), (12, lambda b: struct.unpack("<f", b)[0]), (13, lambda b: struct.unpack("<d", b)[0])):
                if field in metric:
                    row["number"] = read(metric[field])
            if 14 in metric:
                row["boolean"] = bool(metric[14])
            if 15 in metric:
                row["string"] = metric[15].decode()
            rows.append(row)
        assert len(rows) == counts[f"{vector}.bin"]
        # An alias of which no birth has told.
        expected.append(None if any(row["name"] is None for row in rows) else rows)
        if message == "NDEATH":
            names = {}
        messages.append((f"spBv1.0/group/{message}/edge", body))
    table.judge("sparkplug-b/vectors", Run(messages, 'format = "sparkplug_b"', SPARKPLUG), expected)


def sparkplug_log(table, path):
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    messages, expected = [], []
    for entry in csv.DictReader(lines):
        columns = list(entry.values())
        topic, seq, stamp, count = columns[2], columns[-3], columns[-2], int(columns[-1] or 0)
        metric = lambda index: b"\x0a" + varint(len(f"m{index}")) + f"m{index}".encode() + b"\x20\x07\x50" + varint(index)
        body = b"".join(b"\x12" + varint(len(metric(index))) + metric(index) for index in range(count))
        body += (b"\x18" + varint(int(seq)) if seq else b"") + (b"\x08" + varint(int(stamp)) if stamp else b"")
        messages.append((topic, body))
        row = lambda index: {"name": f"m{index}", "number": float(index)}
        expected.append([row(index) for index in range(count)] or [{"name": None}])
    run = Run(messages, 'format = "sparkplug_b"', SPARKPLUG)
    table.judge("sparkplug-b/pcap_patterns", run, expected)
    table.count("  numbers of the sequence", len(messages), 18, run.account["lost_messages"], "lost")


# Line protocol: a regular expression of the specification.

LINE = re.compile(r"((?:\\.|[^,\s\\])+)((?:,(?:\\.|[^=\s])+=(?:\\.|[^,\s])+)*)\s+(.*?)(?:\s+(-?\d+))?$")
FIELD = re.compile(r'((?:\\.|[^=,\s\\])+)=("(?:\\.|[^"\\])*"|[^,]+)(?:,|$)')


def line_protocol(table, path):
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    parsed_lines, kinds = [], {}
    for line in lines:
        name, tags, fields, time = LINE.match(line).groups()
        values = {}
        for key, value in FIELD.findall(fields):
            if value.startswith('"'):
                value = re.sub(r'\\(["\\])', r"\1", value[1:-1])
            elif value[-1] in "iu":
                value = int(value[:-1])
            else:
                value = value in "tTtrueTRUETrue" if value[0] in "tTfF" else float(value)
            values[key] = value
            kinds.setdefault(key, set()).add(type(value))
        tags = dict(re.match(r"((?:\\.|[^=])+)=(.*)", tag).groups() for tag in re.split(r"(?<!\\),", tags)[1:])
        parsed_lines.append((re.sub(r"\\([, ])", r"\1", name), tags, values, int(time)))
    types = {bool: "boolean", str: "utf8", int: "int64", float: "float64"}
    fields = {key: types[kind_.copy().pop()] for key, kind_ in kinds.items() if len(kind_) == 1}
    fields |= {key: "float64" for key, kind_ in kinds.items() if kind_ == {int, float}}
    columns = {"time": '{ type = "timestamp", unit = "ns", path = "$.time" }', "measurement": '"utf8"'}
    columns["url"] = '{ type = "utf8", path = "$.tags.url" }'
    where = {}
    for key, type_ in list(fields.items())[:COLUMNS_MAX]:
        where[f"c{len(where)}"] = key
        columns[f"c{len(where) - 1}"] = f'{{ type = "{type_}", path = {json.dumps(written(("fields", key)))} }}'
    expected = []
    for name, tags, values, time in parsed_lines:
        moment_ = datetime.fromtimestamp(time // 10**9, timezone.utc) + timedelta(microseconds=time % 10**9 // 1000)
        row = {"measurement": name, "url": tags.get("url"), "time": moment_}
        expected.append([row | {column: values.get(key) for column, key in where.items()}])
    body = [("influx", line.encode()) for line in lines]
    table.judge("telegraf-parsers/line-protocol", Run(body, 'format = "influx"', columns), expected)


# CBOR, fixed binary and times of Telegraf: what its own tests expect.


def telegraf(table, folder):
    def case(name, bodies, decode, columns, rows):
        table.judge(f"telegraf-parsers/{name}", Run([("t", body) for body in bodies], decode, columns), rows)

    def read(name):
        return (folder / name).read_bytes()

    at_path = lambda kind_, key: f'{{ type = "{kind_}", path = "$[\'{key}\']" }}'
    kinds = {258: "utf8", 259: "utf8", 260: "uint64", 261: "boolean", 263: "int64", 264: "float64", 265: "float64", 266: "boolean"}
    values = ["002-2.1.x", "14ca85ed9", 1687787189711304960, True, 3, 23.76, 68.934, False]
    columns = {f"n{key}": at_path(kind_, key) for key, kind_ in kinds.items()}
    case("cbor_numeric_keys", [read("xpath/cbor_numeric_keys/data.bin")], 'format = "cbor"\nrows = "$[*]"', columns, [[dict(zip(columns, values))]])

    columns = {"str_a": '"utf8"', "str_b": '"utf8"', "bytes_a": '"utf8"', "bytes_b": '"utf8"', "timestamp": '{ type = "timestamp", unit = "s" }'}
    # All four are byte strings, which are base64 text here.
    coded = lambda body: base64.b64encode(body).decode()
    row = {"str_a": coded(b"this is a test"), "str_b": coded(b"foobar"), "bytes_a": coded(bytes(range(8))), "bytes_b": coded(b"foobar")}
    row["timestamp"] = datetime.fromtimestamp(1687852514, timezone.utc)
    for name in ("cbor_hex_encoding", "cbor_base64_encoding", "cbor_hex_encoding_explicit"):
        case(name, [read(f"xpath/{name}/data.bin")], 'format = "cbor"\nrows = "$[*]"', columns, [[row]])

    columns = {"id": '"int64"', "name": '"utf8"', "age": '"int64"', "email": '"utf8"'}
    people = [(101, "John Doe", 42, "john@example.com"), (102, "Jane Doe", 40, None), (201, "Jack Doe", 12, "jack@example.com")]
    people += [(301, "Jack Buck", 19, "buck@example.com"), (1001, "Janet Doe", 16, "janet@example.com")]
    case("cbor", [read("xpath/cbor/addressbook.bin")], 'format = "cbor"\nrows = "$.people[*]"', columns, [[dict(zip(columns, person)) for person in people]])

    field = "{{ name = '{}', at = {}, type = '{}' }}"
    layout = lambda fields: "fields = [" + ", ".join(field.format(*one) for one in fields) + "]"
    for name, encoding in (("base64", "base64"), ("hex", "hex")):
        bodies = [read(f"binary/{name}_encoding/message{letter}.bin") for letter in "ABC"]
        rows = [[{"value": struct.unpack(">f", struct.pack(">f", value))[0]}] for value in (715.0, 208.5, 0.471)]
        case(f"binary/{name}_encoding", bodies, f'format = "bytes"\nencoding = "{encoding}"\n{layout([("value", 0, "float32")])}', {"value": '"float64"'}, rows)

    when = datetime.fromtimestamp(1658835984, timezone.utc)
    time = '{ type = "timestamp", unit = "s" }'
    fields = [("address", 4, "uint16"), ("count", 6, "int16"), ("value", 12, "float64"), ("time", 20, "uint64")]
    columns = {"address": '"int64"', "count": '"int64"', "value": '"float64"', "time": time}
    little = 'format = "bytes"\nendian = "little"\n'
    case("binary/multiple_messages, A", [read("binary/multiple_messages/messageA.bin")], little + layout(fields), columns, [[dict(address=383, count=42, value=3.1415, time=when)]])
    fields = [("value", 4, "uint32"), ("time", 8, "uint64")]
    case("binary/multiple_messages, B", [read("binary/multiple_messages/messageB.bin")], little + layout(fields), {"value": '"int64"', "time": time}, [[dict(value=3737169374, time=when)]])
    fields = [("x", 4, "float32"), ("y", 8, "float32"), ("time", 12, "uint64")]
    single = lambda value: struct.unpack("<f", struct.pack("<f", value))[0]
    row = dict(x=single(2.718280076980591), y=single(6.626070178575745e-34), time=when)
    case("binary/multiple_messages, C", [read("binary/multiple_messages/messageC.bin")], little + layout(fields), {"x": '"float64"', "y": '"float64"', "time": time}, [[row]])

    for zone in ("Berlin", "utc", "MST"):
        config = (folder / f"xpath/time_timezone_{zone}/telegraf.conf").read_text()
        name = (re.search(r'^\s*timezone = "(.*)"', config, re.M) or [None, "UTC"])[1]
        stamp = int((folder / f"xpath/time_timezone_{zone}/expected.out").read_text().split()[-1]) // 10**9
        column = f'{{ type = "timestamp", unit = "%Y-%m-%d %H:%M:%S", zone = "{name}" }}'
        case(f"time_timezone_{zone}", [read(f"xpath/time_timezone_{zone}/test.json")], 'format = "json"', {"t": column, "v": '"int64"'}, [[{"t": datetime.fromtimestamp(stamp, timezone.utc), "v": 42}]])


def thingsboard(folder):
    for path in sorted(folder.rglob("payload*.json")):
        yield f"uplinks/{path.parent.name}", path.read_bytes()


# Frames of one device within the JSON of four servers, against what its vendor's own decoder said.


def frames(table, folder):
    layout = [("temperature", 1, "int16"), ("humidity", 4, "uint8"), ("light", 6, "uint16"), ("vdd", 11, "uint16")]
    fields = ", ".join(f"{{ name = '{name}', at = {at_}, type = '{type_}' }}" for name, at_, type_ in layout)
    columns = {name: f'{{ type = "float64", path = "$inner.{name}" }}' for name, _, _ in layout}
    columns["temperature"] = '{ type = "float64", path = "$inner.temperature", scale = 0.1 }'
    things = ("$.uplink_message.frm_payload", "base64")
    servers = {"ChirpStack": ("$.data", "base64"), "LORIOT": ("$.data", "hex")}
    servers |= {"ThingsStackCommunity": things, "ThingsStackIndustries": things}
    for server, (path, encoding) in servers.items():
        said = json.loads((folder / server / "result.json").read_text())
        values = (said[0] if isinstance(said, list) else said)["telemetry"][0]["values"]
        decode = f'format = "json"\ninner = {{ path = "{path}", encoding = "{encoding}", format = "bytes", fields = [{fields}] }}'
        run = Run([("t", (folder / server / "payload.json").read_bytes())], decode, columns)
        table.judge(f"  frames of {server}", run, [[{name: float(values[name]) for name, _, _ in layout}]])


def main(data):
    table = Table()
    senml(table, data / "senml-rfc8428")
    sparkplug(table, data / "sparkplug-b/vectors")
    sparkplug_log(table, data / "sparkplug-b/pcap_patterns.csv")
    line_protocol(table, data / "telegraf-parsers/line-protocol/cloud1.influx")
    telegraf(table, data / "telegraf-parsers")
    json_cases = sorted((data / "telegraf-parsers/json_v2").rglob("*.json"))
    json_set(table, "telegraf-parsers/json_v2", [("t", path.read_bytes()) for path in json_cases if path.name != "expected.json"])
    bridge = jsonl(data / "zigbee2mqtt/bridge-payloads.jsonl")
    topic = lambda message: f"zigbee2mqtt/{message['entity'].replace('/', '_')}"
    json_set(table, "zigbee2mqtt", [(topic(message), message["payload"].encode()) for message in bridge], times=True)
    with gzip.open(next((data / "wide-turbine-json").glob("*.gz"))) as wide:
        json_set(table, "wide-turbine-json", [("t", json.dumps(message).encode()) for message in json.load(wide)])
    for name in ("tasmota", "shelly", "synthetic-shapes"):
        for path in sorted((data / name).glob("*.jsonl")):
            pairs_ = [(message["topic"], message["payload"].encode()) for message in jsonl(path) if "payload" in message]
            json_set(table, name, pairs_)
    json_set(table, "thingsboard-uplinks", list(thingsboard(data / "thingsboard-uplinks")))
    json_set(table, "thingsboard-uplinks, times", list(thingsboard(data / "thingsboard-uplinks")), times=True)
    frames(table, data / "thingsboard-uplinks/Elsys/ERS2_Sound")
    sys.exit(1 if table.wrong else 0)


BINARY = str(Path(sys.argv[1]).resolve())
main(Path(sys.argv[2]))
