#!/usr/bin/env python3
"""Live, with mosquitto: how many messages a second get through without loss, what each costs, and how soon results can be read.

    live.py BINARY [--seconds 30] [--steps 10,25,50,100,150,200] [--qos 0,1] [--json FILE]

Prints Markdown tables. README.md says what is measured.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
from durability import machine
from durability_parts import Streamgauge, until
from live_parts import (
    BatchingBroker, Listener, Publisher, TunedBroker, cpu, network_cpu, quantiles, resident,
)

PIPELINE = Path(__file__).with_name("live.toml")
# From the moment when everything runs until the first message should be sent.
SETTLE = 1.0
# The beginning of a run is not measured.
WARM_UP = 2.0
# A publisher that is further behind at its worst did not keep its schedule.
LATE_MAX_MS = 250
# Without progress for so long, nothing more will come.
SILENCE = 3.0
CAUGHT_UP_WITHIN = 120


def pipeline(folder, qos, durability):
    """The pipeline of `live.toml`, at a quality of service, with or without a journal."""
    text = PIPELINE.read_text().replace("qos = 1", f"qos = {qos}")
    if durability == "journal":
        kept = f'state = "{folder}/state"\njournal = {{ quota = "4GiB", sync = "group" }}'
        text = text.replace('durability = "none"', f'durability = "journal"\n{kept}')
    path = Path(folder) / "live.toml"
    path.write_text(text)
    return path


@contextlib.contextmanager
def running(binary, folder, qos, durability, broker):
    os.environ |= {"BROKER": f"mqtt://127.0.0.1:{broker.port}", "OUT": f"{folder}/out"}
    run = Streamgauge(binary, pipeline(folder, qos, durability), folder)
    try:
        until(run.ready, 60, "ready")
        yield run
    finally:
        if run.process.poll() is None:
            run.kill()


def step(row, binary, folder, seconds):
    """One rate for some seconds: what came through, what it cost, and how soon results could be read."""
    qos, rate = row["qos"], row["rate"]
    with TunedBroker(folder) as broker, running(binary, folder, qos, row["durability"], broker) as run:
        listener = Listener(run.port(), ["latest", "beats"])
        pids = {"streamgauge": run.process.pid, "broker": broker.process.pid}
        start = float(int(time.time() + SETTLE) + 1)
        publisher = Publisher(broker.port, qos, rate, seconds, start)
        time.sleep(start - time.time())
        before = {name: cpu(pid) for name, pid in pids.items()}
        done = publisher.over()
        row["caught_up_seconds"] = catch_up(run, done["sent"])
        used = {name: cpu(pid) - before[name] for name, pid in pids.items()}
        row["resident_mib"] = resident(run.process.pid)
        account = run.terminate()
    took = {sink: listener.since(sink, start + min(WARM_UP, seconds / 4), start + seconds) for sink in ("latest", "beats")}
    row |= done | dict(zip(("p50_ms", "p99_ms", "p999_ms"), quantiles(took["beats"])))
    row |= {"samples": len(took["beats"]), "max_ms": took["beats"][-1] * 1e3 if took["beats"] else None}
    row |= {"window_samples": len(took["latest"]), "window_p50_ms": quantiles(took["latest"], [0.5])[0]}
    row["window_max_ms"] = took["latest"][-1] * 1e3 if took["latest"] else None
    source = account["sources"]["feed"]
    row |= {"received": source["received"], "dropped": source["dropped"], "lost": done["sent"] - source["received"]}
    row |= {f"{name}_us": seconds * 1e6 / done["sent"] for name, seconds in (used | {"publisher": done["cpu"]}).items()}
    row["kept"] = done["late_ms"] <= LATE_MAX_MS
    row["missing"] = missing(f"{folder}/out")
    row["good"] = row["lost"] == 0 and row["missing"] == 0 and row["dropped"] == 0 and row["kept"]


def batching(row, binary, folder, seconds):
    """What the client costs behind a peer that sends in blocks, as fast as they are taken."""
    with BatchingBroker(row["qos"], seconds) as broker, running(binary, folder, row["qos"], "none", broker) as run:
        pid = run.process.pid
        before, network, begin = cpu(pid), network_cpu(pid), time.perf_counter()
        broker.begin.set()
        sent = broker.over()
        catch_up(run, sent)
        row["rate"] = sent / (time.perf_counter() - begin)
        row |= {"streamgauge_us": (cpu(pid) - before) * 1e6 / sent, "network_us": (network_cpu(pid) - network) * 1e6 / sent}
        source = run.terminate()["sources"]["feed"]
    row |= {"sent": sent, "lost": sent - source["received"], "dropped": source["dropped"]}


def catch_up(run, sent):
    """Seconds from the last message until all are received; up to where no more come."""
    begin = changed = time.perf_counter()
    last = -1
    while (now := run.metrics().received()) < sent:
        at = time.perf_counter()
        if now != last:
            last, changed = now, at
        if at - changed > SILENCE or at - begin > CAUGHT_UP_WITHIN:
            break
        time.sleep(0.01)
    return time.perf_counter() - begin


def missing(folder):
    """Messages of a device that are in none of its windows, though one before and one behind them is: by their numbers, of
    which a device has every thousandth."""
    found = duckdb.sql(f"""
        SELECT sum((last - first) // 1000 + 1 - samples) FROM (
            SELECT min(first) AS first, max(last) AS last, sum(samples) AS samples
            FROM read_parquet('{folder}/**/*.parquet') GROUP BY device)
    """).fetchall()
    return int(found[0][0] or 0)


def figure(digits=0, unit=""):
    return lambda value: "–" if value is None else f"{value:,.{digits}f}{unit}"


STEPS = [
    ("QoS", "qos", str), ("durability", "durability", str), ("messages/s", "rate", figure()), ("sent", "sent", figure()),
    ("sent late, at most", "late_ms", figure(0, " ms")), ("lost", "lost", figure()),
    ("missing in windows", "missing", figure()), ("caught up after", "caught_up_seconds", figure(2, " s")),
    ("CPU a message", "streamgauge_us", figure(2, " µs")), ("broker's", "broker_us", figure(2, " µs")),
    ("publisher's", "publisher_us", figure(2, " µs")), ("resident", "resident_mib", figure(0, " MiB")),
    ("p50", "p50_ms", figure(1, " ms")), ("p99", "p99_ms", figure(1, " ms")),
]
BATCHING = [
    ("QoS", "qos", str), ("messages/s", "rate", figure()), ("sent", "sent", figure()), ("lost", "lost", figure()),
    ("given up for want of room", "dropped", figure()), ("CPU a message", "streamgauge_us", figure(3, " µs")),
    ("of it the client's threads", "network_us", figure(3, " µs")),
]
LATENCY = [
    ("QoS", "qos", str), ("durability", "durability", str), ("messages/s", "rate", figure()), ("p50", "p50_ms", figure(1, " ms")),
    ("p99", "p99_ms", figure(1, " ms")), ("p99.9", "p999_ms", figure(1, " ms")), ("most", "max_ms", figure(1, " ms")),
    ("of windows", "samples", figure()), ("1 s windows of 1,000 devices, p50", "window_p50_ms", figure(1, " ms")),
    ("most", "window_max_ms", figure(1, " ms")), ("of", "window_samples", figure()), ("lost", "lost", figure()),
    ("sent late, at most", "late_ms", figure(0, " ms")),
]


def show(columns, rows):
    print("\n| " + " | ".join(head for head, *_ in columns) + " |\n|" + " ---: |" * len(columns))
    for row in rows:
        print("| " + " | ".join("–" if key not in row else written(row[key]) for _, key, written in columns) + " |")


def best(rows):
    """The highest rate that lost nothing, at which the publisher kept its schedule."""
    for qos, durability in dict.fromkeys((row["qos"], row["durability"]) for row in rows):
        good = [row["rate"] for row in rows if (row["qos"], row["durability"]) == (qos, durability) and row.get("good")]
        print(f"\nQoS {qos}, durability {durability}: " + (f"{max(good):,} messages/s without loss" if good else "none without loss"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("binary", type=Path)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--dir", help="where state and files go")
    parser.add_argument("--seconds", type=float, default=30, help="how long a step takes")
    parser.add_argument("--steps", type=numbers, default=[10, 25, 50, 100, 150, 200], help="thousands of messages a second")
    parser.add_argument("--qos", type=numbers, default=[0, 1])
    parser.add_argument("--durability", type=lambda text: text.split(","), default=["none", "journal"])
    parser.add_argument("--latency-rate", type=int, default=50_000, help="messages a second at which the latency is measured")
    parser.add_argument("--latency-seconds", type=float, default=120, help="0 leaves it out")
    parser.add_argument("--batching-seconds", type=float, default=10, help="0 leaves out what the client costs")
    arguments = parser.parse_args()
    binary, begin = arguments.binary.resolve(), time.perf_counter()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as root:
        # The broker gives up its rights, and reads its configuration here.
        os.chmod(root, 0o755)
        found = {"machine": machine(root), "steps": [], "latency": [], "batching": [], "failures": []}

        def measured(rows, seconds, row, measure=step):
            """In a folder of its own. What fails is told at the end, and the others go on."""
            rows.append(row)
            with tempfile.TemporaryDirectory(dir=root) as folder:
                os.chmod(folder, 0o755)
                try:
                    measure(row, binary, folder, seconds)
                except (AssertionError, OSError, EOFError, RuntimeError, subprocess.SubprocessError, duckdb.Error) as error:
                    found["failures"].append(f"{row}: {error}")

        for qos in arguments.qos:
            for durability in arguments.durability:
                for thousands in arguments.steps:
                    measured(found["steps"], arguments.seconds, {"qos": qos, "durability": durability, "rate": thousands * 1_000})
                if arguments.latency_seconds:
                    row = {"qos": qos, "durability": durability, "rate": arguments.latency_rate}
                    measured(found["latency"], arguments.latency_seconds, row)
            if arguments.batching_seconds:
                measured(found["batching"], arguments.batching_seconds, {"qos": qos}, batching)
    on = found["machine"]
    print(f"{on['cores']} cores ({on['cpu']}), {on['memory_gib']} GiB, {on['file_system']}; {on['broker']}; load {on['load']:.1f} "
          "at the beginning; broker, publisher and streamgauge share the cores")
    show(STEPS, found["steps"])
    best(found["steps"])
    if found["latency"]:
        show(LATENCY, found["latency"])
    if found["batching"]:
        show(BATCHING, found["batching"])
    print(f"\n{time.perf_counter() - begin:.0f} s in all")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    if found["failures"]:
        sys.exit("failed:\n" + "\n".join(found["failures"]))


def numbers(text):
    return [int(part) for part in text.split(",") if part]


if __name__ == "__main__":
    main()
