# SPDX-License-Identifier: Apache-2.0
"""Each check of the fault tests fails on what it is there for, accepts what is in order, and the search agrees with brute force on deletes and conditions."""

import itertools

from harness.checker import Undecided, check_search, check_versions
from harness.client import NO, OK, UNKNOWN
from harness.expectations import expect, expect_equal
from harness.history import CONDITIONAL, FOREVER, READ, WRITE, History, Operation, parse_history
from nemesis import checks

#: Refused as not linearizable; keys with deletes and conditional writes, which the end-to-end tests' corpus lacks.
BAD = {
    "a deleted value comes back": "a w one 1..2 @01\n a w - 3..4 @02\n b r - 5..6\n b r one 7..8 @01",
    "a deleted value is still there": "a w one 1..2 @01\n a w - 3..4 @02\n b r one 5..6 @01",
    "a value from before two deletes": "a w one 1..2 @01\n a w - 3..4 @02\n a w two 5..6 @03\n a w - 7..8 @04\n b r two 9..10 @03",
    "nothing there though nothing was deleted": "a w one 1..2 @01\n a w - 3..4 no\n b r - 5..6",
    "found nothing before an unknown delete was sent": "a w one 1..2 @01\n b r - 3..4\n a w - 5.. unknown",
    "an unknown delete that was seen is undone": "a w one 1..2 @01\n a w - 3.. unknown\n b r - 5..6\n b r one 7..8 @01",
    "a delete is skipped": "a w one 1..2 @01\n b r one 3..4 @01\n a w - 4..5 @02\n b r one 6..7 @01",
    "two replacements of one value": "a w one 1..2 @01\n b c two 3..5 =one @02\n c c three 4..6 =one @03",
    "a replacement of what was not there": "a w one 1..2 @01\n b c two 3..4 =other @02",
    "a refused replacement of what was there": "a w one 1..2 @01\n b c two 3..4 no 412 =one",
    "a first write where there was one": "a w one 1..2 @01\n b c two 3..4 @02",
    "a refused first write where there was none": "b c two 3..4 no 412",
    "a refused replacement is read": "a w one 1..2 @01\n b c two 3..4 no 412 =zero\n c r two 5..6",
    "an unknown replacement of another value is seen": "a w one 1..2 @01\n b c two 3.. unknown =zero\n c r two 5..6 @02",
}

BAD_VERSIONS = {
    "a delete older than what it deleted": "a w one 1..2 @02\n a w - 3..4 @01",
    "a value older than a delete before it": "a w - 1..2 @02\n a w one 3..4 @01",
    "a delete and a write of one version": "a w one 1..2 @01\n a w - 3..4 @01",
    "a delete without a version": "a w one 1..2 @01\n a w - 3..4",
}

GOOD = {
    "deleted and written again": "a w one 1..2 @01\n a w - 3..4 @02\n b r - 5..6\n a w two 7..8 @03\n b r two 9..10 @03",
    "an old value during a delete": "a w one 1..2 @01\n a w - 3..9 @02\n b r one 4..5 @01\n b r - 6..7",
    "an unknown delete that never lands": "a w one 1..2 @01\n a w - 3.. unknown\n b r one 5..6 @01",
    "an unknown delete that lands late": "a w one 1..2 @01\n a w - 3.. unknown\n b r one 5..6 @01\n b r - 7..8",
    "one of two replacements": "a w one 1..2 @01\n b c two 3..5 =one @02\n c c three 4..6 no 412 =one\n d r two 7..8 @02",
    "an unknown replacement": "a w one 1..2 @01\n b c two 3.. unknown =one\n c c three 5..6 no 412 =one\n d r two 7..8 @02",
    "first writes": "b c one 1..2 @01\n b c two 3..4 no 412\n a w - 5..6 @02\n b c three 7..8 @03",
}


def run(context):
    for name, text in BAD.items():
        expect(check_search(parse_history(text)), f"check_search accepts: {name}")
        expect(checks.linearizable(History(parse_history(text))), f"linearizable accepts: {name}")
    for name, text in BAD_VERSIONS.items():
        expect(check_versions(parse_history(text)), f"check_versions accepts: {name}")
        expect(checks.linearizable(History(parse_history(text))), f"linearizable accepts: {name}")
    for name, text in GOOD.items():
        expect_equal(checks.linearizable(History(parse_history(text))), [], name)

    undecided_is_a_finding()
    lost_writes_are_found()
    resurrections_are_found()
    copies_that_differ_are_found()
    steps_back_are_counted()
    the_shortest_story_is_told()
    rounds = context.short_or_full(3000, 60_000)
    refused = sum(compare_with_brute_force(context.random) for _ in range(rounds))
    expect(rounds * 0.1 < refused < rounds * 0.9, f"{refused} of {rounds} random histories refused: they decide nothing")
    context.note(f"{len(BAD) + len(BAD_VERSIONS)} bad histories by hand, {rounds} random ones ({refused} of them bad)")


def undecided_is_a_finding():
    """Many unordered deletes and writes, of which the last read fits none."""
    crowd = [Operation(f"c{n}", "x", WRITE, f"v{n}" if n % 3 else None, f"{n:02d}", 0.0, 100.0, OK) for n in range(14)]
    crowd.append(Operation("r", "x", READ, "v1", "01", 101.0, 102.0, OK))
    crowd.append(Operation("r", "x", READ, None, None, 103.0, 104.0, OK))
    try:
        check_search(crowd, state_limit=1000)
        expect(False, "check_search decided within 1000 states what takes more")
    except Undecided:
        pass
    findings = checks.linearizable(History(crowd), state_limit=1000)
    expect(len(findings) == 1 and "undecided" in findings[0].what, f"an undecided key: {findings}")


def lost_writes_are_found():
    history = History()
    for key, text in {"kept": "a w one 1..2\n f r one 9..10", "lost": "a w two 1..2\n f r - 9..10",
                      "came": "a w three 1.. unknown\n f r three 9..10", "never": "a w four 1.. unknown\n f r - 9..10",
                      "stranger": "a w five 1..2\n f r six 9..10"}.items():
        history.extend(parse_history(text, key))
    found = checks.nothing_lost(history, list(history.by_key))
    expect_equal(sorted(finding.key for finding in found), ["lost", "stranger", "stranger"], "lost writes")


def resurrections_are_found():
    def keys(text):
        return [finding.key for finding in checks.nothing_resurrected(History(parse_history(text)))]
    expect_equal(keys("a w one 1..2\n a w - 3..4\n f r one 9..10"), ["x"], "a resurrection")
    expect_equal(keys("a w one 1..2\n a w - 3..4\n f r - 9..10"), [], "a deleted key")
    expect_equal(keys("a w one 1..2\n a w - 3..6\n f r one 4..5"), [], "a read during the delete")
    expect_equal(keys("a w one 1..2\n a w - 3..4\n b w two 5..6\n f r two 9..10"), [], "a key written again")
    expect_equal(keys("a w one 1.. unknown\n a w - 3..4\n f r one 9..10"), [], "a write that may land late")
    expect_equal(keys("a w one 1..2\n a w - 3.. unknown\n f r one 9..10"), [], "a delete of unknown outcome")


def copies_that_differ_are_found():
    same, newer, other = ("v", "01"), ("v", "02"), ("w", "01")

    def agree(copies, number=2, answers=None):
        return not checks.copies_agree({"x": copies}, number, answers or {})
    expect(agree({"a": same, "b": same}), "equal copies are refused")
    expect(agree({"a": None, "b": None}, answers={"x": None}), "copies that are all gone are refused")
    expect(not agree({"a": same, "b": newer}), "copies of two versions are accepted")
    expect(not agree({"a": same, "b": other}), "copies of two values are accepted")
    expect(not agree({"a": same, "b": None}), "a copy that is missing is accepted")
    expect(not agree({"a": same}), "too few holders are accepted")
    expect(not agree({"a": same, "b": same}, answers={"x": other}), "an answer that no holder has is accepted")
    expect(not agree({"a": same, "b": same}, answers={"x": None}), "nothing found though all hold it is accepted")


def steps_back_are_counted():
    back = "a w one 1..2 @01\n b w two 3..4 @02\n c r two 5..6 @02\n c r one 7..8 @01\n d r one 9..10 @01"
    expect_equal(checks.sessions(History(parse_history(back))), 1, "steps back")


def the_shortest_story_is_told():
    history = History([*parse_history("a w long1 1..2\n a w long2 3..4\n a r long1 5..6", "long"),
                       *parse_history("a w short 1..2\n b r - 3..4", "short")])
    told = checks.report(history, checks.linearizable(history), [(2.5, "inflict something")])
    expect("of 'short'" in told and "long2" not in told and "inflict something" in told, f"not the shortest story: {told}")


# Against brute force


def random_history(random):
    operations, values = [], []
    for number in range(random.randint(2, 6)):
        called = random.randint(0, 10)
        returned = called + random.randint(0, 6)
        kind = random.choices((READ, WRITE, "delete", CONDITIONAL), (4, 3, 2, 2))[0]
        outcome, status = random.choices((OK, UNKNOWN, NO), (7, 2, 1))[0], 0
        if kind == READ:
            outcome = OK
        if kind == CONDITIONAL and outcome == NO:
            status = 412
        value = None
        if kind in (WRITE, CONDITIONAL):
            value = f"v{number}"
            values.append(value)
        operations.append(Operation(f"c{number}", "x", WRITE if kind == "delete" else kind, value, None, called,
                                    FOREVER if outcome == UNKNOWN else returned, outcome, "", status))
    choices = [*values, None]
    return [o._replace(value=random.choice(choices)) if o.kind == READ
            else o._replace(expected=random.choice(choices)) if o.kind == CONDITIONAL else o for o in operations]


def has_an_order(operations):
    """Tries every order of every choice of unknown operations."""
    sure = [o for o in operations if o.outcome == OK or o.found_another_value]
    unsure = [o for o in operations if o.outcome == UNKNOWN]
    return any(explains(order) for count in range(len(unsure) + 1) for chosen in itertools.combinations(unsure, count)
               for order in itertools.permutations([*sure, *chosen]))


def explains(order):
    latest_call, held = float("-inf"), None
    for operation in order:
        if operation.returned < latest_call:
            return False
        latest_call = max(latest_call, operation.called)
        if operation.kind == READ:
            if operation.value != held:
                return False
        elif operation.kind == WRITE:
            held = operation.value
        elif operation.found_another_value:
            if operation.expected == held:
                return False
        elif operation.expected == held:
            held = operation.value
        elif operation.outcome == OK:
            return False
    return True


def compare_with_brute_force(random):
    """1 when the history is bad."""
    operations = random_history(random)
    truth = has_an_order(operations)
    expect_equal(check_search(operations) is None, truth, "check_search against brute force on\n" + "\n".join(map(str, operations)))
    return 0 if truth else 1
