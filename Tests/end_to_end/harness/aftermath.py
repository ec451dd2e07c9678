# SPDX-License-Identifier: Apache-2.0
"""What is checked after a load has run through a fault."""

from .checker import check_history
from .expectations import expect
from .history import History
from .workload import read_many


def expect_nothing_lost(cluster, *histories, except_keys=()):
    """Reads every key back from a node and checks the whole history, those reads included.

    Keys in `except_keys` may have lost their values, but even they may not hold anything that was never written to them.
    Returns the number of operations that were checked and the keys of `except_keys` that were not found.
    """
    whole = History()
    for history in histories:
        for operations in history.by_key.values():
            whole.extend(operations)
    keys = sorted(whole.by_key)
    reads = read_many([node.address for node in cluster.nodes], keys)
    written = {key: {operation.value for operation in whole.by_key[key]} for key in except_keys if key in whole.by_key}
    strangers = [read for read in reads if read.value is not None and read.key in written and read.value not in written[read.key]]
    expect(not strangers, f"{len(strangers)} keys hold what was never written to them, such as {strangers[:1]}")
    whole.extend(reads)
    strict = whole.without_keys(set(except_keys))
    violations = check_history(strict)
    expect(not violations, f"{len(violations)} keys are not linearizable:\n" + "\n".join(map(str, violations[:3])))
    missing = [read.key for read in reads if read.value is None and read.key in written]
    return len(strict), missing
