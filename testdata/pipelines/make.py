#!/usr/bin/env python3
"""Makes the recordings for the examples in `pipelines/`, and computes from them, in plain Python and row by row, what the
examples must write. It shares no code and no idea with the engine: sets of rows, sorted lists, one `if` a rule.

    python3 testdata/pipelines/make.py     writes */recording.jsonl and */SINK.jsonl beside it
"""

import json
import math
import random
import statistics
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

HERE = Path(__file__).parent
START = datetime(2026, 1, 5, 8, 0, 0, tzinfo=timezone.utc)


def text(at):
    return at.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def millis(at):
    return round(at.timestamp() * 1000)


def write(name, messages, sinks):
    """`messages` are (arrival, topic, payload text) in order of arrival."""
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    with open(folder / "recording.jsonl", "w") as file:
        for seq, (arrival, topic, payload) in enumerate(messages):
            record = {"seq": seq, "recv_time": text(arrival), "topic": topic, "qos": 1, "retain": False,
                      "enc": "utf8", "payload": payload}
            file.write(json.dumps(record) + "\n")
    for sink, rows in sinks.items():
        with open(folder / f"{sink}.jsonl", "w") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")


def floor(at, size):
    seconds = size.total_seconds()
    return datetime.fromtimestamp(at.timestamp() // seconds * seconds, timezone.utc)


def quantile_range(values, p):
    """A sketch may answer with either neighbour of the rank, and 1 % off."""
    values = sorted(values)
    rank = p * (len(values) - 1)
    low, high = values[math.floor(rank)], values[math.ceil(rank)]
    return {"min": low * 0.99, "max": high * 1.01}


def tumble(rows, size, bound, key):
    """(windows, late rows): a row is late if its window ended at or before the watermark of the rows before it."""
    windows, late, newest = {}, [], None
    for row in rows:
        start = floor(row["ts"], size)
        if newest is not None and start + size <= newest - bound:
            late.append(row)
        else:
            windows.setdefault((start, key(row)), []).append(row)
        newest = row["ts"] if newest is None else max(newest, row["ts"])
    return windows, late


def plant():
    rng = random.Random(1)
    messages, rows, rejected = [], [], []
    size, bound = timedelta(seconds=10), timedelta(seconds=5)
    for second in range(90):
        for device in range(6):
            site, name = ("north", "south")[device % 2], f"d{device}"
            arrival = START + timedelta(seconds=second, milliseconds=10 * device)
            behind = timedelta(milliseconds=rng.randrange(0, 4000))
            if rng.random() < 0.01:
                behind = timedelta(seconds=25)
            ts = arrival - behind
            temp = round(20 + device + 5 * math.sin(second / 9) + rng.random(), 2)
            if rng.random() < 0.02:
                temp = rng.choice([-127.0, 850.0])
            hum = round(40 + 40 * rng.random(), 1)
            payload = json.dumps({"ts": millis(ts), "temp": temp, "env": {"hum": hum}})
            topic = f"sites/{site}/devices/{name}/telemetry"
            if rng.random() < 0.01:
                payload = rng.choice([payload[:20], '{"ts": "now", "temp": 1}', '{"temp": 20.5}', "offline"])
                rejected.append(payload)
            elif rng.random() < 0.01:
                payload = json.dumps({"ts": millis(datetime(2036, 2, 7, tzinfo=timezone.utc)), "temp": temp})
                rejected.append(payload)
            else:
                ts = datetime.fromtimestamp(millis(ts) / 1000, timezone.utc)
                rows.append({"site": site, "device": name, "ts": ts, "temp": temp, "hum": hum})
            messages.append((arrival, topic, payload))
    # The filter stands before the window, but the watermark is the source's: it sees all rows.
    windows, late, newest = {}, [], None
    for row in rows:
        if -60 <= row["temp"] <= 150:
            start = floor(row["ts"], size)
            if newest is not None and start + size <= newest - bound:
                late.append(row)
            else:
                windows.setdefault((start, row["site"], row["device"]), []).append(row)
        newest = row["ts"] if newest is None else max(newest, row["ts"])
    history = []
    for (start, site, device), group in windows.items():
        temps = [row["temp"] for row in group]
        history.append({
            "window_start": text(start), "window_end": text(start + size), "site": site, "device": device,
            "date": start.strftime("%Y-%m-%d"), "samples": len(group), "temp_min": min(temps), "temp_max": max(temps),
            "temp_avg": math.fsum(temps) / len(temps), "temp_p99": quantile_range(temps, 0.99),
            "humid": sum(row["hum"] > 60 for row in group),
        })
    write("plant", messages, {
        "history": history,
        "late": [{"ts": text(r["ts"]), "site": r["site"], "device": r["device"], "temp": r["temp"], "hum": r["hum"]} for r in late],
        "rejected": [{"source": "telemetry", "payload": payload} for payload in rejected],
    })


def plugs():
    rng = random.Random(2)
    messages, rows, seen = [], [], set()
    for second in range(300):
        for plug, (on, off) in {"kettle": (60, 120), "lamp": (0, 300), "washer": (30, 200)}.items():
            ts = START + timedelta(seconds=second)
            w = 0.5
            if on <= second < off and not (plug == "washer" and 80 <= second < 130):
                w = round({"kettle": 2000, "lamp": 9, "washer": 400}[plug] * (0.9 + 0.2 * rng.random()), 1)
            repeats = 2 if rng.random() < 0.05 else 1
            for repeat in range(repeats):
                payload = json.dumps({"ts": int(ts.timestamp()), "w": w})
                messages.append((ts + timedelta(milliseconds=100 + repeat), f"home/{plug}/power", payload))
            rows.append({"plug": plug, "ts": ts, "w": w})
    size, every = timedelta(seconds=60), timedelta(seconds=20)
    minute = []
    for plug in ("kettle", "lamp", "washer"):
        start = START - size
        while start < START + timedelta(seconds=300):
            group = [row["w"] for row in rows if row["plug"] == plug and start <= row["ts"] < start + size]
            if group:
                minute.append({"window_start": text(start), "window_end": text(start + size), "plug": plug,
                               "date": start.strftime("%Y-%m-%d"), "samples": len(group),
                               "w_avg": math.fsum(group) / len(group), "wh": math.fsum(w / 3600 for w in group)})
            start += every
    runs, gap = [], timedelta(seconds=30)
    for plug in ("kettle", "lamp", "washer"):
        run = []
        for row in [row for row in rows if row["plug"] == plug and row["w"] > 5] + [None]:
            if run and (row is None or row["ts"] - run[-1]["ts"] > gap):
                runs.append({"window_start": text(run[0]["ts"]), "window_end": text(run[-1]["ts"] + gap), "plug": plug,
                             "readings": len(run), "w_max": max(r["w"] for r in run), "w_first": run[0]["w"],
                             "w_last": run[-1]["w"]})
                run = []
            if row:
                run.append(row)
    write("plugs", messages, {"power_history": minute, "run_history": runs})


def zigbee():
    rng = random.Random(3)
    berlin = ZoneInfo("Europe/Berlin")
    messages, rows = [], []
    begin = datetime(2026, 3, 28, 0, 10, tzinfo=berlin).astimezone(timezone.utc)
    for step in range(72 * 4):
        at = begin + timedelta(minutes=15 * step)
        for device, every in {"bedroom": 4, "kitchen": 1, "plug": 3}.items():
            if step % every:
                continue
            battery = 100 - step // 40
            report = {"linkquality": rng.randrange(20, 255), "last_seen": at.astimezone(berlin).isoformat()}
            if device != "plug":
                report = {"temperature": round(18 + 4 * rng.random(), 1), "battery": battery} | report
                rows.append({"device": device, "ts": at} | report)
            messages.append((at + timedelta(seconds=1), f"zigbee2mqtt/{device}", json.dumps(report)))
    days = {}
    for row in rows:
        days.setdefault((row["ts"].astimezone(berlin).date(), row["device"]), []).append(row)
    history = []
    for (day, device), group in days.items():
        start = datetime(day.year, day.month, day.day, tzinfo=berlin)
        end_day = day + timedelta(days=1)
        end = datetime(end_day.year, end_day.month, end_day.day, tzinfo=berlin)
        links = [row["linkquality"] for row in group]
        history.append({"window_start": text(start), "window_end": text(end), "device": device, "reports": len(group),
                        "t_min": min(r["temperature"] for r in group), "t_max": max(r["temperature"] for r in group),
                        "battery": group[-1]["battery"], "link_median": float(statistics.median(links))})
    write("zigbee", messages, {"history": history})


def alerts():
    rng = random.Random(4)
    messages, rows = [], []
    for second in range(60):
        for device in range(3):
            ts = START + timedelta(seconds=second, milliseconds=device)
            temp = round(70 + 12 * device * math.sin(second / 10) + rng.random(), 1)
            rows.append({"site": "hall", "device": f"m{device}", "ts": ts, "temp": temp})
            messages.append((ts, f"sites/hall/devices/m{device}/telemetry", json.dumps({"ts": millis(ts), "temp": temp})))
    windows, _ = tumble(rows, timedelta(seconds=10), timedelta(seconds=2), lambda row: row["device"])
    alarms = []
    for (start, device), group in windows.items():
        hottest = max(row["temp"] for row in group)
        if hottest > 80:
            alarms.append({"topic": f"sites/hall/devices/{device}/alerts", "window_start": text(start), "device": device,
                           "samples": len(group), "temp_max": hottest, "rule": "over_temperature",
                           "severity": "critical" if hottest > 95 else "warning"})
    write("alerts", messages, {"alarms": alarms})


def lorawan():
    rng = random.Random(5)
    messages, receptions = [], []
    gateways = ["7076ff0056070001", "7076ff0056070002", "a84041ffff1ee2b4"]
    for frame in range(150):
        for device in range(4):
            at = START + timedelta(minutes=2 * frame, seconds=7 * device)
            eui = f"70b3d5499000{device:04x}"
            heard = [g for g in gateways if rng.random() < 0.7]
            info = [{"gatewayId": g, "rssi": rng.randrange(-120, -60), "snr": round(rng.uniform(-10, 12), 2)} for g in heard]
            payload = {"deduplicationId": f"{frame}-{device}", "time": at.astimezone(timezone(timedelta(hours=1))).isoformat(),
                       "deviceInfo": {"devEui": eui}, "fCnt": frame, "object": {"temperature": round(rng.uniform(-5, 25), 1)},
                       "rxInfo": info}
            messages.append((at + timedelta(milliseconds=300), f"application/7/device/{eui}/event/up", json.dumps(payload)))
            receptions += [{"ts": at, "gateway": r["gatewayId"], "rssi": r["rssi"], "snr": r["snr"], "eui": eui} for r in info]
    hour = timedelta(hours=1)
    windows, late = tumble(receptions, hour, timedelta(minutes=1), lambda row: row["gateway"])
    assert not late
    history = [{
        "window_start": text(start), "window_end": text(start + hour), "gateway": gateway, "date": start.strftime("%Y-%m-%d"),
        "receptions": len(group), "devices": len({row["eui"] for row in group}),
        "rssi_avg": sum(row["rssi"] for row in group) / len(group), "snr_max": max(row["snr"] for row in group),
        "snr_stddev": statistics.stdev(row["snr"] for row in group),
    } for (start, gateway), group in windows.items()]
    write("lorawan", messages, {"history": history})


if __name__ == "__main__":
    for make in (plant, plugs, zigbee, alerts, lorawan):
        make()
