# SPDX-License-Identifier: Apache-2.0
"""What has to hold of a history, and of the hosts after they have healed. Each check returns findings; none: all is well.

`01_every_check_catches_what_is_planted.py` shows of each that it can fail.
"""

from typing import NamedTuple

from harness import client as http
from harness.checker import Undecided, check_history, check_set
from harness.client import OK, UNKNOWN
from harness.history import FOREVER, READ, WRITE, History
from harness.workload import short_form


class Finding(NamedTuple):
    check: str
    key: str
    what: str

    def __str__(self):
        return f"{self.check}: key {self.key!r}: {self.what}"


# Of histories


def linearizable(history, state_limit=300_000):
    """Each key's operations have an order that explains them, and that their versions agree with. One that could not be
    decided counts as one that has none."""
    findings = []
    for key, operations in history.by_key.items():
        try:
            violations = check_history(History(operations), state_limit=state_limit)
            findings += [Finding("linearizability", key, violation.what) for violation in violations]
        except (Undecided, ValueError) as error:
            findings.append(Finding("linearizability", key, f"undecided: {error}"))
    return findings


def nothing_lost(history, elements):
    """Each element, a key that was written once, is there if its write was acknowledged, and nothing else is."""
    acknowledged, attempted, present = set(), set(), set()
    for key in elements:
        reads = [operation for operation in history.by_key[key] if operation.kind == READ and operation.outcome == OK]
        for operation in history.by_key[key]:
            if operation.kind == WRITE:
                attempted.add((key, operation.value))
                if operation.outcome == OK:
                    acknowledged.add((key, operation.value))
        if reads:
            last = max(reads, key=lambda read: read.called)
            if last.value is not None:
                present.add((key, last.value))
    difference = check_set(acknowledged, attempted, present)
    return ([Finding("lost writes", key, f"{value!r} was acknowledged, and is gone") for key, value in sorted(difference.lost)]
            + [Finding("lost writes", key, f"{value!r} is there, and nobody wrote it") for key, value in sorted(difference.unexpected)])


def nothing_resurrected(history):
    """Where an acknowledged delete began after all writes had ended, no later read finds anything."""
    findings = []
    for key, operations in history.by_key.items():
        writes = [operation for operation in operations if operation.is_write and operation.outcome != http.NO]
        deletes = [operation for operation in writes if operation.is_delete and operation.outcome == OK]
        if not deletes:
            continue
        last = max(deletes, key=lambda delete: delete.called)
        ended = max((write.returned for write in writes if write is not last), default=0)
        if ended >= last.called:
            continue
        risen = [read for read in operations if read.kind == READ and read.outcome == OK and read.value is not None
                 and read.called > last.returned]
        if risen:
            findings.append(Finding("resurrection", key, f"{risen[0].value!r} was found after it had been deleted"))
    return findings


def sessions(history):
    """How often a client saw a key go back behind what it had itself seen or written, by versions. Under strict reads and
    writes never; where a sloppy quorum answers, a figure and no failure."""
    steps_back = 0
    for operations in history.by_key.values():
        newest = {}
        for operation in sorted(operations, key=lambda o: o.called):
            if operation.outcome != OK or not operation.version:
                continue
            if operation.version < newest.get(operation.client, ""):
                steps_back += 1
            newest[operation.client] = max(operation.version, newest.get(operation.client, ""))
    return steps_back


# Of hosts


def holders_of(cluster, keys):
    """Key: the addresses of those who hold it, as the nodes tell it."""
    asked = cluster.nodes[0].address
    requests = [http.request_bytes("GET", b"/route_test?key=%b&all=1" % http.percent_encode(key)) for key in keys]
    return {keys[index]: answer.text.split() for index, _, _, answer in http.exchange_many([asked], requests)}


def copies_of(address, keys):
    """Key: what that node's own memcached has, as (value, version); None: nothing."""
    copies = {}
    for index, _, _, answer in http.exchange_many([address], [http.read_request(key, "/cache") for key in keys]):
        key = keys[index]
        if answer.status == 200:
            copies[key] = (short_form(key, answer.body), answer.version)
        else:
            copies[key] = None if answer.status == 404 else (f"no answer: {answer.status} {answer.text}", None)
    return copies


def all_copies(cluster, keys):
    """Key: {holder's address: its copy}."""
    holders = holders_of(cluster, keys)
    found = {key: {} for key in keys}
    for address in sorted({address for addresses in holders.values() for address in addresses}):
        held = [key for key in keys if address in holders[key]]
        for key, copy in copies_of(address, held).items():
            found[key][address] = copy
    return found


def copies_agree(copies, wanted_number, answers):
    """All holders of a key have one value and one version, those that clients are given, and there are as many as wanted.

    `copies` as `all_copies` has them, `answers` has what clients were last given: key: (value, version) or None.
    """
    findings = []
    for key, by_holder in copies.items():
        different = set(by_holder.values())
        if len(by_holder) != wanted_number:
            findings.append(Finding("convergence", key, f"{len(by_holder)} holders instead of {wanted_number}: {sorted(by_holder)}"))
        elif len(different) != 1:
            findings.append(Finding("convergence", key, f"its copies differ: {by_holder}"))
        elif key in answers and different != {answers[key]}:
            findings.append(Finding("convergence", key, f"clients are given {answers[key]}, but held is {by_holder}"))
    return findings


# What to print


def timeline(history, key, marks=(), most=80):
    """The key's operations in the order of their calls, in milliseconds from the first, with marks `(monotonic ns, text)`
    between them."""
    operations = sorted(history.by_key[key], key=lambda operation: operation.called)
    first = operations[0].called if operations else 0
    lines = [(operation.called, _line(operation, first)) for operation in operations]
    lines += [(when, f"[{(when - first) / 1e6:10.1f}]{'':15}  --- {text}") for when, text in marks]
    lines.sort(key=lambda line: line[0])
    shown = [text for _, text in lines]
    if len(shown) > most:
        shown = [*shown[:most // 4], f"… {len(shown) - most} lines …", *shown[-(most - most // 4):]]
    return "\n".join(shown)


def _line(operation, first):
    ended = f"{(operation.returned - first) / 1e6:12.1f}" if operation.returned != FOREVER else f"{'unknown':>12}"
    verb = "read   " if operation.kind == READ else "delete " if operation.is_delete else "write  "
    if operation.kind not in (READ, WRITE):
        verb = f"replace {operation.expected!r} by"
    said = "" if operation.outcome in (OK, UNKNOWN) else " REFUSED"
    value = "" if operation.is_delete else f"{operation.value!r}"
    return (f"[{(operation.called - first) / 1e6:10.1f} …{ended}] {operation.client:14} {verb} {value}{said} "
            f"version={operation.version} status={operation.status} at {operation.node}")


def report(history, findings, marks=()):
    """The findings in short, and the whole story of the key with the fewest operations among them."""
    kinds = {}
    for finding in findings:
        kinds.setdefault(finding.check, []).append(finding)
    lines = [f"{check}: {len(found)} keys, such as {found[0].key!r}: {found[0].what}" for check, found in sorted(kinds.items())]
    told = [finding for finding in findings if history.by_key.get(finding.key)]
    if told:
        shortest = min(told, key=lambda finding: len(history.by_key[finding.key]))
        lines += [f"the shortest story, of {shortest.key!r} ({shortest.check}: {shortest.what}):",
                  timeline(history, shortest.key, marks)]
    return "\n".join(lines)
