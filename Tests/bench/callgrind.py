# SPDX-License-Identifier: Apache-2.0
"""Reads callgrind's files: how often a function was called, and what the instructions were spent on."""

import re
from collections import Counter

#: What instructions are spent on: the object that holds the function (a part of its name), its symbol, and the words for both; the
#: first that fits counts. A Swift symbol begins with the module that it is of: `$s7NIOCore…`, `$ss…` for Swift's own.
SPENT_ON = (
    ("libmemcached", "", "libmemcached"),
    ("libc.so", r"malloc|free$|calloc|realloc|_int_|_mid_|unlink_chunk|tcache|sysmalloc|systrim", "`malloc`, `free`"),
    (".so", "", "copying and the rest of libc"),
    ("", r"swift_(begin|end)Access|.*swift::runtime::(AccessSet|SwiftTLS)",
     "Swift's checks for overlapping access to a class's variables"),
    ("", r"\$s.*(WO[a-z0-9_]+|w[a-z][a-z])(Tm)?$", "Swift: copying and destroying values"),
    ("", r"CCryptoBoringSSL|\$s.*6Crypto", "the key's slot (MD5, swift-crypto)"),
    ("", r"\$s\d+NIO", "swift-nio"),
    ("", r"\$ss|\$sS", "Swift's library"),
    ("", r"\$s", "the store"),
    ("", r".*swift", "Swift's runtime: counting references, making and freeing objects, casts"),
    ("", "", "the rest"),
)


def read(path):
    """Counters of instructions by (object, function), without those of the functions that they call, and of calls by function."""
    costs, calls, names = Counter(), Counter(), {}
    place = {"ob": "", "fn": "", "cob": "", "cfn": ""}
    is_call = False
    for line in path.read_text(errors="replace").splitlines():
        if line and (line[0].isdigit() or line[0] in "+-*"):
            # (Behind a call stands what it took, which is not the caller's own.)
            if not is_call:
                costs[place["ob"], place["fn"]] += int(line.split()[1])
            is_call = False
            continue
        key, _, text = line.partition("=")
        if key == "calls":
            calls[place["cfn"]] += int(text.split()[0])
            is_call = True
        elif key in place:
            # A name stands behind its number the first time, and the number alone from then on.
            number, _, name = text.partition(" ")
            place[key] = names.setdefault((key[-2:], number), name)
    return costs, calls


def spent_on(costs):
    """A Counter of the same instructions by the words of SPENT_ON."""
    sums = Counter()
    for (holder, function), cost in costs.items():
        name = Path(holder).name
        sums[next(words for part, symbol, words in SPENT_ON if part in name and re.match(symbol, function))] += cost
    return sums
