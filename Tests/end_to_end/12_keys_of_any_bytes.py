# SPDX-License-Identifier: Apache-2.0
"""Keys of any bytes are kept apart, and none of them reaches memcached's protocol or the store's own entries."""

import re

from harness.client import exchange_many, read_request, store_request
from harness.expectations import expect, expect_equal

STORED_NAME = re.compile(rb"d\d{4}:[!-~]+")

HOSTILE = [
    b"a\r\nset injected 0 0 1\r\ny", b"flush_all", b"flush_all\r\n", b"x\r\nflush_all\r\n", b"get a\r\n", b" ", b"  ", b"\t", b"\0", b"a\0b",
    b"ring", b"epoch", b"generation", b"d0000:a", b"d2184:roof", b"lease", b"stats", b"version\r\n", b"shutdown",
    b"lru_crawler metadump hash", b"a b", b"a+b", b"a%20b", b"a%2520b", b"%", b"%%", b"%0d%0a", b"&", b"=", b"a&val=b", b"a=b", b";", b"#", b"?",
    b"/", b"//", b"../../etc/passwd", b"\\", b'"', b"'", b"{}", b"\xff", b"\xfe\xff", b"\xc3\x28", "\u2603".encode(), "\U0001f600".encode(),
    b"e\xcc\x81", b"\xc3\xa9", b"A", b"a", b"a.", b"a ", b" a", b"N/A", b"OK", b"VALUE a 0 1\r\nx\r\nEND\r\n", b"CLIENT_ERROR", b"me a",
    b"<script>", b"${jndi:ldap://x}", b"key", b"val", b"-1", b"0", b"null",
]


def run(context):
    random = context.random
    keys = HOSTILE + [bytes([byte]) for byte in range(256)] + [bytes([byte]) * 2 for byte in range(256)]
    keys += [b"k" * length for length in (239, 240, 241, 249, 250, 251, 1000, 4096)]
    keys += [b"\n" * length for length in (79, 80, 81, 82, 250, 4096)]
    keys += [random.randbytes(random.randint(1, 300)) for _ in range(context.short_or_full(1000, 20_000))]
    keys = list(dict.fromkeys(keys))
    with context.cluster() as cluster:
        witnesses = {node.name: sorted(node.memcached.stored_names()) for node in cluster.nodes}
        for address in (cluster.proxy.address, cluster.node(3).address):
            for key, answer in zip(keys, answers(address, [store_request(key, value_of(key, address)) for key in keys])):
                expect_equal((answer.status, answer.body), (200, b"OK"), f"storing under {key!r}")
            for key, answer in zip(keys, answers(address, [read_request(key) for key in keys])):
                expect(answer.status == 200 and answer.body == value_of(key, address), f"reading {key!r}: {answer}")
        expect_equal(cluster.wait_for_one_ring(), cluster.first_ring, "the ring after all that")
        expect_equal(sum(len(node.pairs()) for node in cluster.nodes), len(keys), "the number of pairs that the nodes list")
        for node in cluster.nodes:
            names = node.memcached.stored_names()
            pairs = [name for name in names if STORED_NAME.fullmatch(name)]
            others = sorted(set(names) - set(pairs))
            expect(b"injected" not in names, "a key reached memcached's protocol")
            expect(not [name for name in others if name.startswith(b"d")], f"{node.name}: an entry that looks like a pair and is none: {others}")
            expect(all(len(name) <= 250 for name in names), "a name longer than memcached allows")
            expect_equal(len(pairs), len(node.pairs()), f"entries in the memcached of {node.name} against the pairs that it lists")
            lost = set(witnesses[node.name]) - set(names)
            expect(not [name for name in lost if b"ring" in name], f"{node.name}: an entry of the store's own is gone: {lost}")
        context.note(f"{len(keys)} keys")


def value_of(key, address):
    return b"<" + key[:600] + b"> at " + address.encode()


def answers(address, requests):
    return [answer for _, _, _, answer in exchange_many([address], requests, depth=16)]
