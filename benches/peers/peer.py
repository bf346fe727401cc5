"""What all peers share: `PEER.py QUERY FEED OUT` writes an answer to the folder OUT, and prints the engine's version.

Queries:
  windows  tumbling windows of 10 s of event time, by device: window_start, device, samples, temp_min, temp_max, temp_avg
  archive  the same, and every row: device, ts, temp, q, seq
  hopping  as windows, but of 60 s, one every second
"""

import sys
from pathlib import Path


def run(version, **queries):
    query, feed, out = sys.argv[1], Path(sys.argv[2]).resolve(), Path(sys.argv[3]).resolve()
    queries[query](feed, out)
    print(version, flush=True)
