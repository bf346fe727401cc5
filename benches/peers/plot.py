#!/usr/bin/env python3
"""Draws the figures of a run of `run.py` as bars on a logarithmic scale, for light and dark pages.

    plot.py RUN.json OUT.svg
"""

import json
import math
import sys

TITLES = {
    "windows": "10 s windows of 1,000 devices, JSON to Parquet",
    "archive": "the same, and every row to Parquet",
    "hopping": "60 s windows, one every second",
}

WIDTH, LEFT, RIGHT, BAR, GAP, HEAD, FOOT = 720, 120, 90, 16, 6, 34, 44

STYLE = """
    text { font: 12px system-ui, sans-serif; fill: #24292f }
    .title { font-weight: 600 }
    .quiet { fill: #6e7781; font-size: 11px }
    .line { stroke: #d0d7de; stroke-width: 1 }
    .ours { fill: #0969da }
    .peer { fill: #8c959f }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 }
      .quiet { fill: #9198a1 }
      .line { stroke: #3d444d }
      .ours { fill: #4493f8 }
      .peer { fill: #656c76 }
    }"""


def short(rate):
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rate >= size:
            return f"{rate / size:.3g} {unit}"
    return f"{rate:.3g}"


def escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def draw(run):
    results = run["results"]
    queries = [query for query in TITLES if any(result["query"] == query for result in results)]
    rates = [result["rows_per_second"] for result in results]
    low, high = math.floor(math.log10(min(rates))), math.ceil(math.log10(max(rates)))
    high = max(high, low + 1)
    x = lambda rate: LEFT + (math.log10(rate) - low) / (high - low) * (WIDTH - LEFT - RIGHT)
    parts, y = [], 8
    for query in queries:
        bars = sorted((result for result in results if result["query"] == query), key=lambda result: -result["rows_per_second"])
        parts.append(f'<text class="title" x="{LEFT}" y="{y + 18}">{escaped(TITLES[query])}</text>')
        y += HEAD
        bottom = y + len(bars) * (BAR + GAP)
        for power in range(low, high + 1):
            parts.append(f'<line class="line" x1="{x(10**power):.1f}" x2="{x(10**power):.1f}" y1="{y - 4}" y2="{bottom}"/>')
        for bar in bars:
            rate, kind = bar["rows_per_second"], "ours" if bar["engine"] == "streamgauge" else "peer"
            middle = y + BAR * 0.75
            parts.append(f'<text x="{LEFT - 8}" y="{middle}" text-anchor="end">{escaped(bar["engine"])}</text>')
            parts.append(f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{x(rate) - LEFT:.1f}" height="{BAR}" rx="2"/>')
            parts.append(f'<text class="quiet" x="{x(rate) + 6:.1f}" y="{middle}">{short(rate)}</text>')
            y += BAR + GAP
    for power in range(low, high + 1):
        parts.append(f'<text class="quiet" x="{x(10**power):.1f}" y="{y + 14}" text-anchor="middle">{short(10.0**power)}</text>')
    about = f'rows a second, {run["machine"]["cores"]} cores, {run["date"]}; the scale is logarithmic'
    parts.append(f'<text class="quiet" x="{LEFT}" y="{y + 32}">{escaped(about)}</text>')
    height, body = y + FOOT, "\n  ".join(parts)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" role="img"'
            f' aria-label="Rows a second by engine and query">\n  <style>{STYLE}\n  </style>\n  {body}\n</svg>\n')


def main(run, out):
    with open(run) as file:
        text = draw(json.load(file))
    with open(out, "w") as file:
        file.write(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
