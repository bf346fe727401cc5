#!/usr/bin/env python3
"""How much memory groups take: bytes a group by kind of window and number of groups, what is left once they are gone, and
what a process takes that only waits for its broker.

    memory.py BINARY [--groups 1000,10000,100000,1000000] [--windows NAME,…] [--json FILE]

The feed comes through a pipe, so that the process can be looked at while it waits for more.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Name: the window, how many rounds of all devices fill what is open at once, and aggregates beside the five simple ones.
WINDOWS = {
    "tumbling": ('{ tumbling = "10s" }', 3, ""),
    "hopping": ('{ hopping = "60s", every = "10s" }', 9, ""),
    "quantile": ('{ tumbling = "10s" }', 3, 'temp_p99 = "quantile(temp, 0.99)"\n'),
    "session": ('{ session = "30s" }', 3, ""),
}

# Rows may be 15 s behind: after a round of 10 s the panes of this round and of the one before are open, with all groups.
PIPELINE = """
[pipeline]
name = "memory"
durability = "none"

[sources.feed]
type = "mqtt"
url = "mqtt://127.0.0.1:{port}"
topics = ["feed"]

[sources.feed.decode]
format = "json"

[sources.feed.columns]
ts = {{ type = "timestamp", unit = "ms" }}
device = "utf8"
temp = "float64"

[sources.feed.time]
column = "ts"
out_of_orderness = "15s"

[operators.by_device]
type = "window"
inputs = ["feed"]
window = {window}
group_by = ["device"]

[operators.by_device.aggregates]
samples = "count(*)"
temp_sum = "sum(temp)"
temp_min = "min(temp)"
temp_max = "max(temp)"
temp_avg = "avg(temp)"
{more}
# What windows become downstream is not what is measured.
[operators.nothing]
type = "filter"
inputs = ["by_device"]
where = "samples < 0"

[sinks.out]
type = "stdout"
inputs = ["nothing"]
"""

BEGIN_MS = 1_700_000_000_000
ROUND_MS = 10_000
# Longer than `forget_after`, which is ten minutes.
FORGOTTEN_MS = 720_000
# Enough rows of one device to fill buffers and batches on the way, whatever they are.
FILLER = 40_000
CHUNK = 10_000
# A process that used no processor time for so long has done what it was given.
QUIET = 0.5


def status(process, key):
    """A line of /proc/PID/status in bytes."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"the process has ended: {key} is not told")


def ticks(process):
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def settled(process):
    """RSS once the process does nothing any more."""
    used, since = ticks(process), time.monotonic()
    while time.monotonic() - since < QUIET:
        time.sleep(QUIET / 10)
        now = ticks(process)
        # A runtime looks around now and then: that is not work.
        if now > used + 1:
            used, since = now, time.monotonic()
    return status(process, "VmRSS")


class Feed:
    """Lines into the pipe, in order of their time."""

    def __init__(self, pipe):
        self.pipe = pipe
        self.at = BEGIN_MS

    def lines(self, count, devices, over_ms):
        """So many rows of the devices in turn, spread over a time."""
        for start in range(0, count, CHUNK):
            rows = range(start, min(start + CHUNK, count))
            begin = self.at
            self.pipe.write("".join(
                f'{{"device":"dev-{row % devices:07}","ts":{begin + row * over_ms // count},"temp":{15 + row % 1500 / 100:.2f}}}\n'
                for row in rows
            ))
        self.at += over_ms
        self.pipe.flush()


def measure(binary, folder, name, groups):
    window, rounds, more = WINDOWS[name]
    pipeline, fifo = Path(folder) / "memory.toml", Path(folder) / "feed.jsonl"
    pipeline.write_text(PIPELINE.format(window=window, more=more, port=1883))
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo)
    command = [binary, "replay", pipeline, "--recording", fifo, "--bare", "--topic", "feed"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        with open(fifo, "w") as pipe:
            feed = Feed(pipe)
            feed.lines(FILLER, 1, ROUND_MS)
            before = settled(process)
            for _ in range(rounds):
                feed.lines(groups, groups, ROUND_MS)
            # What is still on its way goes before this.
            feed.lines(FILLER, 1, 1_000)
            steady, peak = settled(process), status(process, "VmHWM")
            feed.lines(FILLER, 1, FORGOTTEN_MS)
            settled(process)
            feed.lines(FILLER, 1, 60_000)
            gone = settled(process)
        errors = process.communicate(timeout=600)[1]
        if process.returncode != 0:
            raise RuntimeError(f"{name}, {groups} groups: ended with {process.returncode}: {errors}")
    finally:
        process.kill()
        process.wait()
    return {"window": name, "groups": groups, "before": before, "steady": steady, "peak": peak, "gone": gone,
            "bytes_per_group": (steady - before) / groups}


def idle(binary, folder):
    """RSS of a run that waits for a broker that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    pipeline = Path(folder) / "idle.toml"
    pipeline.write_text(PIPELINE.format(window=WINDOWS["tumbling"][0], more="", port=port))
    process = subprocess.Popen([binary, "run", pipeline], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(3)
        if process.poll() is not None:
            raise RuntimeError(f"a run without a broker ended with {process.returncode}")
        return status(process, "VmRSS")
    finally:
        process.kill()
        process.wait()


def available():
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def mib(size):
    return f"{size / (1 << 20):,.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--groups", default="1000,10000,100000,1000000")
    parser.add_argument("--windows", default=",".join(WINDOWS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    counts = sorted(int(count) for count in options.groups.split(","))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        waiting = idle(options.binary, folder)
        print(f"A run that waits for its broker: {mib(waiting)} MiB resident\n")
        print("| window | groups | before, MiB | steady, MiB | bytes a group | peak, MiB | groups gone, MiB |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
        for name in options.windows.split(","):
            known = 0.0
            for groups in counts:
                # With room for the copy that a list makes when it grows.
                if 3 * known * groups > available():
                    print(f"| {name} | {groups:,} | – | – | – | – | – |", flush=True)
                    print(f"{name}, {groups} groups: {known:.0f} bytes each are too many here", file=sys.stderr)
                    continue
                row = measure(options.binary, folder, name, groups)
                rows.append(row)
                known = row["bytes_per_group"]
                print(f"| {name} | {groups:,} | {mib(row['before'])} | {mib(row['steady'])} | {known:,.0f} | "
                      f"{mib(row['peak'])} | {mib(row['gone'])} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"waiting": waiting, "windows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
