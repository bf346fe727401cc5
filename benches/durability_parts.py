"""What `durability.py` measures with: a broker, a fast publisher, a subscriber that only acknowledges, a tap on the line
between broker and streamgauge, and the process itself. The standard library, and mosquitto."""

import http.client
import json
import multiprocessing
import os
import re
import select
import socket
import struct
import subprocess
import threading
import time
from array import array
from collections import deque
from pathlib import Path

MOSQUITTO = "/usr/sbin/mosquitto"
TOPIC = b"bench"
# Publishes that the broker has not acknowledged to the publisher, at most, and how many are sent at once.
PUBLISHED_MAX = 60_000
CHUNK = 250
# How often a condition is looked at.
LOOK_EVERY = 0.005
# The first second of a run is not measured.
SETTLE = 1.0
JOURNALED = re.compile(r"streamgauge_\w*journal_records\w*[ {]")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def until(condition, seconds, what):
    """Waits for a condition, and gives its value."""
    end = time.perf_counter() + seconds
    while not (value := condition()):
        if time.perf_counter() > end:
            raise TimeoutError(f"not {what} within {seconds} s")
        time.sleep(LOOK_EVERY)
    return value


def quantile(values, share):
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


class Broker:
    """mosquitto on a free port of loopback. Its own limit is the window, too; 2.0.11 keeps to neither its own nor the client's
    once acknowledgements flow and a backlog waits: the tap tells what was in flight."""

    def __init__(self, folder, window):
        self.port = free_port()
        config = Path(folder) / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n"
            f"max_inflight_messages {window}\nmax_queued_messages 0\nsys_interval 0\nlog_type none\n"
        )
        self.process = subprocess.Popen([MOSQUITTO, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self.listens, 10, "the broker listening")

    def listens(self):
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
            return True
        except ConnectionRefusedError:
            return False

    def cpu(self):
        """Seconds of processor time used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def varint(number):
    out = bytearray()
    while True:
        number, low = divmod(number, 128)
        out.append(low | (128 if number else 0))
        if not number:
            return bytes(out)


def packet(head, body):
    return bytes([head]) + varint(len(body)) + body


def connect(port, name, version, properties=b""):
    """A session that ends with its connection: CONNECT, CONNACK."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    level = bytes([version, 2, 0, 0]) + (varint(len(properties)) + properties if version == 5 else b"")
    sock.sendall(packet(0x10, b"\0\4MQTT" + level + struct.pack(">H", len(name)) + name))
    answer = sock.recv(256)
    assert answer[0] == 0x20 and answer[3] == 0, f"refused: {answer!r}"
    return sock


class Publisher(threading.Thread):
    """Publishes bodies at QoS 1 over one MQTT 3.1.1 connection, until there are no more or it is stopped.

    `rate` bounds it by the clock, a millisecond's worth at a time. `taken` and `lead` bound it by the subscriber: it stays
    at most `lead` messages ahead of what that says it has taken."""

    def __init__(self, port, bodies, rate=None, taken=None, lead=None):
        super().__init__(daemon=True)
        self.sock = connect(port, b"publisher", 4)
        self.bodies, self.rate, self.taken, self.lead = iter(bodies), rate, taken, lead
        self.sent = self.acked = 0
        self.rest = 0
        self.stopping = False
        self.start()

    def run(self):
        begin = time.perf_counter()
        while not self.stopping:
            room = min(CHUNK, PUBLISHED_MAX - (self.sent - self.acked))
            if self.rate:
                room = min(room, int((time.perf_counter() - begin) * self.rate) - self.sent)
            if self.lead:
                room = min(room, self.lead - (self.sent - self.taken()))
            if room <= 0:
                self.read(0.001)
                continue
            if not self.send(room):
                break
            self.read(0)
        while self.acked < self.sent:
            self.read(1)

    def send(self, count):
        topic, first = struct.pack(">H", len(TOPIC)) + TOPIC, self.sent
        out = []
        for index in range(count):
            body = next(self.bodies, None)
            if body is None:
                break
            number = (first + index) % 65_535 + 1
            out.append(b"\x32%b%b%b%b" % (varint(len(topic) + 2 + len(body)), topic, number.to_bytes(2, "big"), body))
        # Read by others: only what is under way for certain.
        self.sock.sendall(b"".join(out))
        self.sent += len(out)
        return len(out) == count

    def read(self, seconds):
        if not select.select([self.sock], [], [], seconds)[0]:
            return
        data = self.sock.recv(1 << 18)
        assert data, "the broker hung up on the publisher"
        # PUBACKs, of four bytes each.
        acked, self.rest = divmod(self.rest + len(data), 4)
        self.acked += acked

    def stop(self):
        self.stopping = True
        self.join()


class Acknowledger(threading.Thread):
    """A subscriber that acknowledges what it gets and does nothing else: what the broker can do with a window. All messages
    have the same length, so that packet ids are taken and given back by slices."""

    def __init__(self, port, window, body_len):
        super().__init__(daemon=True)
        properties = b"\x21" + struct.pack(">H", window)
        self.sock = connect(port, b"acknowledger", 5, properties)
        self.sock.sendall(packet(0x82, b"\0\1\0" + struct.pack(">H", len(TOPIC)) + TOPIC + b"\1"))
        assert self.sock.recv(256)[0] == 0x90, "not subscribed"
        remaining = 2 + len(TOPIC) + 2 + 1 + body_len
        self.id_at = 1 + len(varint(remaining)) + 2 + len(TOPIC)
        self.stride = 1 + len(varint(remaining)) + remaining
        self.received = 0
        self.start()

    def run(self):
        rest = b""
        while True:
            try:
                data = self.sock.recv(1 << 18)
            except OSError:
                return
            if not data:
                return
            rest += data
            count = len(rest) // self.stride
            whole, rest = rest[: count * self.stride], rest[count * self.stride :]
            acks = bytearray(b"\x40\x02\0\0" * count)
            acks[2::4] = whole[self.id_at :: self.stride]
            acks[3::4] = whole[self.id_at + 1 :: self.stride]
            try:
                self.sock.sendall(acks)
            except OSError:
                return
            self.received += count

    def close(self):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.join()
        self.sock.close()


def packets(data):
    """The whole packets at the beginning of some bytes: first byte, begin and end of the body; then where the rest begins."""
    found, at, end = [], 0, len(data)
    while at + 2 <= end:
        length, shift, body = 0, 0, at + 1
        while body < end:
            byte = data[body]
            length |= (byte & 127) << shift
            shift, body = shift + 7, body + 1
            if byte < 128:
                break
        else:
            break
        if body + length > end:
            break
        found.append((data[at], body, body + length))
        at = body + length
    return found, at


class Tap:
    """Between broker and subscriber, in a process of its own: notes when each PUBLISH of QoS 1 came from the broker, and
    when the PUBACK of the same id came back."""

    def __init__(self, broker_port):
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.results, results = multiprocessing.Pipe(duplex=False)
        self.process = multiprocessing.get_context("fork").Process(
            target=Tap.run, args=(listener, broker_port, results), daemon=True
        )
        self.process.start()
        listener.close()
        results.close()

    @staticmethod
    def run(listener, broker_port, results):
        client, _ = listener.accept()
        broker = socket.create_connection(("127.0.0.1", broker_port))
        for sock in (client, broker):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        rest, other = {client: b"", broker: b""}, {client: broker, broker: client}
        waiting, seconds, from_when, most = {}, array("d"), None, 0
        while True:
            for sock in select.select([client, broker], [], [])[0]:
                try:
                    data, now = sock.recv(1 << 16), time.perf_counter()
                    if data:
                        other[sock].sendall(data)
                except OSError:
                    data = b""
                if not data:
                    results.send((sorted(seconds), most))
                    return
                data = rest[sock] + data
                found, at = packets(data)
                rest[sock] = data[at:]
                if sock is broker:
                    for head, begin, _ in found:
                        if head & 0xF0 == 0x30 and head & 0x06:
                            from_when = from_when or now
                            begin += 2 + int.from_bytes(data[begin : begin + 2], "big")
                            waiting[data[begin : begin + 2]] = now
                    most = max(most, len(waiting))
                else:
                    for head, begin, _ in found:
                        came = waiting.pop(data[begin : begin + 2], None) if head == 0x40 else None
                        if came and came > from_when + SETTLE:
                            seconds.append(now - came)

    def seen(self):
        """Once the connection is over: seconds, sorted, without those of the first; and how many waited at once, at most."""
        seen = self.results.recv()
        self.process.join()
        return seen


class Streamgauge:
    """`streamgauge run` on a pipeline file."""

    def __init__(self, binary, pipeline, folder):
        self.account = Path(folder) / "account.json"
        self.log = Path(folder) / "log"
        self.begun = time.perf_counter()
        with self.log.open("wb") as log:
            command = [binary, "run", pipeline, "--listen", "127.0.0.1:0", "--account", self.account]
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        self.http = http.client.HTTPConnection("127.0.0.1", until(self.port, 60, "listening"), timeout=30)

    def port(self):
        assert self.process.poll() is None, f"it ended: {self.log.read_text()}"
        found = self.log.read_text().partition("listening on http://127.0.0.1:")[2]
        return int(found.split()[0]) if "\n" in found else None

    def get(self, path):
        try:
            # A connection that waits for long is closed, so each question has its own.
            self.http.close()
            self.http.request("GET", path)
            answer = self.http.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            # It may be about to say why.
            time.sleep(SETTLE)
            raise RuntimeError(f"it does not answer ({self.process.poll()}): {self.log.read_text()}") from error

    def ready(self):
        return self.get("/readyz")[0] == 200

    def metrics(self):
        return Metrics(self.get("/metrics")[1])

    def since_start(self):
        return time.perf_counter() - self.begun

    def kill(self):
        self.process.kill()
        self.process.wait()

    def terminate(self):
        self.process.terminate()
        code = self.process.wait(timeout=120)
        assert code == 0, f"it ended with {code}: {self.log.read_text()}"
        return json.loads(self.account.read_text())


class Metrics:
    """Samples of one look."""

    def __init__(self, text):
        self.at = time.perf_counter()
        self.lines = [line for line in text.splitlines() if not line.startswith("#")]

    def value(self, name, label=""):
        for line in self.lines:
            if line.startswith(name) and line[len(name)] in " {" and label in line:
                return float(line.rpartition(" ")[2])
        return None

    def journaled(self):
        """Records in the journal: messages, and the few marks of time and epochs. None where this is not told."""
        for line in self.lines:
            if JOURNALED.match(line):
                return int(float(line.rpartition(" ")[2]))
        return None

    def durable(self):
        """Messages that are in the journal; or else that were received, of which a window may still be under way."""
        kept = self.journaled()
        return self.received() if kept is None else kept

    def received(self, component="feed"):
        return int(self.value("streamgauge_component_received_events_total", f'component="{component}"') or 0)


class Watch(threading.Thread):
    """Looks at a process again and again, and keeps the looks of a run."""

    def __init__(self, run, every=0.05):
        super().__init__(daemon=True)
        self.run_, self.every, self.over = run, every, threading.Event()
        self.looks = deque([run.metrics()])
        self.start()

    def run(self):
        while not self.over.wait(self.every):
            self.looks.append(self.run_.metrics())

    def received(self):
        return self.looks[-1].received()

    def stop(self):
        self.over.set()
        self.join()
