#!/usr/bin/env python3
"""Streamgauge beside other engines: the same answers from the same file, on the same machine, in one run.

    run.py BINARY [--lines N] [--devices N] [--repeat N] [--queries windows,archive,hopping] [--engines duckdb,polars,…]

Installs each engine into a virtual environment of its own below --cache, the first time; one that cannot be installed is left
out, and why is said. Engines take turns, each in a process of its own, from its start to its end. Slow ones get the
first lines of the feed only. Every answer is checked against ours. Prints a Markdown table; the figures go to --json, and
the plot to --svg.
"""

import argparse
import datetime
import importlib.util
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE.parent))

import feed as generator  # noqa: E402
import plot  # noqa: E402

OURS = "streamgauge"

# The packages of each engine, and which queries it answers.
ENGINES = {
    "duckdb": (["duckdb==2.0.1"], ["windows", "archive", "hopping"]),
    "polars": (["polars==2.1.0"], ["windows", "archive"]),
    "datafusion": (["datafusion==55.0.0"], ["windows", "archive"]),
    "flink": (["apache-flink==2.3.0"], ["windows", "hopping"]),
    "bytewax": (["bytewax==0.21.1", "orjson", "pyarrow"], ["windows"]),
}

# The lines that an engine gets at most, so that a run of it takes about ten seconds.
LINES_MAX = {
    ("flink", "windows"): 2_000_000,
    ("flink", "hopping"): 300_000,
    ("duckdb", "hopping"): 1_000_000,
    ("bytewax", "windows"): 100_000,
}

# Of the process, with all its threads and children; then it is given up.
SECONDS_MAX = 900


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path, help="a release build of streamgauge")
    parser.add_argument("--lines", type=int, default=5_000_000, help="of the feed")
    parser.add_argument("--devices", type=int, default=1_000, help="in the feed")
    parser.add_argument("--slow-lines", type=int, help="for slow engines at most, in place of what is set for each")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each; the fastest counts")
    parser.add_argument("--queries", default="windows,archive,hopping")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--cache", type=Path, default=HERE.parents[1] / "target/peers", help="for environments and feeds")
    parser.add_argument("--system", action="store_true", help="with the packages that this Python has; install none")
    parser.add_argument("--json", type=Path, help="default: run.json in the cache")
    parser.add_argument("--svg", type=Path, default=HERE / "peers.svg")
    return parser.parse_args()


def say(text):
    print(text, file=sys.stderr, flush=True)


def installed(engine):
    """This Python, where it has what the engine needs."""
    modules = {"apache-flink": "pyflink"}
    names = [package.split("==")[0] for package in ENGINES[engine][0]]
    missing = [name for name in names if importlib.util.find_spec(modules.get(name, name)) is None]
    return (None, f"this Python has no {', '.join(missing)}") if missing else (Path(sys.executable), None)


def install(engine, cache):
    """The Python of an engine's environment; why not, where it cannot be had."""
    folder, packages = cache / "env" / engine, ENGINES[engine][0]
    python, done = folder / "bin/python", folder / "installed.json"
    if done.exists() and json.loads(done.read_text()) == packages:
        return python, None
    if engine == "flink" and not shutil.which("java"):
        return None, "there is no java"
    say(f"installing {engine} …")
    shutil.rmtree(folder, ignore_errors=True)
    for command in ([sys.executable, "-m", "venv", folder], [python, "-m", "pip", "install", "-q", *packages]):
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            lines = (ended.stderr or ended.stdout).strip().splitlines()
            return None, next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "pip failed")
    done.write_text(json.dumps(packages))
    return python, None


def feed(cache, lines, devices):
    path = cache / f"feed-{lines}-{devices}.jsonl"
    if not path.exists():
        say(f"writing a feed of {lines:,} lines …")
        part = path.with_suffix(".part")
        generator.main(lines, part, devices)
        part.rename(path)
    with open(path, "rb") as file:
        while file.read(1 << 24):  # So that it is in the page cache for all alike.
            pass
    return path


def measured(command, environment, log):
    """Runs a process to its end: `(wall seconds, processor seconds, peak resident bytes, what it printed)`."""
    with tempfile.TemporaryFile() as out, open(log, "wb") as err:
        begin = time.perf_counter()
        process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=err, env=environment)
        try:
            while True:
                pid, status, used = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    break
                if time.perf_counter() - begin > SECONDS_MAX:
                    process.kill()
                time.sleep(0.002)
        except BaseException:
            process.kill()
            raise
        wall = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        printed = out.read().decode(errors="replace")
    if process.returncode:
        tail = Path(log).read_text(errors="replace").strip().splitlines()[-3:]
        raise RuntimeError(f"ended with {process.returncode}: {' | '.join(tail)[-400:]}")
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, printed


class Runs:
    """All runs of an engine on a query."""

    def __init__(self, engine, query, lines, python=None):
        self.engine, self.query, self.lines, self.python = engine, query, lines, python
        self.version, self.runs, self.failure = None, [], None

    def command(self, options, path, out):
        if self.engine == OURS:
            pipeline = HERE / f"{self.query}.toml"
            return [options.binary, "replay", pipeline, "--recording", path, "--bare", "--topic", "feed", "--log", "warn"]
        return [self.python, HERE / f"{self.engine}_peer.py", self.query, path, out]

    def once(self, options, scratch):
        path = feed(options.cache, self.lines, options.devices)
        out = scratch / f"{self.query}-{self.engine}-{self.lines}"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        environment = os.environ | {"OUT": str(out), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            *figures, printed = measured(self.command(options, path, out), environment, scratch / "log")
        except RuntimeError as why:
            self.failure = str(why)
            return None
        self.version = self.version or (printed.split() or ["?"])[-1]
        self.runs.append(figures)
        return out

    def result(self):
        wall, cpu, _ = min(self.runs)
        return {
            "query": self.query, "engine": self.engine, "version": self.version, "rows": self.lines,
            "wall_seconds": wall, "cpu_seconds": cpu, "rows_per_second": self.lines / wall,
            "rows_per_cpu_second": self.lines / cpu, "peak_bytes": max(peak for _, _, peak in self.runs),
            "walls": [wall for wall, _, _ in self.runs],
        }


def plan(options, pythons):
    """What runs: ours first for each query, on the whole feed, and on what slow engines get to have their answer."""
    for query in options.queries.split(","):
        answered = [engine for engine in pythons if query in ENGINES[engine][1]]
        lines = {}
        for engine in answered:
            most = LINES_MAX.get((engine, query))
            lines[engine] = min(options.lines, options.lines if most is None else options.slow_lines or most)
        yield query, Runs(OURS, query, options.lines), [Runs(engine, query, lines[engine], pythons[engine]) for engine in answered]


def same(python, ours, theirs):
    if python is None:
        return "not checked: DuckDB is not there"
    ended = subprocess.run([python, HERE / "answers.py", ours, theirs], capture_output=True, text=True)
    return None if ended.returncode == 0 else (ended.stdout.strip() or ended.stderr.strip()[-400:])


def run(options, pythons, checker, scratch):
    results, wrong = [], []
    for query, ours, peers in plan(options, pythons):
        references = {}
        for number in range(options.repeat):
            for runs in [ours, *(peer for peer in peers if not peer.failure)]:
                say(f"{query}: {runs.engine}, {runs.lines:,} lines, {number + 1} of {options.repeat}")
                out = runs.once(options, scratch)
                if runs is ours and out is None:
                    sys.exit(f"streamgauge failed: {ours.failure}")
                if out is None:
                    wrong.append(f"{query}: {runs.engine} {runs.failure}")
                    continue
                if runs is ours:
                    references[runs.lines] = out
                    continue
                if number == 0:
                    if runs.lines not in references:
                        references[runs.lines] = Runs(OURS, query, runs.lines).once(options, scratch)
                    why = same(checker, references[runs.lines], out)
                    wrong += [f"{query}: {runs.engine}: {why}"] if why else []
                shutil.rmtree(out)
        ours.version = subprocess.run([options.binary, "--version"], capture_output=True, text=True).stdout.split()[-1]
        results += [runs.result() for runs in [ours, *peers] if runs.runs]
        for out in references.values():
            shutil.rmtree(out)
    return results, wrong


def machine():
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    except OSError:
        pass
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "load": round(os.getloadavg()[0], 1), "python": platform.python_version()}


def table(found):
    on, feeding = found["machine"], found["feed"]
    yield (f"{on['cores']} cores ({on['cpu']}), load {on['load']} before, {found['date']}; {feeding['lines']:,} lines of "
           f"{feeding['bytes'] / feeding['lines']:.1f} bytes, {feeding['devices']:,} devices; the fastest of {found['repeat']} runs.")
    yield ""
    yield "| query | engine | version | rows | wall s | CPU s | rows/s | rows/s per core | peak RSS | wall: ours is | CPU: ours is |"
    yield "| --- | --- | --- |" + " ---: |" * 8
    for query, results in itertools.groupby(found["results"], key=lambda result: result["query"]):
        results = list(results)
        ours = results[0]
        for result in results:
            times = lambda key: f"{ours[key] / result[key]:,.2f} ×" if result is not ours else "–"
            yield (f"| {query} | {result['engine']} | {result['version']} | {result['rows']:,} | {result['wall_seconds']:.2f} | "
                   f"{result['cpu_seconds']:.2f} | {result['rows_per_second']:,.0f} | {result['rows_per_cpu_second']:,.0f} | "
                   f"{result['peak_bytes'] / 2**20:,.0f} MiB | {times('rows_per_second')} | {times('rows_per_cpu_second')} |")


def main():
    options = arguments()
    options.cache = options.cache.resolve()
    options.cache.mkdir(parents=True, exist_ok=True)
    pythons, left_out = {}, []
    for engine in options.engines.split(","):
        python, why = installed(engine) if options.system else install(engine, options.cache)
        if python:
            pythons[engine] = python
        else:
            left_out.append(f"{engine} is left out: {why}")
            say(left_out[-1])
    found = {"machine": machine(), "date": datetime.date.today().isoformat(), "repeat": options.repeat}
    path = feed(options.cache, options.lines, options.devices)
    found["feed"] = {"lines": options.lines, "devices": options.devices, "bytes": path.stat().st_size}
    with tempfile.TemporaryDirectory(dir=options.cache) as scratch:
        found["results"], wrong = run(options, pythons, pythons.get("duckdb"), Path(scratch))
    found["left_out"], found["wrong"] = left_out, wrong
    out = options.json or options.cache / "run.json"
    out.write_text(json.dumps(found, indent=1) + "\n")
    plot.main(out, options.svg)
    print("\n".join(table(found)))
    for text in left_out + wrong:
        print(f"\n{text}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
