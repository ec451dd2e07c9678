# SPDX-License-Identifier: Apache-2.0
"""Clients of memcached's see one big memcached: memccapable and pymemcache are content, every node and HTTP show the same pairs, of two who
compare and swap one does, counters are exact, and while workers die and a node joins no acknowledged write is lost."""

import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import venv
from concurrent.futures import ThreadPoolExecutor

from harness import client as http
from harness.cluster import REPOSITORY
from harness.expectations import eventually, expect, expect_equal
from harness.placement import keys_owned_by

LIMIT_SECONDS = 240
FULL_LIMIT_SECONDS = 900

PYMEMCACHE = "pymemcache==4.0.0"
PORT = 11211

#: Those of memccapable's that a store which forgets nothing can't pass (docs/memcached-protocol.md).
FLUSHES = {"ascii flush", "ascii flush noreply"}
CAPABILITIES = FLUSHES | {
    "ascii version", "ascii quit", "ascii verbosity", "ascii get", "ascii gets", "ascii mget", "ascii stat",
    *(f"ascii {verb}{quiet}" for verb in ("set", "add", "replace", "cas", "delete", "incr", "decr", "append", "prepend")
      for quiet in ("", " noreply"))}


def run(context):
    memcache = installed()
    with context.cluster(nodes=4, replicas=3, positions={2000: 1, 5000: 2, 8000: 3}, settings={"memcachedPort": PORT}) as cluster:
        capabilities(cluster)
        both_protocols(cluster, memcache)
        expiry(cluster, memcache)
        what_is_refused(cluster)
        garbage(context, cluster)
        many_at_once(context, cluster, memcache)
        one_swaps(context, cluster, memcache)
        increments_are_exact(context, cluster, memcache)
        counted(cluster, memcache)
        without_the_first_owner(cluster, memcache)
        nothing_is_lost(context, cluster, memcache)
    without_the_setting(context)


def installed():
    """pymemcache: in an environment of the repository's own, made the first time."""
    directory = REPOSITORY / ".local" / "tools" / "pymemcache"
    if not list(directory.glob("lib/*/site-packages/pymemcache/__init__.py")):
        venv.create(directory, with_pip=True, clear=True)
        subprocess.run([directory / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", PYMEMCACHE],
                       check=True, stdout=sys.stderr, timeout=180)
    sys.path.append(str(next(directory.glob("lib/*/site-packages"))))
    # (Typed code of a package that is not there while this file is checked.)
    return importlib.import_module("pymemcache")


def host_of(node):
    return node.address.split(":")[0]


def connect(memcache, node, **options):
    return memcache.Client((host_of(node), PORT), timeout=5, connect_timeout=5, no_delay=True, default_noreply=False, **options)


def talk(node, data, timeout=5.0):
    """All that is answered to these bytes, up to the connection's end."""
    with socket.create_connection((host_of(node), PORT), timeout) as connection:
        connection.settimeout(timeout)
        answer = b""
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(1 << 16):
                answer += part
        except (ConnectionResetError, BrokenPipeError):
            pass
        return answer


# What is answered


def capabilities(cluster):
    for number, name in enumerate(sorted(CAPABILITIES)):
        node = cluster.nodes[number % len(cluster.nodes)]
        result = subprocess.run(["memccapable", "-a", "-h", host_of(node), "-p", str(PORT), "-t", "5", "-T", name],
                                capture_output=True, text=True, timeout=30, check=False)
        expect(f"{name} " in result.stdout, f"memccapable does not know '{name}': {result.stdout}")
        expect_equal(result.returncode == 0, name not in FLUSHES, f"memccapable, {name}: {result.stdout} {result.stderr}; it passed")


def both_protocols(cluster, memcache):
    clients = [connect(memcache, node) for node in cluster.nodes]
    value = bytes(range(256)) * 4
    for number, client in enumerate(clients):
        key = f"both{number}"
        expect(client.set(key, value, flags=2 ** 32 - 1 - number), f"storing {key}")
        for other, node in zip(clients, cluster.nodes):
            expect_equal(other.raw_command(f"mg {key} f"), f"HD f{2 ** 32 - 1 - number}".encode(), "the flags at another node")
            expect_equal(other.get(key), value, f"{key} at another node")
            expect_equal(node.get(f"/keys/{key}").body, value, f"{key} over HTTP")
    put = http.ask(cluster.node(2).address, http.request_bytes("PUT", "/keys/page", b"<p>", [("Content-Type", "text/html")]))
    expect_equal(put.status, 204, "PUT")
    for client in clients:
        expect_equal(client.get("page"), b"<p>", "what HTTP stored")
        expect_equal(client.raw_command("mg page f"), b"HD f0", "its flags")
    expect(clients[3].append("page", b"hi"), "appending to what HTTP stored")
    answer = cluster.node(1).get("/keys/page")
    expect_equal((answer.body, answer.header("Content-Type")), (b"<p>hi", "text/html"), "what was appended to")
    # A counter of both; the flags of one stay when the other counts.
    expect(clients[0].set("count", b"41", flags=7), "storing a number")
    counted_over_http = http.ask(cluster.node(3).address, http.request_bytes("POST", "/keys/count:increment?by=1", b""))
    expect_equal(counted_over_http.body, b"42", "counting over HTTP")
    expect_equal(clients[2].incr("count", 8), 50, "counting on")
    expect_equal(talk(cluster.node(2), b"mg count f v\r\n"), b"VA 2 f7\r\n50\r\n", "its flags")
    expect(clients[1].delete("page"), "deleting")
    expect_equal(cluster.node(2).get("/keys/page").status, 404, "what was deleted, over HTTP")
    expect_equal(http.ask(cluster.node(1).address, http.request_bytes("DELETE", "/keys/both0")).status, 204, "DELETE")
    expect(clients[3].get("both0") is None and not clients[2].delete("both0"), "what HTTP deleted is there")
    expect(clients[0].add("both0", b"new"), "adding what was deleted")
    expect(not clients[1].add("both0", b"newer"), "adding what is there")
    for client in clients:
        client.close()


def expiry(cluster, memcache):
    one, two = connect(memcache, cluster.node(1)), connect(memcache, cluster.node(2))
    expect(one.set("brief", b"x", expire=2, flags=3), "storing for two seconds")
    expect(one.set("dated", b"x", expire=int(time.time()) + 1000), "storing up to a date")
    expect(one.set("never", b"x", expire=-1), "storing what is gone at once")
    expect(two.get("brief") == b"x" and two.get("never") is None, "before the time")
    left = int(two.raw_command("mg dated t").split(b"t")[-1])
    expect(990 <= left <= 1000, f"{left} s are left")
    expect(two.touch("dated", 50) and int(one.raw_command("mg dated t").split(b"t")[-1]) in (49, 50), "touching")
    expect(talk(cluster.node(3), b"gat 0 dated\r\n") == b"VALUE dated 0 1\r\nx\r\nEND\r\n" and two.raw_command("mg dated t") == b"HD t-1", "getting and touching")
    eventually(5, "the time is over", lambda: two.get("brief") is None and one.get("brief") is None)
    expect(not two.touch("brief", 10), "touching what is gone")
    one.close()
    two.close()


def what_is_refused(cluster):
    node = cluster.node(1)
    for line in ("flush_all", "flush_all 5", "slabs reassign 1 2", "lru tune 1", "lru_crawler metadump all", "cache_memlimit 64", "shutdown",
                 "me both1", "watch", "verbosity"):
        answer = talk(node, f"{line}\r\nget both1\r\n".encode())
        expect(answer.split(b" ")[0].split(b"\r\n")[0] in (b"SERVER_ERROR", b"ERROR") and b"VALUE both1" in answer, f"{line}: {answer[:200]}")
    too_large = talk(node, b"set big 0 0 2000000\r\n" + bytes(2000000) + b"\r\nversion\r\n")
    expect(too_large.startswith(b"SERVER_ERROR object too large for cache\r\nVERSION "), f"too large: {too_large[:200]}")
    largest = talk(node, b"set big 0 0 1000000\r\n" + bytes(1000000) + b"\r\nget big\r\n")
    expect(largest.startswith(b"STORED\r\nVALUE big 0 1000000\r\n") and len(largest) > 1000000, f"a large one: {largest[:100]}")
    for hangs_up in (b"GET /clear_cache HTTP/1.1\r\nHost: a\r\n\r\nflush_all\r\n", b"\x80\x00\x00\x00" + bytes(20)):
        expect_equal(talk(node, hangs_up), b"", "another protocol")
    printed = subprocess.run(["bash", "-c", f"exec 3<>/dev/tcp/{host_of(node)}/{PORT}; printf 'set a 0 0 1\\r\\nx\\r\\nget a\\r\\nquit\\r\\n' >&3; cat <&3"],
                             capture_output=True, timeout=10, check=True).stdout
    expect_equal(printed, b"STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n", "from a shell")


def garbage(context, cluster):
    before = {node.name: node.workers() for node in cluster.nodes}
    words = [b"set", b"get", b"ms", b"mg", b"ma", b" a", b" 0", b" -1", b" 99999999999", b"\r\n", b"\n", b" noreply", b"\x00", b"incr", b" \xff"]
    for _ in range(context.short_or_full(200, 2000)):
        node = context.random.choice(cluster.nodes)
        data = b"".join(context.random.choice(words) if context.random.random() < 0.8 else context.random.randbytes(5)
                        for _ in range(context.random.randint(1, 200)))
        talk(node, data, timeout=10)
    for node in cluster.nodes:
        expect_equal(node.workers(), before[node.name], f"the workers of {node.name} after garbage")
        expect(talk(node, b"version\r\n").startswith(b"VERSION "), f"{node.name} after garbage")


def many_at_once(context, cluster, memcache):
    pairs = {f"many{number}": str(number).encode() * (number % 50 + 1) for number in range(5000)}
    client = connect(memcache, cluster.node(1))
    began = time.monotonic()
    expect_equal(client.set_many(pairs, noreply=False), [], "pairs that were not stored")
    stored = time.monotonic()
    other = connect(memcache, cluster.node(2))
    expect_equal(other.get_many(pairs), pairs, "all of them in one get")
    read = time.monotonic()
    expect(client.set_many({key: b"2" for key in pairs}, noreply=True) == [] and client.version(), "storing without answers")
    expect_equal(set(other.get_many(pairs).values()), {b"2"}, "what was stored without answers")
    context.note(f"5000 pairs stored in {stored - began:.2f} s, read in {read - stored:.2f} s")
    client.close()
    other.close()


# Who writes at the same time


def one_swaps(context, cluster, memcache):
    clients = [connect(memcache, cluster.node(1)), connect(memcache, cluster.node(2))]
    rounds = context.short_or_full(40, 400)
    value = b"start"
    clients[0].set("race", value)
    with ThreadPoolExecutor(2) as pool:
        for number in range(rounds):
            uniques = [client.gets("race") for client in clients]
            expect_equal([found for found, _ in uniques], [value, value], f"what both read in round {number}")
            expect_equal(uniques[0][1], uniques[1][1], "the cas unique, whichever node tells it")
            barrier = threading.Barrier(2)

            def swap(index):
                barrier.wait(5)
                return clients[index].cas("race", f"{number} by {index}".encode(), uniques[index][1])
            results = list(pool.map(swap, range(2)))
            expect_equal(sorted(results), [False, True], f"who swapped in round {number}")
            value = f"{number} by {results.index(True)}".encode()
            expect_equal(clients[0].get("race"), value, f"what is left of round {number}")
    for client in clients:
        client.close()


def increments_are_exact(context, cluster, memcache):
    each = context.short_or_full(60, 500)
    connect(memcache, cluster.node(1)).set("visits", b"0")

    def count(node):
        client, again = connect(memcache, node), 0
        for _ in range(each):
            while True:
                try:
                    client.incr("visits", 1)
                    break
                except memcache.MemcacheServerError as error:
                    # Others kept being quicker: it had no effect.
                    expect(b"kept overwriting" in str(error).encode(), f"incr: {error}")
                    again += 1
        client.close()
        return again
    with ThreadPoolExecutor(4) as pool:
        again = sum(pool.map(count, cluster.nodes))
    for node in cluster.nodes:
        expect_equal(connect(memcache, node).get("visits"), str(each * len(cluster.nodes)).encode(), "all increments")
    context.note(f"{each * len(cluster.nodes)} increments, {again} sent again")


def without_the_first_owner(cluster, memcache):
    """What needs its word is refused, without effect; the rest goes on."""
    away = cluster.node(3)
    key = keys_owned_by(cluster.first_ring, away.address, 1, "far")[0]
    client = connect(memcache, cluster.node(1))
    client.set(key, b"1")
    away.end_daemon()
    for line in (f"add {key} 0 0 1\r\nx", f"replace {key} 0 0 1\r\nx", f"append {key} 0 0 1\r\nx", f"incr {key} 1", f"touch {key} 9",
                 f"gat 9 {key}", f"ms {key} 1 ME q\r\nx"):
        answer = talk(cluster.node(1), f"{line}\r\n".encode())
        expect(answer.startswith(b"SERVER_ERROR ") and b"unknown" not in answer and answer.count(b"\n") == 1, f"{line}: {answer}")
    expect_equal(client.get(key), b"1", "after what was refused")
    expect(client.set(key, b"2", flags=5) and client.get(key) == b"2", "storing goes on")
    expect(client.delete(key) and client.get(key) is None and not client.delete(key), "deleting goes on")
    expect(client.set(key, b"3", flags=6), "storing what was deleted")
    away.start_daemon()
    away.wait_until_ready()
    eventually(10, "the first owner decides again", lambda: talk(cluster.node(2), f"incr {key} 1\r\n".encode()) == b"4\r\n")
    expect_equal(talk(away, f"get {key}\r\n".encode()), f"VALUE {key} 6 1\r\n4\r\nEND\r\n".encode(), "what it has")
    client.close()


def counted(cluster, memcache):
    node = cluster.node(1)

    def figures():
        text = node.get("/metrics").body.decode()
        found = re.findall(r'^kvserver_command_duration_seconds_count\{command="(\w+)",outcome="([\w-]+)"\} (\S+)$', text, re.M)
        return {(command, outcome): float(value) for command, outcome, value in found}, text
    before, _ = figures()
    client = connect(memcache, node)
    for _ in range(10):
        client.get("visits")
        client.get("nobody")
        client.set("counted", b"1")
        client.add("counted", b"1")
    client.set("counted", b"1", noreply=True)
    client.version()
    after, text = figures()
    grown = {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)}
    expect_equal(grown, {("get", "hit"): 10, ("get", "miss"): 10, ("set", "done"): 11, ("add", "unmet"): 10, ("version", "done"): 1},
                 "commands counted")
    described = (REPOSITORY / "docs/metrics.md").read_text()
    shown = set(re.findall(r"^# TYPE (kvserver_command_\w+) ", text, re.M))
    expect(len(shown) == 4 and all(f"| `{name}` |" in described for name in shown), f"docs/metrics.md and {shown}")
    client.close()


# While parts come and go


class Writer:
    """One client with keys of its own, whose values only grow: what it reads is never older than what was acknowledged."""

    def __init__(self, memcache, cluster, number):
        self._memcache, self._cluster, self._number = memcache, cluster, number
        self.keys = [f"writer{number}.{key}" for key in range(20)]
        self.acknowledged = {key: 0 for key in self.keys}
        self.attempted = {key: 0 for key in self.keys}
        self.operations = self.errors = 0
        self.problem = None

    def run(self, stop):
        try:
            nodes = self._cluster.nodes[:3]
            turn = self._number
            client = connect(self._memcache, nodes[turn % 3])
            while not stop.is_set():
                key = self.keys[self.operations % len(self.keys)]
                try:
                    self.step(client, key)
                except (OSError, self._memcache.MemcacheError):
                    self.errors += 1
                    client.close()
                    turn += 1
                    client = connect(self._memcache, nodes[turn % 3])
                    time.sleep(0.01)
                self.operations += 1
            client.close()
        except Exception as error:  # pylint: disable=broad-exception-caught
            self.problem = error

    def step(self, client, key):
        self.attempted[key] += 1
        value = self.attempted[key]
        expect(client.set(key, str(value).encode()), f"storing {key}")
        self.acknowledged[key] = value
        self.check(key, client.get(key))

    def check(self, key, found):
        number = int(found or b"0")
        expect(self.acknowledged[key] <= number <= self.attempted[key],
               f"{key} is {number}; {self.acknowledged[key]} was acknowledged, {self.attempted[key]} sent")


def nothing_is_lost(context, cluster, memcache):
    writers = [Writer(memcache, cluster, number) for number in range(6)]
    stop = threading.Event()
    threads = [threading.Thread(target=writer.run, args=(stop,)) for writer in writers]
    for thread in threads:
        thread.start()

    def go_on(count):
        goal = sum(writer.operations for writer in writers) + count
        eventually(60, f"{count} more operations are done", lambda: any(writer.problem for writer in writers)
                   or sum(writer.operations for writer in writers) >= goal)
    try:
        go_on(300)
        for _ in range(context.short_or_full(4, 20)):
            node = context.random.choice(cluster.nodes[:3])
            victim = node.kill_worker(context.random)
            node.wait_until_replaced([victim], 5)
            go_on(200)
        answer = cluster.node(1).get(f"/add_node/auto/{cluster.node(4).address}?positions=8", timeout=60)
        expect_equal((answer.status, answer.body), (200, b"OK"), "adding a node")
        go_on(300)
        old = cluster.node(2).workers()
        os.kill(cluster.node(2).supervisor.pid, signal.SIGHUP)
        cluster.node(2).wait_until_replaced(old, 20)
        go_on(300)
        answer = cluster.node(1).get(f"/remove_node/{cluster.node(3).address}", timeout=60)
        expect_equal((answer.status, answer.body), (200, b"OK"), "removing a node")
        go_on(300)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for writer in writers:
        expect(writer.problem is None, f"a writer: {writer.problem}")
    cluster.accept_present_workers()
    for node in cluster.nodes:
        client = connect(memcache, node)
        for writer in writers:
            found = client.get_many(writer.keys)
            for key in writer.keys:
                writer.check(key, found.get(key))
        expect_equal(client.get("visits"), json.dumps(len(cluster.nodes) * context.short_or_full(60, 500)).encode(), "the counter, in the end")
        client.close()
    context.note(f"{sum(writer.operations for writer in writers)} writes and reads of pymemcache, {sum(writer.errors for writer in writers)} errors, nothing lost")


def without_the_setting(context):
    """Nobody listens; and a port that is HTTP's is refused."""
    with context.cluster(nodes=1, positions={3000: 1}, proxy=False) as cluster:
        node = cluster.node(1)
        try:
            talk(node, b"version\r\n")
            expect(False, "memcached's protocol is served without having been asked for")
        except ConnectionRefusedError:
            pass
        node.change_settings(memcachedPort=5000)
        checked = subprocess.run([node.supervisor.arguments[0], "--config", str(node.directory / "kvserver.json"), "--check"],
                                 capture_output=True, text=True, timeout=10, check=False)
        expect(checked.returncode == 78 and "memcachedPort is the port of HTTP" in checked.stderr, f"--check: {checked}")
