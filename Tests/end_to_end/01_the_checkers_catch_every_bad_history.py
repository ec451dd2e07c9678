# SPDX-License-Identifier: Apache-2.0
"""The checkers find what is wrong in bad histories, nothing in good ones, and agree with each other and with brute force."""

import itertools

from harness.checker import Undecided, check_history, check_search, check_set, check_versions, check_zones
from harness.client import NO, OK, UNKNOWN
from harness.expectations import expect, expect_equal
from harness.history import FOREVER, READ, WRITE, History, Operation, parse_history

#: Each of these must be refused by zones and by search.
BAD = {
    "an acknowledged write is lost": "a w one 1..2\n b r - 3..4",
    "an older value comes back after a newer write": "a w one 1..2\n a w two 3..4\n b r one 5..6",
    "two readers see two values in opposite orders": """
        a w one 1..10
        b w two 1..10
        c r one 2..3
        c r two 4..5
        d r one 6..7""",
    "a reader sees the new value, a later one the old, while the write is under way": """
        a w one 1..2
        a w two 3..20
        b r two 4..5
        c r one 6..7""",
    "the value of a failed write is read": "a w one 1..2\n a w two 3..4 no\n b r two 5..6",
    "a value nobody wrote": "a w one 1..2\n b r other 3..4",
    "a value is read before it is written": "b r one 1..2\n a w one 3..4",
    "found, then not found": "a w one 1..2\n b r one 3..4\n b r - 5..6",
    "found while the write is under way, then not found": "a w one 1..20\n b r one 3..4\n c r - 5..6",
    "a write between two reads of the older value is skipped": "a w one 1..2\n a w two 4..5\n b r one 3..3.5\n b r one 6..7",
    "an unknown write that was seen vanishes": "a w one 1..2\n b w two 3.. unknown\n c r two 4..5\n c r one 6..7",
    "an unknown write that was seen vanishes for good": "b w two 3.. unknown\n c r two 4..5\n c r - 6..7",
    "a resurrected value after two overwrites": "a w one 1..2\n a w two 3..4\n a w three 5..6\n b r three 7..8\n b r two 9..10",
    "an unknown write lands between two reads of a later one": """
        a w one 1.. unknown
        b w two 3..4
        c r two 5..6
        c r one 7..8
        c r two 9..10""",
    "a write of two writers is lost on the losing side of a ring change": """
        a w one 1..2
        a w two 3..6
        b w three 4..7
        c r two 8..9
        c r three 10..11
        c r two 12..13""",
}

#: Each of these must be refused by versions; the values alone would be in order.
BAD_VERSIONS = {
    "a value under two versions": "a w one 1..2 @01\n b r one 3..4 @02",
    "two values under one version": "a w one 1..2 @01\n a w two 3..4 @01",
    "versions against the order of writes": "a w one 1..2 @02\n a w two 3..4 @01\n b r two 5..6 @01",
    "no version": "a w one 1..2",
}

#: Each of these must be accepted by all.
GOOD = {
    "nothing at all": "b r - 1..2",
    "one after the other": "a w one 1..2 @01\n b r one 3..4 @01\n a w two 5..6 @02\n b r two 7..8 @02",
    "an old value during an overwrite": "a w one 1..2 @01\n a w two 3..10 @02\n b r one 4..5 @01\n b r two 6..7 @02",
    "an unknown write that never lands": "a w one 1..2 @01\n b w two 3.. unknown\n c r one 4..5 @01\n c r one 8..9 @01",
    "an unknown write that lands late": "a w one 1..2 @01\n b w two 3.. unknown\n c r one 4..5 @01\n c r two 8..9 @02",
    "a refused write that is not read": "a w one 1..2 @01\n b w two 3..4 no\n c r one 4..5 @01",
    "two concurrent writes in either order": "a w one 1..9 @02\n b w two 2..8 @01\n c r two 3..4 @01\n c r one 5..6 @02",
    "touching times count as concurrent": "a w one 1..2 @01\n b r - 2..3",
}


def run(context):
    for name, text in BAD.items():
        operations = parse_history(text)
        for check in (check_zones, check_search):
            expect(check(operations), f"{check.__name__} accepts: {name}")
    for name, text in BAD_VERSIONS.items():
        expect(check_versions(parse_history(text)), f"check_versions accepts: {name}")
    for name, text in GOOD.items():
        operations = parse_history(text)
        for check in (check_zones, check_search, check_versions):
            expect_equal(check(operations), None, f"{check.__name__} on: {name}")
    deletes_are_understood_by_search()
    search_gives_up_loudly()
    sets_are_compared()
    histories_are_checked_key_by_key()

    rounds = context.short_or_full(3000, 100_000)
    refused = sum(compare_on_random_history(context.random) for _ in range(rounds))
    expect(rounds * 0.1 < refused < rounds * 0.9, f"{refused} of {rounds} random histories refused: they decide nothing")
    longer = context.short_or_full(150, 3000)
    for _ in range(longer):
        check_simulated_history(context.random)
    context.note(f"{rounds} random histories ({refused} of them bad), {longer} simulated ones with a fault planted in each")


def deletes_are_understood_by_search():
    expect_equal(check_search(parse_history("a w one 1..2\n a w - 3..4\n b r - 5..6")), None, "a delete")
    expect(check_search(parse_history("a w one 1..2\n a w - 3..4\n b r - 5..6\n b r one 7..8")), "a deleted value comes back unnoticed")


def search_gives_up_loudly():
    crowd = [Operation(f"c{n}", "x", WRITE, f"v{n}", None, 0.0, 100.0, OK) for n in range(12)]
    crowd.append(Operation("r", "x", READ, None, None, 101.0, 102.0, OK))
    try:
        check_search(crowd, state_limit=1000)
    except Undecided:
        return
    expect(False, "check_search decided within 1000 states what takes more")


def sets_are_compared():
    difference = check_set(acknowledged={"a", "b"}, attempted={"a", "b", "c", "d"}, present={"a", "c", "e"})
    expect_equal(tuple(difference), ({"b"}, {"e"}, {"c"}), "the difference of sets")


def histories_are_checked_key_by_key():
    history = History([*parse_history(BAD["an acknowledged write is lost"], key="bad"),
                       *parse_history(GOOD["one after the other"], key="good")])
    expect_equal([violation.key for violation in check_history(history, with_versions=False)], ["bad"], "the keys that are refused")
    settled = History(parse_history("a w one 1..2 @01\n b w two 3.. unknown\n c r one 4..5 @01", key="x")).settled()
    settled.extend(parse_history("c r - 6..7", key="x"))
    expect(check_history(settled), "a settled history has forgotten the value")


def random_history(random):
    """Up to seven operations at random times, with no regard to sense."""
    operations, written = [], []
    for number in range(random.randint(2, 7)):
        called = random.randint(0, 12)
        returned = called + random.randint(0, 6)
        if random.random() < 0.45:
            value = f"v{number}"
            written.append(value)
            outcome = random.choices((OK, UNKNOWN, NO), (7, 2, 1))[0]
            operations.append(Operation(f"c{number}", "x", WRITE, value, None, called,
                                        FOREVER if outcome == UNKNOWN else returned, outcome))
        else:
            operations.append(Operation(f"c{number}", "x", READ, "?", None, called, returned, OK))
    return [operation._replace(value=random.choice(written + [None])) if operation.kind == READ else operation
            for operation in operations]


def brute_force_finds_an_order(operations):
    """Tries every order of every choice of unknown writes."""
    sure = [operation for operation in operations if operation.outcome == OK]
    unsure = [operation for operation in operations if operation.outcome == UNKNOWN]
    for count in range(len(unsure) + 1):
        for chosen in itertools.combinations(unsure, count):
            for order in itertools.permutations([*sure, *chosen]):
                if explains(order):
                    return True
    return False


def explains(order):
    latest_call, value = float("-inf"), None
    for operation in order:
        if operation.returned < latest_call:
            return False
        latest_call = max(latest_call, operation.called)
        if operation.kind == WRITE:
            value = operation.value
        elif operation.value != value:
            return False
    return True


def compare_on_random_history(random):
    """1 when the history is bad."""
    operations = random_history(random)
    truth = brute_force_finds_an_order(operations)
    shown = "\n".join(map(str, operations))
    for check in (check_zones, check_search):
        expect_equal(check(operations) is None, truth, f"{check.__name__} against brute force on\n{shown}\n")
    values = [operation.value for operation in operations if operation.kind == WRITE]
    random.shuffle(values)
    version_of = {value: f"{number:04d}" for number, value in enumerate(values)}
    versioned = [operation._replace(version=version_of.get(operation.value)) for operation in operations]
    expect(check_versions(versioned) is not None or truth, f"check_versions accepts what has no order:\n{shown}")
    return 0 if truth else 1


def check_simulated_history(random):
    """A register that works, with clients that overlap; then the same with one answer changed."""
    operations, value, version, clock, unknown = [], None, None, 0, 0
    for number in range(100):
        clock += random.randint(0, 3)
        called, happened, returned = clock - random.randint(0, 3), clock, clock + random.randint(0, 3)
        draw = random.random()
        if draw < 0.4:
            written = f"v{number}"
            outcome = random.choices((OK, UNKNOWN if unknown < 3 else OK, NO), (8, 1, 1))[0]
            unknown += outcome == UNKNOWN
            if outcome != NO and not (outcome == UNKNOWN and random.random() < 0.5):
                value, version = written, f"{happened:06d}{number:06d}"
            operations.append(Operation("c", "x", WRITE, written, version if outcome == OK else None, called,
                                        FOREVER if outcome == UNKNOWN else returned, outcome))
        else:
            operations.append(Operation("c", "x", READ, value, version, called, returned, OK))
    for check in (check_zones, check_search, check_versions):
        expect_equal(check(operations), None, f"{check.__name__} on a register that works")

    clock += 20
    acknowledged = [operation for operation in operations if operation.kind == WRITE and operation.outcome == OK]
    last_call = max(operation.called for operation in acknowledged)
    stale = random.choice([operation for operation in acknowledged if operation.returned < last_call])
    broken = [*operations, Operation("r", "x", READ, stale.value, stale.version, clock, clock + 1, OK)]
    for check in (check_zones, check_search, check_versions):
        expect(check(broken), f"{check.__name__} accepts a value that had been overwritten")
