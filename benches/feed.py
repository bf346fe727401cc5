#!/usr/bin/env python3
"""Writes a bare recording: 1,000 devices in turn, a reading every millisecond of event time. The same bytes every time.

    feed.py LINES FILE
"""

import sys

MASK = (1 << 64) - 1


def splitmix(state):
    """SplitMix64 (Steele, Lea, Flood 2014)."""
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield z ^ (z >> 31)


def main(lines, path):
    numbers = splitmix(42)
    with open(path, "w") as file:
        for seq in range(lines):
            temp = 1500 + next(numbers) % 1500
            file.write(f'{{"device":"dev-{seq % 1000:05}","ts":{1_700_000_000_000 + seq},"temp":{temp / 100:.2f},"seq":{seq}}}\n')


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
