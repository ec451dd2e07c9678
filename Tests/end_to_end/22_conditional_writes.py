# SPDX-License-Identifier: Apache-2.0
"""Writes on a condition: of all that want to replace one version, or to create one pair, exactly one does; through every node,
with one replica and with three, while the ring changes, while workers die; and without the first owner nobody guesses."""

import threading
from concurrent.futures import ThreadPoolExecutor

from harness.checker import check_history
from harness.client import NO, OK, UNKNOWN, Connection, ask, form_request, percent_encode, request_bytes
from harness.expectations import eventually, expect, expect_equal
from harness.history import CONDITIONAL, READ, History
from harness.workload import Draw, read_many, value_for

LIMIT_SECONDS = 240
FULL_LIMIT_SECONDS = 1200


def run(context):
    for replicas in (1, 3):
        with context.cluster(nodes=4, replicas=replicas, positions={2000: 1, 5000: 2, 8000: 3}) as cluster:
            answers(cluster)
            counters(context, cluster, replicas)
            one_creator(cluster, replicas)
            changes(context, cluster, replicas)
            without_the_first_owner(cluster, replicas)


def conditional(key, value, *conditions, query=""):
    body = b"key=%b&val=%b" % (percent_encode(key), percent_encode(value))
    return request_bytes("POST", "/route" + query, body,
                         [("Content-Type", "application/x-www-form-urlencoded"), *conditions])


def delete(key, *conditions):
    return request_bytes("DELETE", b"/route?key=" + percent_encode(key), None, conditions)


def owner_of(cluster, key):
    return cluster.node_at(cluster.node(1).get(b"/route_test?key=" + percent_encode(key)).text)


# What is answered


def answers(cluster):
    one, two = cluster.node(1).address, cluster.node(2).address
    refused = ask(one, conditional("a", "0", ("If-Match", "*")))
    expect_equal((refused.status, refused.outcome, refused.version), (412, NO, None), "replacing what is not there")
    created = ask(one, conditional("a", "1", ("If-None-Match", "*")))
    expect_equal((created.status, created.body), (200, b"OK"), "creating")
    refused = ask(two, conditional("a", "2", ("If-None-Match", "*")))
    expect_equal((refused.status, refused.outcome, refused.version), (412, NO, created.version), "creating what is there")
    replaced = ask(two, conditional("a", "3", ("If-Match", f'"none-of-ours", "{created.version}"')))
    expect_equal(replaced.status, 200, "replacing the known version")
    expect(replaced.version > created.version, f"{replaced.version} follows {created.version}")
    for tag in (f'"{created.version}"', f'W/"{replaced.version}"', '"x"'):
        refused = ask(one, conditional("a", "4", ("If-Match", tag)))
        expect_equal((refused.status, refused.version), (412, replaced.version), f"replacing {tag}")
    read = ask(one, request_bytes("GET", "/route?key=a", None, [("If-None-Match", f'"{replaced.version}"')]))
    expect_equal((read.status, read.body, read.version), (304, b"", replaced.version), "reading what is known")
    expect_equal(ask(one, delete("a", ("If-Match", f'"{created.version}"'))).status, 412, "deleting another version")
    expect_equal(ask(two, delete("a", ("If-Match", f'"{replaced.version}"'))).status, 200, "deleting the known version")
    expect_equal(ask(one, delete("a", ("If-Match", "*"))).status, 412, "deleting what is gone")
    again = ask(one, conditional("a", "5", ("If-None-Match", "*")))
    expect(again.status == 200 and again.version > replaced.version, f"creating what was deleted: {again}")
    # A plain write is newer than any conditional one before it, whoever takes it.
    plain = ask(two, form_request("/route", {"key": "a", "val": "6"}))
    expect(plain.version > again.version, f"{plain.version} follows {again.version}")
    expect_equal(ask(one, conditional("a", "7", ("If-Match", f'"{again.version}"'))).status, 412, "replacing behind a plain write")
    for field in (("If-Match", "a"), ("If-None-Match", '"'), ("If-Match", "")):
        expect_equal(ask(one, conditional("a", "8", field)).status, 400, f"a malformed {field}")
    expect_equal(ask(one, conditional("a", "8", ("If-Match", "*"), query="?w=9")).status, 400, "more replicas than there are")
    expect_equal(ask(two, request_bytes("GET", "/route?key=a")).body, b"6", "what is left")


# Counters


class Counter:
    """Clients that read a number and write the next one, on the condition that it is still the one they have read."""

    def __init__(self, cluster, keys, clients):
        self.keys = keys
        self.acknowledged = dict.fromkeys(keys, 0)
        self.unknown = dict.fromkeys(keys, 0)
        self.refused = self.contended = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        addresses = [cluster.node(1 + number % 3).address for number in range(clients)]
        self._pool = ThreadPoolExecutor(clients)
        self._running = [self._pool.submit(self._count, number, address) for number, address in enumerate(addresses)]

    def _count(self, number, address):
        connection = None
        turn = number
        while not self._stop.is_set():
            key = self.keys[turn % len(self.keys)]
            turn += 1
            sent = False
            try:
                connection = connection or Connection(address, timeout=3.0)
                held = connection.read(key)
                if held.status not in (200, 404):
                    continue
                condition = ("If-Match", f'"{held.version}"') if held.status == 200 else ("If-None-Match", "*")
                count = int(held.body) if held.status == 200 else 0
                sent = True
                answer = connection.exchange(conditional(key, str(count + 1), condition))
                if answer.closes:
                    connection.close()
                    connection = None
            except OSError:
                if connection:
                    connection.close()
                connection = None
                if sent:
                    with self._lock:
                        self.unknown[key] += 1
                continue
            with self._lock:
                if answer.outcome == OK:
                    self.acknowledged[key] += 1
                elif answer.outcome == UNKNOWN:
                    self.unknown[key] += 1
                elif answer.status == 412:
                    self.contended += 1
                else:
                    self.refused += 1

    def wait_for_more(self, count, seconds=30):
        goal = sum(self.acknowledged.values()) + count
        eventually(seconds, f"{count} more increments", lambda: sum(self.acknowledged.values()) >= goal or None, interval=0.02)

    def stop(self):
        self._stop.set()
        for running in self._running:
            running.result(20)
        self._pool.shutdown()

    def check(self, cluster):
        """Every acknowledged increment counts once, and nothing else but those of unknown outcome."""
        for key in self.keys:
            for node in cluster.nodes[:3]:
                answer = node.get(b"/route?consistency=strict&key=" + percent_encode(key))
                expect_equal(answer.status, 200, f"reading {key} at {node.name}")
                value, low = int(answer.body), self.acknowledged[key]
                expect(low <= value <= low + self.unknown[key],
                       f"{key} is {value} at {node.name}: {low} increments acknowledged, {self.unknown[key]} unknown")

    def __str__(self):
        return (f"{sum(self.acknowledged.values())} increments, {self.contended} refused for another's, "
                f"{self.refused} not applied, {sum(self.unknown.values())} unknown")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._pool.shutdown()


def counters(context, cluster, replicas):
    with Counter(cluster, [f"count{number}" for number in range(4)], clients=9) as counter:
        counter.wait_for_more(context.short_or_full(600, 10_000), 60)
        counter.stop()
    expect_equal(sum(counter.unknown.values()), 0, "increments of unknown outcome while nothing fails")
    counter.check(cluster)
    context.note(f"{replicas} replicas: {counter}")


def one_creator(cluster, replicas):
    """Of many that create the same pair at the same time, through all nodes, one does."""
    with ThreadPoolExecutor(9) as pool:
        for number in range(60):
            key = f"once{replicas}.{number}"
            created = list(pool.map(
                lambda client: (client, ask(cluster.node(1 + client % 3).address,
                                            conditional(key, f"by {client}", ("If-None-Match", "*")))), range(9)))
            winners = [client for client, answer in created if answer.status == 200]
            losers = [answer for _, answer in created if answer.status == 412]
            expect(len(winners) == 1 and len(losers) == 8, f"{key} was created by {winners}: {created}")
            expect(all(answer.version is None or answer.version == created[winners[0]][1].version for answer in losers),
                   f"who was refused hears of the one that is there: {created}")
            expect_equal(cluster.node(2).read(key).text, f"by {winners[0]}", key)


# While things happen


class Replacing:
    """Reads, writes and conditional writes of a few keys, for the checkers."""

    def __init__(self, keys):
        self._keys = keys
        self._last_seen = {}
        self._seen_before = {}

    def draw(self, chooser, name):
        key = chooser.choice(self._keys)
        place = b"/route?consistency=strict"
        if chooser.random() < 0.4:
            return Draw(READ, key, None, request_bytes("GET", place + b"&key=" + percent_encode(key)))
        wire, short = value_for(key, name)
        # Now and then what was there before, which is to be refused.
        seen = (self._seen_before if chooser.random() < 0.25 else self._last_seen).get(key)
        condition = ("If-Match", f'"{seen[0]}"') if seen else ("If-None-Match", "*")
        return Draw(CONDITIONAL, key, short, conditional(key, wire, condition, query="?consistency=strict"),
                    seen[1] if seen else None)

    def learn(self, operation):
        if operation.outcome == OK and operation.version and operation.value is not None:
            if operation.key in self._last_seen:
                self._seen_before[operation.key] = self._last_seen[operation.key]
            self._last_seen[operation.key] = (operation.version, operation.value)


def changes(context, cluster, replicas):
    """A node is added and removed, and workers die, while counters count and histories are kept."""
    newcomer = cluster.node(4).address
    names = [f"hot{replicas}.{number}" for number in range(context.short_or_full(160, 400))]
    addresses = [cluster.node(number).address for number in (1, 2, 3)]
    rounds = context.short_or_full(2, 6)
    with Counter(cluster, [f"moved{number}" for number in range(12)], clients=6) as counter, \
            context.load(addresses, names, connections=6, processes=1, rate=250, mix=Replacing(names),
                         name=f"c{replicas}.") as load:
        counter.wait_for_more(100)
        for _ in range(rounds):
            for target in (f"/add_node/auto/{newcomer}?positions=8", f"/remove_node/{newcomer}"):
                answer = cluster.node(1).get(target, timeout=60)
                expect_equal((answer.status, answer.body), (200, b"OK"), target)
                counter.wait_for_more(60)
        for _ in range(context.short_or_full(4, 20)):
            node = cluster.node(context.random.randint(1, 3))
            node.wait_until_replaced([node.kill_worker(context.random)], 5)
            counter.wait_for_more(40)
        counter.stop()
        result = load.stop()
    counter.check(cluster)
    history = History(operation for operations in result.history.by_key.values() for operation in operations)
    history.extend(read_many(addresses, names))
    violations = check_history(history)
    expect(not violations, f"{len(violations)} keys are not linearizable:\n" + "\n".join(map(str, violations[:3])))
    done = result.history.count(CONDITIONAL, OK)
    refused = sum(operation.found_another_value for operations in result.history.by_key.values() for operation in operations)
    expect(done > 200 and refused > 20, f"{done} conditional writes were done and {refused} refused: too few to show anything")
    context.note(f"{replicas} replicas, changes and kills: {counter}; {done} conditional writes, {refused} refused, "
                 f"{result.history.count(CONDITIONAL, UNKNOWN)} unknown, {len(history)} operations checked")


def without_the_first_owner(cluster, replicas):
    key = next(f"far{number}" for number in range(100) if owner_of(cluster, f"far{number}") is cluster.node(3))
    stored = ask(cluster.node(1).address, conditional(key, "1", ("If-None-Match", "*")))
    expect_equal(stored.status, 200, "creating")
    away = cluster.node(3)
    away.end_daemon()
    for _ in range(5):
        for condition in (("If-Match", f'"{stored.version}"'), ("If-Match", '"another"'), ("If-None-Match", "*")):
            answer = ask(cluster.node(1).address, conditional(key, "2", condition))
            expect_equal((answer.status, answer.outcome, answer.header("X-KV-Outcome")), (503, NO, "not-applied"),
                         f"{condition} while the first owner is stopped")
    if replicas > 1:
        expect_equal(cluster.node(1).read(key).text, "1", "reads go on")
        other = next(f"near{number}" for number in range(100) if owner_of(cluster, f"near{number}") is cluster.node(2))
        expect_equal(ask(cluster.node(1).address, conditional(other, "1", ("If-None-Match", "*"))).status, 200,
                     "a pair of another first owner, one replica away")
    away.start_daemon()
    away.wait_until_ready()
    answer = eventually(10, "the owner decides again", lambda: next(
        (a for a in [ask(cluster.node(1).address, conditional(key, "2", ("If-Match", f'"{stored.version}"')))]
         if a.status != 503), None))
    expect_equal(answer.status, 200, "the version has stayed")
