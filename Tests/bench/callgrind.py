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
    ("", r"\$s6Crypto|CCryptoBoringSSL|\$s.*6Crypto", "the key's slot (MD5, swift-crypto)"),
    ("", r"\$s\d+NIO", "swift-nio"),
    ("", r"\$ss|\$sS", "Swift's library"),
    ("", r"\$s", "the store"),
    ("", r".*swift", "Swift's runtime: counting references, making and freeing objects, casts"),
    ("", "", "the rest"),
)


def self_costs(path):
    """A Counter of instructions by (object, function), without those of the functions that they call."""
    costs, names, place = Counter(), {}, {"ob": "", "fn": ""}
    is_call = False
    for line in path.read_text(errors="replace").splitlines():
        if line and (line[0].isdigit() or line[0] in "+-*"):
            if not is_call:
                costs[place["ob"], place["fn"]] += int(line.split()[1])
            is_call = False
        elif line.startswith("calls="):
            is_call = True
        elif line[:3] in ("ob=", "fn=") or line[:4] in ("cob=", "cfn="):
            key, _, text = line.partition("=")
            number, _, name = text.partition(" ")
            kind = key[-2:]
            if name:
                names[kind, number] = name
            if key == kind:
                place[kind] = names.get((kind, number), text)
    return costs


def spent_on(costs):
    """A Counter of the same instructions by the words of SPENT_ON."""
    sums = Counter()
    for (holder, function), cost in costs.items():
        sums[next(words for part, symbol, words in SPENT_ON if part in holder and re.match(symbol, function))] += cost
    return sums


def calls_of(function, path):
    """How often it was called."""
    number, found, calls = None, False, 0
    for line in path.read_text(errors="replace").splitlines():
        if line.startswith("cfn="):
            name = re.match(r"cfn=(\([0-9]+\))( .*)?$", line)
            if name and name.group(2) == f" {function}":
                number = name.group(1)
            found = name is not None and name.group(1) == number
        elif line.startswith("fn="):
            name = re.match(r"fn=(\([0-9]+\)) (.*)$", line)
            if name and name.group(2) == function:
                number = name.group(1)
        elif found and line.startswith("calls="):
            calls += int(line[len("calls="):].split()[0])
    return calls
