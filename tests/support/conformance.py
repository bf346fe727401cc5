"""Public payloads through the binary, against oracles that share no code with it: Python's json and float, and what the
sets themselves say. Prints a table; ends with 1 if any message came out wrong.

    conformance.py BINARY DATA_FOLDER
"""

import gzip
import json
import sys
from pathlib import Path

import harness
from harness import Run, Table
from shapes import json_set
from wires import line_protocol, senml, sparkplug, sparkplug_log, telegraf


def jsonl(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line]


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


harness.BINARY = str(Path(sys.argv[1]).resolve())
main(Path(sys.argv[2]))
