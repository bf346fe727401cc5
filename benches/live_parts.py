"""What `live.py` measures with: a publisher that keeps a schedule, a broker that drops nothing by itself, and a listener that
notes when results can be read. The standard library, and mosquitto."""

import json
import multiprocessing
import os
import select
import socket
import struct
import subprocess
import threading
import time
from array import array
from datetime import datetime, timezone
from pathlib import Path

from durability_parts import MOSQUITTO, Broker, connect, free_port, until, varint

BODY_LEN = 100
DEVICES = 1_000
# Messages that the broker has not acknowledged to the publisher, at most: packet ids are given in turn.
IDS = 60_000
# A publisher that is behind sends so many blocks at once, at most; each is a millisecond's messages.
BLOCKS_MAX = 16
# Digits that differ from message to message; those above change at most once within a block.
FAST_DIGITS = 4
DIGITS = 9
BLOCK_MAX = 10 ** FAST_DIGITS
# The broker's configuration: it queues whatever a subscriber does not take at once, and drops nothing.
TUNED = """listener {port} 127.0.0.1
allow_anonymous true
persistence false
set_tcp_nodelay true
max_inflight_messages 0
max_queued_messages 0
max_queued_bytes 0
sys_interval 0
log_type none
"""


class TunedBroker(Broker):
    """mosquitto on a free port of loopback, without limits of its own."""

    def __init__(self, folder):
        self.port = free_port()
        config = Path(folder) / "mosquitto.conf"
        config.write_text(TUNED.format(port=self.port))
        self.process = subprocess.Popen([MOSQUITTO, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self.listens, 10, "the broker listening")


class Frames:
    """PUBLISH packets of one length, many at a time: numbers are written by slices, a digit of all packets at once."""

    def __init__(self, qos, version=4):
        body = b'{"n":1%b,"device":"dev-%b","ts":%b,"v":2%b.%b,"pad":"%b"}'
        marks = [b"N" * DIGITS, b"D" * 3, b"T" * 13, b"A", b"BC"]
        body %= (*marks, b"x" * (BODY_LEN - len(body % (*marks, b""))))
        topic = b"live/EEE"
        rest = struct.pack(">H", len(topic)) + topic + (b"PP" if qos else b"") + b"\0" * (version == 5) + body
        self.frame = bytes([0x32 if qos else 0x30]) + varint(len(rest)) + rest
        at = self.frame.index
        self.number, self.time = at(b"N" * DIGITS) + DIGITS - 1, at(b"T" * 13)
        # The device is the number's last three digits, the topic says so too, and the value is made of the same.
        self.copies = [(at(b"DDD") + 2 - digit, digit) for digit in range(3)]
        self.copies += [(at(b"EEE") + 2 - digit, digit) for digit in range(3)]
        self.copies += [(at(b"A", self.time), 0), (at(b"BC"), 2), (at(b"BC") + 1, 1)]
        self.id = at(b"PP") if qos else None
        self.fast = [
            bytes(48 + number // 10 ** digit % 10 for number in range(10 ** (digit + 1))) for digit in range(FAST_DIGITS)
        ]
        self.fast = [(digits * (2 * BLOCK_MAX // len(digits)), len(digits)) for digits in self.fast]
        ids = [number % IDS + 1 for number in range(IDS + BLOCK_MAX)]
        self.ids = bytes(number >> 8 for number in ids), bytes(number & 255 for number in ids)

    def digits(self, first, count, digit):
        if digit < FAST_DIGITS:
            digits, period = self.fast[digit]
            return digits[first % period : first % period + count]
        run = 10 ** digit
        left = min(count, run - first % run)
        high = first // run
        return bytes([48 + high % 10]) * left + bytes([48 + (high + 1) % 10]) * (count - left)

    def block(self, first, count, millis):
        """So many packets from a number on, all with this time."""
        out, stride = bytearray(self.frame * count), len(self.frame)
        for digit in range(DIGITS):
            out[self.number - digit :: stride] = self.digits(first, count, digit)
        for at, digit in self.copies:
            out[at::stride] = self.digits(first, count, digit)
        for index, digit in enumerate(b"%d" % millis):
            out[self.time + index :: stride] = bytes([digit]) * count
        if self.id:
            start = first % IDS
            for at, ids in zip((self.id, self.id + 1), self.ids):
                out[at::stride] = ids[start : start + count]
        return out


class Publisher:
    """Publishes at a rate by the clock, whatever becomes of the messages (open loop), in a process of its own. Each message
    has in it when it should have been sent; one that is sent late does not look younger for that."""

    def __init__(self, port, qos, rate, seconds, start):
        assert rate // 1_000 * BLOCKS_MAX <= BLOCK_MAX, "a block is too large"
        self.results, results = multiprocessing.Pipe(duplex=False)
        self.process = multiprocessing.get_context("fork").Process(
            target=Publisher.run, args=(port, qos, rate, seconds, start, results), daemon=True
        )
        self.process.start()
        results.close()

    @staticmethod
    def run(port, qos, rate, seconds, start, results):
        frames, sock = Frames(qos), connect(port, b"publisher", 4)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        blocks, due, sent, acked = int(seconds * 1_000), 0, 0, 0
        late, begin, cpu = array("d"), int(start * 1_000), time.process_time()
        while due < blocks:
            wait = (begin + due) / 1_000 - time.time()
            if wait > 0:
                time.sleep(wait)
            now = time.time()
            behind = min(int((now - begin / 1_000) * 1_000) + 1, blocks) - due
            out = bytearray()
            for block in range(due, due + min(behind, BLOCKS_MAX)):
                count = (block + 1) * rate // 1_000 - block * rate // 1_000
                out += frames.block(sent, count, begin + block)
                sent += count
            if qos:
                while sent - acked > IDS - BLOCK_MAX:
                    acked += len(sock.recv(1 << 18)) / 4
            sock.sendall(out)
            late.append(time.time() - (begin + due) / 1_000)
            due += max(0, min(behind, BLOCKS_MAX))
            if qos:
                acked += received(sock)
        sock.settimeout(10)
        while qos and acked < sent:
            acked += len(sock.recv(1 << 18)) / 4
        cpu = time.process_time() - cpu
        late = sorted(late)
        results.send({"sent": sent, "late_p99_ms": late[len(late) * 99 // 100] * 1e3, "late_ms": late[-1] * 1e3, "cpu": cpu})
        sock.sendall(b"\xe0\0")

    def over(self):
        """What it did, once it is done."""
        done = self.results.recv()
        self.process.join()
        return done


class BatchingBroker:
    """Not a broker: it takes one connection (MQTT 5) and sends it messages in blocks of 1,000, as fast as they are taken, in a
    process of its own. What a client costs where reads and wake-ups are not what it costs."""

    BLOCK = 1_000

    def __init__(self, qos, seconds):
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.begin = multiprocessing.Event()
        self.results, results = multiprocessing.Pipe(duplex=False)
        self.process = multiprocessing.get_context("fork").Process(
            target=self.run, args=(listener, qos, seconds, results), daemon=True
        )
        self.process.start()
        listener.close()
        results.close()

    def run(self, listener, qos, seconds, results):
        frames = Frames(qos, version=5)
        # Packet ids come round after these; the time stands still, so that no message is late.
        millis = int(time.time() * 1_000)
        blocks = [frames.block(first, self.BLOCK, millis) for first in range(0, IDS, self.BLOCK)]
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert sock.recv(1 << 16)[0] == 0x10, "CONNECT"
        sock.sendall(b"\x20\3\0\0\0")
        subscribe = sock.recv(1 << 16)
        assert subscribe[0] == 0x82, "SUBSCRIBE"
        sock.sendall(b"\x90\4" + subscribe[2:4] + b"\0" + bytes([qos]))
        self.begin.wait()
        sent, acked, end = 0, 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            while qos and sent - acked > IDS - 2 * self.BLOCK:
                acked += len(sock.recv(1 << 18)) / 4
            sock.sendall(blocks[sent // self.BLOCK % len(blocks)])
            sent += self.BLOCK
            if qos:
                acked += received(sock)
        results.send(sent)
        # Pings and acknowledgements, until the other end has enough.
        while sock.recv(1 << 18):
            pass

    def over(self):
        """How many messages it has sent, once it is done."""
        return self.results.recv()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.join()


def received(sock):
    """Acknowledgements that are there, of four bytes each."""
    try:
        return len(sock.recv(1 << 18, socket.MSG_DONTWAIT)) / 4
    except BlockingIOError:
        return 0


class Listener(threading.Thread):
    """Listens to the results of two `metrics` sinks, and notes how long after its end each window could be read. A window
    is due when the first message behind it should have been sent; with messages in every millisecond, that is its end."""

    def __init__(self, port, sinks):
        super().__init__(daemon=True)
        self.lines, self.seconds = {}, {sink: {} for sink in sinks}
        for sink in sinks:
            sock = socket.create_connection(("127.0.0.1", port))
            sock.sendall(b"GET /api/v1/stream/%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % sink.encode())
            self.lines[sock] = [sink, b""]
        self.start()

    def run(self):
        while self.lines:
            for sock in select.select(list(self.lines), [], [], 1)[0]:
                try:
                    data, now = sock.recv(1 << 20), time.time()
                except OSError:
                    data = b""
                if not data:
                    del self.lines[sock]
                    continue
                sink, rest = self.lines[sock]
                *lines, self.lines[sock][1] = (rest + data).split(b"\n")
                for line in lines:
                    if line.startswith(b"data: ["):
                        self.seen(sink, line[6:], now)

    def seen(self, sink, line, now):
        """All rows of a window come together; of several in one batch, each is there now."""
        for end in {row["window_end"] for row in json.loads(line)}:
            at = datetime.fromisoformat(end).replace(tzinfo=timezone.utc).timestamp()
            self.seconds[sink].setdefault(at, now - at)

    def since(self, sink, begin, end):
        """Latencies of the windows that ended in a time, sorted."""
        return sorted(took for at, took in list(self.seconds[sink].items()) if begin <= at < end)


def quantiles(values, shares=(0.5, 0.99, 0.999), beyond=5):
    """Quantiles in ms; `None` where fewer than some samples lie beyond one: it would be the maximum, or nearly."""
    carried = lambda share: len(values) * (1 - share) >= beyond
    return [values[int(len(values) * share)] * 1e3 if carried(share) else None for share in shares]


def cpu(pid):
    """Seconds of processor time used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def network_cpu(pid):
    """Seconds of processor time of the threads that have to do with the network: the client, and what moves its payloads on."""
    seconds = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        name, _, fields = (task / "stat").read_text().partition("(")[2].rpartition(")")
        if name.startswith("tokio"):
            seconds += sum(map(int, fields.split()[11:13])) / os.sysconf("SC_CLK_TCK")
    return seconds


def resident(pid):
    """Resident MiB now."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
