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
import tempfile
import time
from pathlib import Path

import duckdb
from durability_parts import (
    SETTLE, Acknowledger, Broker, Metrics, Publisher, Streamgauge, Tap, Watch, quantile, until,
)

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


def pipeline(folder, port, stages, window=1_000, epoch="1s", rows=""):
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


def ceiling(folder, window, seconds):
    """What the broker hands out to a subscriber that only acknowledges, in messages a second."""
    with Broker(folder) as broker:
        subscriber = Acknowledger(broker.port, window, BODY_LEN)
        publisher = Publisher(broker.port, bodies(), taken=lambda: subscriber.received, lead=lead(window))
        time.sleep(SETTLE)
        begin, before = time.perf_counter(), subscriber.received
        time.sleep(seconds)
        rate = (subscriber.received - before) / (time.perf_counter() - begin)
        publisher.stop()
        subscriber.close()
        return rate


def lead(window):
    return max(LEAD, 2 * window)


def ingest(binary, folder, window, seconds):
    """As many messages as get through for some seconds: how many a second are durable, and that each is there once."""
    with Broker(folder) as broker, running(binary, path := pipeline(folder, broker.port, RAW, window), folder) as run:
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
    return {
        "window": window,
        "messages": publisher.sent,
        "messages_per_second": (last.durable() - first.durable()) / took,
        "cores": (cpu[1] - cpu[0]) / took,
        "broker_cores": broker_cpu / took,
        "caught_up_seconds": caught_up,
        "lost": publisher.sent - distinct,
        "duplicated": rows - distinct,
        "pipeline": path,
    }


def count(folder):
    return duckdb.sql(f"SELECT count(*), count(DISTINCT n) FROM read_parquet('{folder}/**/*.parquet')").fetchall()[0]


def latency(binary, folder, window, rate, seconds):
    """From the broker's PUBLISH to the PUBACK that comes back, at a rate that leaves room."""
    with Broker(folder) as broker:
        tap = Tap(broker.port)
        with running(binary, pipeline(folder, tap.port, RAW, window), folder) as run:
            publisher = Publisher(broker.port, bodies(), rate=rate)
            time.sleep(SETTLE + seconds)
            publisher.stop()
            until(lambda: run.metrics().received() >= publisher.sent, WITHIN, "all messages received")
            run.terminate()
        took = tap.seconds()
    return {
        "rate": rate,
        "acknowledged": len(took),
        "p50_ms": quantile(took, 0.5) * 1e3,
        "p99_ms": quantile(took, 0.99) * 1e3,
        "max_ms": quantile(took, 1) * 1e3,
    }


def replay(binary, live):
    """The journal of a live run once more, into another folder."""
    folder = live["pipeline"].parent
    command = [binary, "replay", live["pipeline"], "--journal", folder / "state", "--account", folder / "replayed.json"]
    begin = time.perf_counter()
    subprocess.run(command, env=os.environ | {"OUT": f"{folder}/again"}, check=True, stdout=subprocess.DEVNULL)
    took = time.perf_counter() - begin
    rows, distinct = count(f"{folder}/again")
    assert rows == distinct == live["messages"], f"{live['messages']} live, {rows} replayed, {distinct} of them distinct"
    rate = rows / took
    return {"messages": rows, "messages_per_second": rate, "over_ingest": rate / live["messages_per_second"]}


def recovery(binary, folder, groups):
    """Killed after a checkpoint of so many groups: from the start of the next process until its first row."""
    with Broker(folder) as broker:
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
    return {"groups": groups, "state_mib": size / 2**20} | again


def checkpoints(folder):
    """The number of the newest."""
    return max((int(file.stem) for file in Path(folder).glob("state/checkpoints/*.checkpoint")), default=-1)


def journal_recovery(binary, folder, mib):
    """Killed with a journal of so many MiB that no checkpoint covers: until the next process has read it."""
    number = mib * 2**20 // (LONG_BODY_LEN + 64)
    with Broker(folder) as broker:
        path = pipeline(folder, broker.port, GROUPS, window=65_535, epoch="1h")
        with running(binary, path, folder) as run:
            watch = Watch(run)
            text = (body for _, body in zip(range(number), bodies(LONG_BODY_LEN)))
            Publisher(broker.port, text, taken=watch.received, lead=lead(0)).join()
            until(lambda: watch.looks[-1].received("by_device") >= number, WITHIN, "all rows in their groups")
            watch.stop()
            run.kill()
        size = sum(file.stat().st_size for file in Path(folder).glob("state/journal/feed/*"))
        again = restart(binary, broker, path, folder, number, next(bodies(LONG_BODY_LEN)))
    return {"journal_mib": size / 2**20, "messages": number} | again


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
    broker = subprocess.run(["/usr/sbin/mosquitto", "-h"], capture_output=True, text=True).stdout.split("\n")[0]
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


def table(head, rows):
    print("\n| " + " | ".join(head) + " |\n|" + " ---: |" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def show(found):
    on = found["machine"]
    print(f"{on['cores']} cores ({on['cpu']}), {on['memory_gib']} GiB, {on['file_system']}; 4 KiB and fdatasync: p50 "
          f"{on['fdatasync_p50_ms']:.2f} ms, p99 {on['fdatasync_p99_ms']:.2f} ms; {on['broker']}; load {on['load']:.1f}")
    if "kills" in found:
        table(found["kills"].keys(), [[f"{number:,}" for number in found["kills"].values()]])
    if found["ingest"]:
        table(
            ["window", "durable messages/s", "broker alone", "share", "cores, broker's", "messages", "lost", "duplicated",
             "acknowledged after p50", "p99", "at messages/s"],
            [[f"{m['window']:,}", f"{m['messages_per_second']:,.0f}", f"{m['broker_alone']:,.0f}",
              f"{m['messages_per_second'] / m['broker_alone']:.2f}", f"{m['cores']:.2f}, {m['broker_cores']:.2f}",
              f"{m['messages']:,}", f"{m['lost']}", f"{m['duplicated']}", f"{m['latency']['p50_ms']:.1f} ms",
              f"{m['latency']['p99_ms']:.1f} ms", f"{m['latency']['rate']:,}"] for m in found["ingest"]],
        )
        table(
            ["window", "replayed messages", "messages/s", "over ingest"],
            [[f"{m['window']:,}", f"{m['replay']['messages']:,}", f"{m['replay']['messages_per_second']:,.0f}",
              f"{m['replay']['over_ingest']:.1f}"] for m in found["ingest"]],
        )
    if found["recovery"]:
        table(
            ["restart with", "ready after", "first new row after", "resident"],
            [[what(m), f"{m['ready_seconds']:.2f} s", f"{m['row_seconds']:.2f} s", f"{m['resident_mib']:,.0f} MiB"]
             for m in found["recovery"]],
        )


def what(measured):
    if "groups" in measured:
        return f"{measured['groups']:,} groups ({measured['state_mib']:.1f} MiB of checkpoints)"
    return f"{measured['journal_mib']:,.0f} MiB of journal ({measured['messages']:,} messages)"


def numbers(text):
    return [int(part) for part in text.split(",") if part]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("binary", type=Path)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--kill-log", type=Path, help="output of the kill test")
    parser.add_argument("--dir", help="where state and files go: the disk that is measured")
    parser.add_argument("--seconds", type=float, default=10, help="how long each window is measured")
    parser.add_argument("--windows", type=numbers, default=[20, 1_000, 65_535])
    parser.add_argument("--groups", type=numbers, default=[10_000, 1_000_000])
    parser.add_argument("--journal-mib", type=int, default=1_024, help="0 leaves it out")
    arguments = parser.parse_args()
    binary, begin = arguments.binary.resolve(), time.perf_counter()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as root:
        # The broker gives up its rights, and reads its configuration here.
        os.chmod(root, 0o755)
        found = {"machine": machine(root), "ingest": [], "recovery": []}
        if arguments.kill_log:
            found["kills"] = kills(arguments.kill_log)

        def folder(name):
            return tempfile.TemporaryDirectory(prefix=name, dir=root)

        for window in arguments.windows:
            with folder("ceiling") as at:
                alone = ceiling(at, window, arguments.seconds / 3)
            with folder("ingest") as at:
                live = ingest(binary, at, window, arguments.seconds)
                live |= {"broker_alone": alone, "replay": replay(binary, live)}
            with folder("latency") as at:
                rate = LATENCY_RATES.get(window, LATENCY_RATE)
                live["latency"] = latency(binary, at, window, rate, arguments.seconds / 2)
            del live["pipeline"]
            found["ingest"].append(live)
        for groups in arguments.groups:
            with folder("groups") as at:
                found["recovery"].append(recovery(binary, at, groups))
        if arguments.journal_mib:
            with folder("journal") as at:
                found["recovery"].append(journal_recovery(binary, at, arguments.journal_mib))
    show(found)
    print(f"\n{time.perf_counter() - begin:.0f} s in all")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
