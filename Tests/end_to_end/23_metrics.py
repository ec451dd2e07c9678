# SPDX-License-Identifier: Apache-2.0
"""One scrape of a node shows the sum over its workers, to the request; no counter goes back when a worker dies, is replaced, or hangs,
and /metrics answers while memcached does not. promtool finds nothing to say, and docs/metrics.md knows every metric."""

import os
import re
import signal
import subprocess
import time

from harness.client import Connection
from harness.cluster import REPOSITORY
from harness.expectations import TestFailure, eventually, expect, expect_equal
from harness.placement import keys_owned_by
from harness.processes import kill

#: What one round asks of each worker.
READS, WRITES, MISSES, UNKNOWN_PATHS = 30, 20, 10, 3
REQUESTS = "kvserver_request_duration_seconds"
LINE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')


class Scrape:
    """The values of one answer, by name and labels."""

    def __init__(self, text):
        self.text = text
        self.help, self.type, self.values = {}, {}, {}
        for line in text.splitlines():
            if line.startswith("# HELP "):
                _, _, name, self.help[name] = line.split(" ", 3)
            elif line.startswith("# TYPE "):
                _, _, name, self.type[name] = line.split(" ", 3)
            else:
                match = LINE.match(line)
                expect(match, f"not a line of the format: {line!r}")
                key = match.group(1), frozenset(LABEL.findall(match.group(2) or ""))
                expect(key not in self.values, f"twice: {line!r}")
                self.values[key] = float(match.group(3))

    def value(self, name, **labels):
        return self.values.get((name, frozenset(labels.items())), 0.0)

    def requests(self, route, method, code, outcome="done"):
        return self.value(f"{REQUESTS}_count", route=route, method=method, code=str(code), outcome=outcome)

    def growing(self):
        """The values that never get less, but for memcached's, which end with it."""
        for (name, labels), value in self.values.items():
            metric = re.sub(r"_(bucket|sum|count)$", "", name)
            kind = self.type.get(name) or self.type.get(metric)
            if kind in ("counter", "histogram") and not name.startswith(("kvserver_memcached_", "kvserver_hints_")):
                yield (name, labels), value


def run(context):
    with context.cluster(nodes=2) as cluster:
        node = cluster.node(1)
        load = Load(cluster, context)
        first = scrape(node)
        one_round_is_counted_exactly(cluster, node, load)
        repeated = scrape(node)
        nothing_went_back(first, repeated)
        a_worker_dies(node, load)
        a_worker_hangs(node, load)
        workers_are_replaced(node, load)
        memcached_hangs(node, load)
        last = scrape(node)
        nothing_went_back(repeated, last)
        promtool_is_content(last)
        it_is_described(last)
        answer = cluster.proxy.get("/metrics")
        expect_equal((answer.status, answer.header("X-KV-Outcome")), (403, "not-applied"), "/metrics through the balancer")
        expect(answer.body.startswith(b"This is not served through the balancer"), f"it says why: {answer.body!r}")
        times = []
        for _ in range(20):
            began = time.monotonic()
            scrape(node)
            times.append(time.monotonic() - began)
    context.note(f"{len(last.values)} values, {len(last.text)} bytes, {sorted(times)[10] * 1000:.1f} ms a scrape")


class Load:
    """Requests of which it is known how many there are, half of them by each worker."""

    def __init__(self, cluster, context):
        self.node, self.peer = cluster.node(1), cluster.node(2)
        self.own = keys_owned_by(cluster.first_ring, self.node.address, WRITES, "own")
        self.others = keys_owned_by(cluster.first_ring, self.peer.address, WRITES, "other")

    def give(self):
        """One round for each worker, and what it adds."""
        workers = self.node.workers()
        expect_equal(len(workers), 2, "workers")
        for connection in connections_by_worker(self.node, workers).values():
            with connection:
                for keys in (self.own, self.others):
                    for key in keys:
                        expect_equal(connection.store(key, "v").status, 200, "a write")
                    for number in range(READS):
                        expect_equal(connection.read(keys[number % len(keys)]).status, 200, "a read")
                    for number in range(MISSES):
                        expect_equal(connection.read(f"{keys[0]} missing {number}").status, 404, "a read of nothing")
                for _ in range(UNKNOWN_PATHS):
                    expect_equal(connection.get("/nothing").status, 404, "an unknown path")

    def expect_counted(self, before, after, what):
        def grown(*words):
            return after.requests(*words) - before.requests(*words)
        expect_equal(
            [grown("/route", "POST", 200), grown("/route", "GET", 200), grown("/route", "GET", 404, "not-applied"),
             grown("none", "GET", 404, "not-applied")],
            [4 * WRITES, 4 * READS, 4 * MISSES, 2 * UNKNOWN_PATHS], f"requests counted {what}")


def one_round_is_counted_exactly(cluster, node, load):
    before = scrape(node)
    began = time.monotonic()
    load.give()
    took = time.monotonic() - began
    after = scrape(node)
    load.expect_counted(before, after, "of one round")

    def grown(name, **labels):
        return after.value(name, **labels) - before.value(name, **labels)
    sent = 2 * (WRITES + READS + MISSES)
    # (Of the keys that are missing some are this node's and some the other's.)
    to_peer = grown("kvserver_peer_operations_total", peer=load.peer.address)
    to_lanes = sum(grown("kvserver_lane_turn_operations_sum", lane=lane) for lane in ("read", "write"))
    expect_equal(to_peer + to_lanes, 2.0 * sent, "operations to memcached and to the other node")
    expect_equal(grown("kvserver_lane_turn_operations_sum", lane="write"), 2.0 * WRITES, "writes to memcached")
    expect_equal(grown("kvserver_peer_batch_operations_sum"), to_peer, "operations in batches")
    batches = grown("kvserver_peer_batches_total", peer=load.peer.address, result="answered")
    expect_equal(grown("kvserver_peer_batch_duration_seconds_count"), batches, "batches")
    spent = grown(f"{REQUESTS}_sum", route="/route", method="GET", code="200", outcome="done")
    expect(0 < spent < took, f"reads took {spent} s of {took} s")
    # A histogram's last bucket has all of them.
    labels = {"route": "/route", "method": "GET", "code": "200", "outcome": "done"}
    expect_equal(after.value(f"{REQUESTS}_bucket", le="+Inf", **labels), after.value(f"{REQUESTS}_count", **labels), "the last bucket")
    for name, wanted in (("workers", 2), ("workers_wanted", 2), ("ring_members", 2), ("ring_epoch", 1), ("memcached_up", 1),
                         ("recovering", 0), ("ring_positions", 1)):
        expect_equal(after.value(f"kvserver_{name}"), float(wanted), name)
    expect(after.value("kvserver_connections") >= 1, "no connection is open, but the one that asks")
    expect(after.value("kvserver_memcached_items") > 0, "memcached has no items")
    expect_equal(after.value("kvserver_memcached_limit_bytes"), float(node.memcached.megabytes << 20), "memcached's limit")
    eventually(5, "the heartbeat's figures are shown",
               lambda: scrape(node).value("kvserver_peer_up", peer=load.peer.address) == 1
               and ("kvserver_peer_clock_offset_seconds", frozenset({("peer", load.peer.address)})) in scrape(node).values)


def a_worker_dies(node, load):
    before = scrape(node)
    load.give()
    victim = node.workers()[0]
    kill(victim)
    node.wait_until_replaced([victim], 5)
    after = eventually(3, "the death is counted", lambda: restarted(node, before, "died", 1))
    load.expect_counted(before, after, "by a worker that died, and another one")
    nothing_went_back(before, after)
    # The newcomer counts on where the dead one stopped.
    load.give()
    load.expect_counted(after, scrape(node), "by its successor, and another one")


def a_worker_hangs(node, load):
    before = scrape(node)
    load.give()
    victim = node.workers()[0]
    kill(victim, signal.SIGSTOP)
    node.wait_until_replaced([victim], 10)
    after = eventually(3, "the silence is counted", lambda: restarted(node, before, "silent", 1))
    load.expect_counted(before, after, "by a worker that hung, and another one")
    expect_equal(after.value("kvserver_worker_restarts_total", reason="died"),
                 before.value("kvserver_worker_restarts_total", reason="died"), "workers that died by themselves")
    nothing_went_back(before, after)


def workers_are_replaced(node, load):
    before = scrape(node)
    load.give()
    old = node.workers()
    node.supervisor.signal(signal.SIGHUP)
    node.wait_until_replaced(old, 20)
    load.give()
    after = scrape(node)
    nothing_went_back(before, after)
    expect_equal(after.requests("/route", "POST", 200) - before.requests("/route", "POST", 200), 8.0 * WRITES, "writes over a reload")
    expect_equal(after.value("kvserver_worker_starts_total") - before.value("kvserver_worker_starts_total"), 2.0, "workers started")
    for reason in ("died", "silent", "never_ready"):
        labels = {"reason": reason}
        expect_equal(after.value("kvserver_worker_restarts_total", **labels), before.value("kvserver_worker_restarts_total", **labels),
                     f"workers that {reason}")


def memcached_hangs(node, load):
    before = scrape(node)
    load.give()
    node.memcached.pause()
    try:
        took, after = timed_scrape(node)
        # After some seconds all the chores of a worker wait for memcached, in a row. /metrics must not queue up behind them.
        time.sleep(3)
        took = max(took, *(timed_scrape(node)[0] for _ in range(6)))
    finally:
        node.memcached.resume()
    expect(took < 2, f"/metrics took {took:.1f} s without memcached")
    load.expect_counted(before, after, "while memcached hangs")
    expect_equal(after.value("kvserver_memcached_up"), 0.0, "memcached_up")
    expect_equal(after.value("kvserver_ring_members"), 2.0, "the ring is known all the same")
    nothing_went_back(before, after)
    eventually(5, "memcached is up again", lambda: scrape(node).value("kvserver_memcached_up") == 1)


# What the tests above are made of.

def scrape(node):
    answer = node.get("/metrics")
    expect_equal(answer.status, 200, "GET /metrics")
    expect_equal(answer.header("Content-Type"), "text/plain; version=0.0.4; charset=utf-8", "its type")
    return Scrape(answer.body.decode())


def timed_scrape(node):
    began = time.monotonic()
    found = scrape(node)
    return time.monotonic() - began, found


def restarted(node, before, reason, times):
    after = scrape(node)
    name = "kvserver_worker_restarts_total"
    return after if after.value(name, reason=reason) - before.value(name, reason=reason) == times else None


def nothing_went_back(before, after):
    for key, value in before.growing():
        now = after.values.get(key)
        expect(now is not None and now >= value, f"{key[0]} {sorted(key[1])} was {value} and is {now}")


def connections_by_worker(node, workers):
    """A connection to each worker, by its pid: which of them accepts one is chance."""
    found = {}
    for _ in range(300):
        connection = Connection(node.address)
        # (Accepted once it has an answer.)
        connection.get("/health/live")
        worker = next((pid for pid in workers if has_socket(pid, connection)), None)
        if worker is None or worker in found:
            connection.close()
        else:
            found[worker] = connection
        if len(found) == len(workers):
            return found
    raise TestFailure(f"of the workers {workers} only {sorted(found)} accept connections")


def has_socket(pid, connection):
    """Whether the process has the other end of the connection."""
    port = connection._socket.getsockname()[1]  # pylint: disable=protected-access
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    inodes = {f"socket:[{row[9]}]" for row in rows
              if int(row[2].split(":")[1], 16) == port and int(row[1].split(":")[1], 16) == 5000}
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{descriptor}") in inodes:
                return True
        except FileNotFoundError:
            pass
    return False


def promtool_is_content(found):
    check = subprocess.run(["promtool", "check", "metrics"], input=found.text, text=True, capture_output=True, timeout=30, check=False)
    expect(check.returncode == 0 and not (check.stdout + check.stderr).strip(), f"promtool: {check.stdout} {check.stderr}")


def it_is_described(found):
    """The table in docs/metrics.md has each metric of this scrape, and all that the program can show, in its words."""
    rows = re.findall(r"^\| `(kvserver_\w+)` \| (\w+) \| [^|]*\| (.*) \|$", (REPOSITORY / "docs/metrics.md").read_text(), re.M)
    described = {name: (kind, text) for name, kind, text in rows}
    expect_equal(len(described), len(rows), "rows of docs/metrics.md")
    for name, kind in found.type.items():
        expect_equal(described.get(name), (kind, found.help[name]), f"{name} in docs/metrics.md")
    source = (REPOSITORY / "Sources/KVServer/MetricCatalogue.swift").read_text()
    catalogue = dict(re.findall(r'^        "(kvserver_\w+)":\s+"(.*)",$', source, re.M))
    expect_equal({name: text for name, (_, text) in described.items()}, catalogue, "docs/metrics.md and the catalogue")
