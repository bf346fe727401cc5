#!/usr/bin/env python3
"""Writes a bare recording: devices in turn, a reading every millisecond of event time, 77 bytes a line with seven digits of
`seq`. The same bytes every time.

    feed.py LINES FILE [DEVICES]
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


def main(lines, path, devices=1000):
    numbers = splitmix(42)
    with open(path, "w") as file:
        for seq in range(lines):
            temp = 1500 + next(numbers) % 1500
            device, ts = seq % devices, 1_700_000_000_000 + seq
            file.write(f'{{"device":"dev-{device:05}","ts":{ts},"temp":{temp / 100:.2f},"q":192,"seq":{seq}}}\n')


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
