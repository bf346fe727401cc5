"""Formats that are no JSON, by readers of their specifications, and by what the sets say: for `conformance.py`."""

import base64
import csv
import json
import re
import struct
from datetime import datetime, timedelta, timezone

from harness import Run, at
from shapes import COLUMNS_MAX, written

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
