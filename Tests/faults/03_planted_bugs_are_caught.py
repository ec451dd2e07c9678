# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in a real cluster, because it was done behind its back, is found by the check that is there for it; so is what is falsified in a real history."""

from harness import client as http
from harness.client import OK
from harness.expectations import expect, expect_equal
from harness.history import READ, WRITE, History
from nemesis import checks
from nemesis.mix import keys_of_kind

LIMIT_SECONDS = 180


def run(context):
    with context.scene() as scene:
        scene.load.wait_for_more(context.short_or_full(3000, 10_000), 120)
        scene.finish_load()
        recorded = History(o for operations in scene.history.by_key.values() for o in operations)
        expect_equal(checks.linearizable(recorded), [], "a history in which nothing happened")
        falsified = falsify(context.random, recorded)
        planted = plant(scene)
        found = {(finding.check, finding.key) for finding in scene.findings()}
        for what, check, key in planted:
            expect((check, key) in found, f"{what}: {check} says nothing of {key!r}; it found {sorted(found)[:5]}")
        strangers = {key for _, key in found} - {key for _, _, key in planted}
        expect(not strangers, f"found where nothing was planted: {sorted(found)[:5]}")
        context.note(f"{len(planted)} bugs planted in the cluster, {falsified} in its history, none missed")


# In the hosts' memory


def plant(scene):
    """Changes single copies past the ring. Returns (what, the check that has to see it, the key) for each."""
    history, holders = scene.history, {}
    keys = sorted(history.by_key)
    holders = checks.holders_of(scene.cluster, keys)

    def last_value(key):
        writes = [o for o in history.by_key[key] if o.kind == WRITE and o.outcome == OK]
        return max(writes, key=lambda o: o.called).value if writes else None

    def calm(kind, wanted):
        """Keys of that kind with no write of unknown outcome, and with what is wanted of their last write."""
        return [key for key in keys_of_kind(kind, keys)
                if all(o.outcome != http.UNKNOWN for o in history.by_key[key]) and wanted(last_value(key))
                and sum(o.kind == WRITE for o in history.by_key[key]) > (1 if kind != "element" else 0)]

    present, gone = (lambda value: value is not None), (lambda value: value is None)
    element, bulk = calm("element", present)[0], keys_of_kind("bulk", keys)[0]
    stale, corrupt = calm("register", present)[:2]
    buried = calm("buried", gone)[0]
    risen = calm("deletable", gone)[0]

    for key in (element, bulk):
        change(scene, holders[key], "DELETE", key)
    for key in (stale, buried, risen):
        change(scene, holders[key], "POST", key, first_value(history, key))
    change(scene, holders[corrupt], "POST", corrupt, "x" * 50)
    return [("an acknowledged element is dropped", "lost writes", element), ("a pair of the bulk is dropped", "lost writes", bulk),
            ("a register gets its first value back", "linearizability", stale),
            ("a register gets a value of nobody", "linearizability", corrupt),
            ("a buried key comes back", "resurrection", buried), ("a deleted key comes back", "linearizability", risen),
            *plant_in_one_copy(scene, holders, calm("register", present)[2])]


def plant_in_one_copy(scene, holders, key):
    """With more than one copy: one of them alone is overwritten. Reads that meet only the others see nothing of it until
    repair has spread it, as the latest."""
    if len(holders[key]) < 2:
        return []
    change(scene, holders[key][:1], "POST", key, "y" * 50)
    return [("one copy is changed", "linearizability", key)]


def first_value(history, key):
    return min((o for o in history.by_key[key] if o.kind == WRITE and o.value), key=lambda o: o.called).value


def change(scene, addresses, method, key, value=None):
    for address in addresses:
        if method == "POST":
            answer = http.ask(address, http.store_request(key, value, "/cache"))
        else:
            answer = http.ask(address, http.request_bytes(method, b"/cache?key=" + http.percent_encode(key)))
        expect_equal(answer.status, 200, f"{method} {key!r} at {address} alone")


# In the history


def falsify(chooser, recorded):
    """Changes one operation of a history that is in order, in some ways; returns in how many."""
    keys = [key for key in keys_of_kind("register", sorted(recorded.by_key))
            if sum(o.kind == WRITE and o.outcome == OK for o in recorded.by_key[key]) > 5]
    number = 0
    for lie in (an_old_value, nothing_found, a_write_is_unsaid, a_version_goes_back):
        for key in chooser.sample(keys, 5):
            operations = lie(recorded.by_key[key])
            expect(checks.linearizable(History(operations)), f"{lie.__name__} in the history of {key!r} goes unseen")
            number += 1
    return number


def acknowledged_writes(operations):
    return sorted((o for o in operations if o.kind == WRITE and o.outcome == OK), key=lambda o: o.called)


def later_read(operations, value, version):
    now = max(o.called for o in operations) + 10**9
    return operations[-1]._replace(client="liar", kind=READ, value=value, version=version, called=now, returned=now + 10**6,
                                   outcome=OK, status=200)


def an_old_value(operations):
    first = acknowledged_writes(operations)[0]
    return [*operations, later_read(operations, first.value, first.version)]


def nothing_found(operations):
    return [*operations, later_read(operations, None, None)]


def a_write_is_unsaid(operations):
    """A write that was read is said to have been refused."""
    read = {o.value for o in operations if o.kind == READ}
    victim = next(o for o in acknowledged_writes(operations) if o.value in read)
    return [o._replace(outcome=http.NO) if o is victim else o for o in operations]


def a_version_goes_back(operations):
    """The versions of two writes, one after the other, are exchanged."""
    writes = acknowledged_writes(operations)
    first = writes[0]
    second = next(o for o in writes if o.called > first.returned)
    return [o._replace(version={first.version: second.version, second.version: first.version}.get(o.version, o.version))
            for o in operations]
