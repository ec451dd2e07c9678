# SPDX-License-Identifier: Apache-2.0
"""2,000 clients who send a byte now and then, and 10,000 who send nothing, do not slow a good client down: its p99 stays within twice what
it is without them, and each of them is shown the door in time."""

import multiprocessing
import resource
import select
import shutil
import socket
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from harness.client import Connection, read_request, socket_address
from harness.expectations import eventually, expect, expect_equal
from harness.processes import die_with_parent

LIMIT_SECONDS = 120

SLOW, IDLE = 2000, 10_000
#: What a good client's p99 may be at most, as a multiple; and below which nobody can tell differences on a machine that does other things.
WITHIN, FLOOR_MILLISECONDS = 2.0, 4.0
#: Descriptors of this process and of a worker, beside the clients'.
SPARE_DESCRIPTORS = 3000
#: A head has 5 s, and a connection without any request 10 s; the front looks at its deadlines four times a second.
SLOW_END_SECONDS, IDLE_END_SECONDS = 7, 13
#: Who take nothing; what a worker may become larger by them (it may hold 256 MiB, and what was being read when it had them); and how soon they
#: are sent away, for others are refused meanwhile.
SLOW_READERS, WORKER_MEGABYTES, READERS_END_SECONDS = 600, 600, 7


def run(context):
    rounds, seconds = context.short_or_full((3, 1.0), (10, 5.0))
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    idle = min(IDLE, room - SPARE_DESCRIPTORS)
    with context.cluster(nodes=1, positions={5000: 1}, replicas=1, proxy=False) as cluster:
        node = cluster.node(1)
        expect_equal(node.store("good", "answer").status, 200, "storing")
        for worker in node.workers():
            resource.prlimit(worker, resource.RLIMIT_NOFILE, (room, room))
        found = {"alone": [], "slow heads": [], "slow bodies": [], "idle": []}
        crowds = {"slow heads": (SLOW, b"GET /route?key=good HTTP/1.1\r\nX: "), "idle": (idle, b""),
                  "slow bodies": (SLOW, b"POST /route HTTP/1.1\r\nHost: kv\r\nContent-Length: 9000\r\n\r\nkey=")}
        for _ in range(rounds):
            # (In turn: what else the machine does slows all of them down.)
            found["alone"].append(p99_milliseconds(node.address, seconds))
            for kind, (count, beginning) in crowds.items():
                with Crowd(node.address, count, beginning) as crowd:
                    found[kind].append(p99_milliseconds(node.address, seconds))
                    expect(crowd.connected.value > 0.9 * count, f"{kind}: only {crowd.connected.value} of {count} were connected")
        alone = statistics.median(found.pop("alone"))
        context.note(f"p99 alone {alone:.2f} ms")
        for kind, values in found.items():
            there = statistics.median(values)
            context.note(f"with {crowds[kind][0]} {kind}: {there:.2f} ms")
            expect(there <= WITHIN * max(alone, FLOOR_MILLISECONDS), f"p99 with {kind}: {there:.2f} ms, alone {alone:.2f} ms")
        each_is_shown_the_door(node)
        slow_readers(node, context)
        if context.full and shutil.which("slowhttptest"):
            slowhttptest(node, context)


def p99_milliseconds(address, seconds):
    """Of one client's reads, most of them on a connection that is kept, some on new ones."""
    times = []
    kept = Connection(address)
    end = time.monotonic() + seconds
    try:
        while (began := time.monotonic()) < end:
            if len(times) % 10 == 9:
                with Connection(address) as fresh:
                    answer = fresh.exchange(read_request("good"))
            else:
                answer = kept.exchange(read_request("good"))
            times.append(time.monotonic() - began)
            expect_equal((answer.status, answer.text), (200, "answer"), "a good client's read")
            time.sleep(0.001)
    finally:
        kept.close()
    return 1000 * statistics.quantiles(times, n=100)[98]


class Crowd:
    """Many clients in a process of their own: they send the beginning of a request, then a byte each two seconds; and come back when they
    were sent away."""

    INTERVAL_SECONDS = 2.0

    def __init__(self, address, count, beginning):
        self._count = count
        self._stop = multiprocessing.get_context("fork").Event()
        self.connected = multiprocessing.get_context("fork").Value("i", 0)
        self._process = multiprocessing.get_context("fork").Process(target=self._run, args=(socket_address(address), count, beginning))

    def __enter__(self):
        self._process.start()
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and self._process.is_alive() and self.connected.value < self._count:
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _run(self, address, count, beginning):
        die_with_parent()
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        news = select.epoll()
        clients, connected = {}, set()
        turn, next_turn = 0, time.monotonic()
        while not self._stop.is_set():
            for _ in range(min(count - len(clients), 200)):
                client = socket.socket()
                client.setblocking(False)
                client.connect_ex(address)
                clients[client.fileno()] = client
                news.register(client.fileno(), select.EPOLLOUT | select.EPOLLRDHUP)
            for descriptor, what in news.poll(0.01, 2000):
                if what == select.EPOLLOUT:
                    connected.add(descriptor)
                    news.modify(descriptor, select.EPOLLIN | select.EPOLLRDHUP)
                    self._send(clients[descriptor], beginning)
                else:
                    connected.discard(descriptor)
                    clients.pop(descriptor).close()
            self.connected.value = max(self.connected.value, len(connected))
            if beginning and time.monotonic() > next_turn:
                # A part of them each time, so that all have sent a byte after the interval.
                turn, next_turn = turn + 1, time.monotonic() + self.INTERVAL_SECONDS / 20
                for number, descriptor in enumerate(list(connected)):
                    if number % 20 == turn % 20:
                        self._send(clients[descriptor], b"x")
            if len(connected) == count:
                time.sleep(0.02)
        for client in clients.values():
            client.close()

    @staticmethod
    def _send(client, data):
        try:
            if data:
                client.send(data)
        except OSError:
            pass  # (Its end is heard of by and by.)


def each_is_shown_the_door(node):
    """However slowly bytes come, a request's time is over after as long."""
    beginnings = (b"GET / HTTP/1.1\r\nX: ", b"POST /route HTTP/1.1\r\nHost: kv\r\nContent-Length: 900\r\n\r\n",
                  b"POST /route HTTP/1.1\r\nHost: kv\r\nTransfer-Encoding: chunked\r\n\r\n384\r\n", b"")
    with ThreadPoolExecutor(len(beginnings)) as pool:
        for beginning, (seconds, said) in zip(beginnings, pool.map(lambda beginning: dawdle(node, beginning), beginnings)):
            limit = SLOW_END_SECONDS if beginning else IDLE_END_SECONDS
            expect(seconds < limit, f"{beginning!r} may go on for {seconds:.1f} s")
            expect(said.startswith(b"HTTP/1.1 408") if beginning else said == b"", f"{beginning!r} ends with {said!r}")


def dawdle(node, beginning):
    """How long a client may go on who sends a byte twice a second, or nothing; and what it is told at the end."""
    began = time.monotonic()
    with socket.create_connection(socket_address(node.address)) as client:
        client.sendall(beginning)
        client.settimeout(0.5)
        while time.monotonic() < began + IDLE_END_SECONDS + 3:
            try:
                return time.monotonic() - began, client.recv(1000)
            except TimeoutError:
                if beginning:
                    client.send(b"x")
    return time.monotonic() - began, b"(nothing)"


def slow_readers(node, context):
    """Clients who do not take the large values that they ask for cost no more memory than there may be, and not for long."""
    value = b"x" * 900_000
    expect_equal(node.store("large", value).status, 200, "storing a large value")
    before, workers = memory_megabytes(node), node.workers()
    clients, most = [], 0
    try:
        for _ in range(SLOW_READERS):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(socket_address(node.address))
            client.sendall(read_request("large") * 4)
            clients.append(client)
            if len(clients) % 50 == 0:
                most = max(most, memory_megabytes(node) - before)
        time.sleep(1)
        most = max(most, memory_megabytes(node) - before)
        context.note(f"{SLOW_READERS} slow readers of {SLOW_READERS * 4 * len(value) / 1e6:.0f} MB: {most:.0f} MB")
        expect(most < WORKER_MEGABYTES * len(workers), f"slow readers make {len(workers)} workers {most:.0f} MB larger")
        eventually(READERS_END_SECONDS, "a good client is served again", lambda: node.read("good").text == "answer")
    finally:
        for client in clients:
            client.close()


def memory_megabytes(node):
    pages = 0
    for worker in node.workers():
        with open(f"/proc/{worker}/statm", encoding="ascii") as file:
            pages += int(file.read().split()[1])
    return pages * resource.getpagesize() / 1e6


def slowhttptest(node, context):
    """Debian's tool: slow heads, slow bodies, slow reads."""
    for kind in ("-H", "-B", "-X"):
        quiet = p99_milliseconds(node.address, 5)
        tool = subprocess.Popen(["slowhttptest", kind, "-c", str(SLOW), "-r", "500", "-i", "2", "-l", "20", "-u", f"http://{node.address}/route?key=good"],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(6)
            there = p99_milliseconds(node.address, 8)
        finally:
            tool.terminate()
            tool.wait(10)
        context.note(f"slowhttptest {kind}: {there:.2f} ms, {quiet:.2f} ms without")
        expect(there <= WITHIN * max(quiet, FLOOR_MILLISECONDS), f"p99 with slowhttptest {kind}: {there:.2f} ms, {quiet:.2f} ms without")
