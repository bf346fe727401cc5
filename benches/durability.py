#!/usr/bin/env python3
"""What safety costs and what a restart takes, of a release build, on a journal, against mosquitto: prints Markdown tables.

    durability.py BINARY [--json FILE] [--kill-log FILE]

`--kill-log` takes the output of `cargo test --test kill -- --nocapture` for the table of kills. README.md says what is
measured.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
from durability_parts import (
    MOSQUITTO, SETTLE, Acknowledger, Broker, Metrics, Publisher, Streamgauge, Tap, Watch, quantile, until,
)
from durability_tables import show

# Messages of the first measure: JSON of this many bytes. Ten digits each, so that all have the same length.
BODY_LEN = 100
FIRST = 1_000_000_000
# How far the publisher is ahead of what streamgauge has received, at least: there is always a backlog.
LEAD = 50_000
# Messages a second at which the latency is measured, by window.
LATENCY_RATES = {20: 2_000}
LATENCY_RATE = 10_000
# Rows of a payload that makes groups.
ROWS = 100
# What the journal of the long recovery is made of.
LONG_BODY_LEN = 1_024
WITHIN = 180
# `receive_maximum` where it is not what is measured: its default, and the most.
WINDOW, WINDOW_MAX = 1_000, 65_535

PIPELINE = """
[pipeline]
name = "durability"
epoch = "{epoch}"
state = "{folder}/state"
journal = {{ quota = "8GiB", keep = "4GiB", sync = "group" }}

[sources.feed]
type = "mqtt"
url = "mqtt://127.0.0.1:{port}"
topics = ["bench"]
client_id = "durability"
session_expiry = "1h"
receive_maximum = {window}
qos = 1

[sources.feed.decode]
format = "json"
{rows}

[sources.feed.columns]
n = {{ type = "int64", required = true }}
device = {{ type = "utf8", required = true }}
ts = {{ type = "timestamp", unit = "ms", required = true }}
v = "float64"

[sources.feed.time]
column = "ts"
idle_after = "never"
"""

RAW = """
[sinks.out]
type = "parquet"
inputs = ["feed"]
path = "${{OUT:-{folder}/out}}"
"""

GROUPS = """
[operators.by_device]
type = "window"
inputs = ["feed"]
window = {{ tumbling = "1h" }}
group_by = ["device"]
aggregates = {{ samples = "count(*)", lowest = "min(v)", highest = "max(v)", mean = "avg(v)" }}

[sinks.out]
type = "parquet"
inputs = ["by_device"]
path = "{folder}/out"
"""


def pipeline(folder, port, stages, window=WINDOW, epoch="1s", rows=""):
    path = Path(folder) / "pipeline.toml"
    path.write_text((PIPELINE + stages).format(folder=folder, port=port, window=window, epoch=epoch, rows=rows))
    return path


def bodies(length=BODY_LEN):
    """Numbered messages of 1,000 devices, without end; all of one length."""
    form = b'{"n":%d,"device":"dev-%05d","ts":1767600000000,"v":21.25,"pad":"%b"}'
    pad = b"x" * (length - len(form % (FIRST, 0, b"")))
    number = FIRST
    while True:
        yield form % (number, number % 1_000, pad)
        number += 1


def grouped(groups):
    """Payloads of many rows, each of another device, until there are so many devices."""
    row = '{"n":%d,"device":"dev-%07d","ts":1767600000000,"v":21.25}'
    for first in range(0, groups, ROWS):
        devices = range(first, min(first + ROWS, groups))
        yield b"[" + ",".join(row % (device, device) for device in devices).encode() + b"]"


@contextlib.contextmanager
def running(binary, path, folder):
    run = Streamgauge(binary, path, folder)
    try:
        until(run.ready, 60, "ready")
        yield run
    finally:
        if run.process.poll() is None:
            run.kill()


def ceiling(row, _, folder, window, seconds):
    """What the broker hands out to a subscriber that only acknowledges, in messages a second."""
    with Broker(folder, window) as broker:
        subscriber = Acknowledger(broker.port, window, BODY_LEN)
        publisher = Publisher(broker.port, bodies(), taken=lambda: subscriber.received, lead=lead(window))
        time.sleep(SETTLE)
        begin, before = time.perf_counter(), subscriber.received
        time.sleep(seconds)
        rate = (subscriber.received - before) / (time.perf_counter() - begin)
        publisher.stop()
        subscriber.close()
        row["broker_alone"] = rate


def lead(window):
    return max(LEAD, 2 * window)


def ingest(row, binary, folder, window, seconds):
    """As many messages as get through for some seconds: how many a second are durable, and that each is there once."""
    with Broker(folder, window) as broker, running(binary, path := pipeline(folder, broker.port, RAW, window), folder) as run:
        watch = Watch(run)
        publisher = Publisher(broker.port, bodies(), taken=watch.received, lead=lead(window))
        time.sleep(SETTLE)
        first, broker_cpu = watch.looks[-1], broker.cpu()
        time.sleep(seconds)
        last, broker_cpu = watch.looks[-1], broker.cpu() - broker_cpu
        publisher.stop()
        stopped = time.perf_counter()
        until(lambda: watch.received() >= publisher.sent, WITHIN, "all messages received")
        until(lambda: watch.looks[-1].received("out") >= publisher.sent, WITHIN, "all messages with the sink")
        caught_up = time.perf_counter() - stopped
        watch.stop()
        run.terminate()
    took = last.at - first.at
    cpu = [look.value("process_cpu_seconds_total") for look in (first, last)]
    rows, distinct = count(f"{folder}/out")
    row |= {
        "messages": publisher.sent,
        "messages_per_second": (last.durable() - first.durable()) / took,
        "counted_by": "journal" if last.journaled() is not None else "received",
        "cores": (cpu[1] - cpu[0]) / took,
        "broker_cores": broker_cpu / took,
        "caught_up_seconds": caught_up,
        "lost": publisher.sent - distinct,
        "duplicated": rows - distinct,
    }
    replay(row, binary, path)


def count(folder):
    return duckdb.sql(f"SELECT count(*), count(DISTINCT n) FROM read_parquet('{folder}/**/*.parquet')").fetchall()[0]


def latency(row, binary, folder, window, rate, seconds):
    """From the broker's PUBLISH to the PUBACK that comes back, at a rate that leaves room."""
    with Broker(folder, window) as broker:
        tap = Tap(broker.port)
        with running(binary, pipeline(folder, tap.port, RAW, window), folder) as run:
            publisher = Publisher(broker.port, bodies(), rate=rate)
            time.sleep(SETTLE + seconds)
            publisher.stop()
            stopped = time.perf_counter()
            until(lambda: run.metrics().received() >= publisher.sent, WITHIN, "all messages received")
            behind = time.perf_counter() - stopped
            run.terminate()
        took, most = tap.seen()
    row |= {
        "rate": rate,
        "behind_ms": behind * 1e3,
        "acknowledged": len(took),
        "most_in_flight": most,
        "p50_ms": quantile(took, 0.5) * 1e3,
        "p99_ms": quantile(took, 0.99) * 1e3,
        "max_ms": quantile(took, 1) * 1e3,
    }


def replay(row, binary, path):
    """The journal of a live run once more, into another folder: from its beginning, and the same rows."""
    folder = path.parent
    begin = time.perf_counter()
    done = subprocess.run(
        [binary, "replay", path, "--journal", folder / "state"],
        env=os.environ | {"OUT": f"{folder}/again"}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )
    took = time.perf_counter() - begin
    assert done.returncode == 0, f"the replay ended with {done.returncode}: {done.stderr}"
    rows, distinct = count(f"{folder}/again")
    assert rows == distinct == row["messages"], f"{row['messages']} live, {rows} replayed, {distinct} of them distinct"
    rate = rows / took
    row |= {"replayed_per_second": rate, "replay_over_ingest": rate / row["messages_per_second"]}


def recovery(row, binary, folder, groups):
    """Killed after a checkpoint of so many groups: from the start of the next process until its first row."""
    with Broker(folder, WINDOW) as broker:
        path = pipeline(folder, broker.port, GROUPS, rows='rows = "$[*]"')
        with running(binary, path, folder) as run:
            Publisher(broker.port, grouped(groups)).join()
            until(lambda: run.metrics().received("by_device") >= groups, WITHIN, "all rows in their groups")
            # The epoch that is running may have begun before the last row; the one after it has not.
            newest = checkpoints(folder)
            until(lambda: checkpoints(folder) >= newest + 2, WITHIN, "a checkpoint of all groups")
            run.kill()
        again = restart(binary, broker, path, folder, groups, b'[{"n":0,"device":"dev-0000000","ts":1767600000000}]')
    size = sum(file.stat().st_size for file in Path(folder).glob("state/checkpoints/*"))
    row |= {"checkpoints_mib": size / 2**20} | again


def checkpoints(folder):
    """The number of the newest."""
    return max((int(file.stem) for file in Path(folder).glob("state/checkpoints/*.checkpoint")), default=-1)


def journal_recovery(row, binary, folder, mib):
    """Killed with a journal of so many MiB that no checkpoint covers: until the next process has read it."""
    number = mib * 2**20 // (LONG_BODY_LEN + 64)
    with Broker(folder, WINDOW_MAX) as broker:
        path = pipeline(folder, broker.port, GROUPS, window=WINDOW_MAX, epoch="1h")
        with running(binary, path, folder) as run:
            watch = Watch(run)
            text = (body for _, body in zip(range(number), bodies(LONG_BODY_LEN)))
            Publisher(broker.port, text, taken=watch.received, lead=lead(0)).join()
            until(lambda: watch.looks[-1].received("by_device") >= number, WITHIN, "all rows in their groups")
            watch.stop()
            run.kill()
        size = sum(file.stat().st_size for file in Path(folder).glob("state/journal/feed/*"))
        row |= {"journal_mib": size / 2**20, "messages": number}
        again = restart(binary, broker, path, folder, number, next(bodies(LONG_BODY_LEN)))
    row |= again


def restart(binary, broker, path, folder, known, body):
    """With a cold cache, and a message that waits at the broker: seconds until it is ready, and until that row, which is
    behind everything that was there before, is with the window."""
    forget(Path(folder) / "state")
    Publisher(broker.port, [body]).join()
    run, ready = Streamgauge(binary, path, folder), None
    try:
        while True:
            if ready is None and run.ready():
                ready = run.since_start()
            if run.metrics().received("by_device") > known:
                break
            assert run.since_start() < WITHIN, "it did not catch up"
            time.sleep(0.002)
        row = run.since_start()
        until(run.ready, 60, "ready")
        return {"ready_seconds": ready or row, "row_seconds": row, "resident_mib": resident(run.metrics())}
    finally:
        run.kill()


def resident(metrics: Metrics):
    return metrics.value("process_resident_memory_bytes") / 2**20


def forget(folder):
    """Takes files out of the page cache, as after a power cut."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def machine(folder):
    """What it ran on, and what its disk needs for a group of one record: 4 KiB over zeros, then fdatasync."""
    path, seconds = Path(folder) / "synced", []
    with path.open("wb", buffering=0) as file:
        file.write(bytes(16 << 20))
        os.fsync(file.fileno())
        begin = time.perf_counter()
        for block in range(1_000):
            os.lseek(file.fileno(), block * 4096, os.SEEK_SET)
            from_when = time.perf_counter()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            seconds.append(time.perf_counter() - from_when)
            if time.perf_counter() - begin > 3:
                break
    path.unlink()
    seconds.sort()
    name = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())[1]) / 2**20
    mount = subprocess.run(["findmnt", "-no", "FSTYPE", "-T", folder], capture_output=True, text=True).stdout.strip()
    broker = subprocess.run([MOSQUITTO, "-h"], capture_output=True, text=True).stdout.split("\n")[0]
    return {
        "cores": os.cpu_count(),
        "cpu": name[1] if name else "unknown",
        "memory_gib": round(memory),
        "file_system": mount,
        "fdatasync_p50_ms": quantile(seconds, 0.5) * 1e3,
        "fdatasync_p99_ms": quantile(seconds, 0.99) * 1e3,
        "broker": broker.replace(" version", ""),
        "load": os.getloadavg()[0],
    }


def kills(log):
    """What the kill test said of itself."""
    line = re.search(
        r"kills (\d+) .*?messages (\d+), redelivered (\d+), lost (\d+), duplicated (\d+)", Path(log).read_text()
    )
    assert line, f"there is no record of kills in {log}"
    return dict(zip(("kills", "messages", "redelivered", "lost", "duplicated"), map(int, line.groups())))


def sizes(text):
    return [int(part) for part in text.split(",") if part]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("binary", type=Path)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--kill-log", type=Path, help="output of the kill test")
    parser.add_argument("--dir", help="where state and files go: the disk that is measured")
    parser.add_argument("--seconds", type=float, default=10, help="how long each window is measured")
    parser.add_argument("--windows", type=sizes, default=[20, 1_000, 65_535])
    parser.add_argument("--groups", type=sizes, default=[10_000, 1_000_000])
    parser.add_argument("--journal-mib", type=int, default=1_024, help="0 leaves it out")
    arguments = parser.parse_args()
    binary, begin = arguments.binary.resolve(), time.perf_counter()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as root:
        # The broker gives up its rights, and reads its configuration here.
        os.chmod(root, 0o755)
        found = {"machine": machine(root), "kills": [], "ingest": [], "recovery": [], "failures": []}
        if arguments.kill_log:
            found["kills"] = [kills(arguments.kill_log)]

        def measured(row, measure, *sizes):
            """One measure, in a folder of its own. What fails is told at the end, and the others go on."""
            with tempfile.TemporaryDirectory(dir=root) as folder:
                try:
                    measure(row, binary, folder, *sizes)
                except (AssertionError, OSError, RuntimeError, subprocess.SubprocessError, duckdb.Error) as error:
                    found["failures"].append(f"{measure.__name__} {sizes}: {error}")

        for window in arguments.windows:
            found["ingest"].append(row := {"window": window})
            rate = LATENCY_RATES.get(window, LATENCY_RATE)
            measured(row, ceiling, window, arguments.seconds / 3)
            measured(row, ingest, window, arguments.seconds)
            measured(row, latency, window, rate, arguments.seconds / 2)
        for groups in arguments.groups:
            found["recovery"].append(row := {"groups": groups})
            measured(row, recovery, groups)
        if arguments.journal_mib:
            found["recovery"].append(row := {"journal_mib": arguments.journal_mib})
            measured(row, journal_recovery, arguments.journal_mib)
    show(found)
    print(f"\n{time.perf_counter() - begin:.0f} s in all")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    if found["failures"]:
        sys.exit("failed:\n" + "\n".join(found["failures"]))


if __name__ == "__main__":
    main()
