# SPDX-License-Identifier: Apache-2.0
"""Memory is full of small values and nine in ten of them are deleted: all deletes are taken, what stays is unharmed, and within a minute
large values are taken in their place."""

import time

from harness.client import exchange_many, percent_encode, read_request, request_bytes, store_request
from harness.expectations import expect, expect_equal

LIMIT_SECONDS = 180
FULL_LIMIT_SECONDS = 1800

#: Of the small values.
LENGTHS = (1000,)
LARGE_BYTES = 10 << 10
WITHIN_SECONDS = 60


def run(context):
    megabytes = context.short_or_full(12, 256)
    for length in LENGTHS:
        cluster = context.cluster(nodes=1, positions={5000: 1}, replicas=1, workers=1, proxy=False, memory_megabytes=megabytes,
                                  hash_power=16, settings={"snapshotSeconds": 0})
        node = cluster.node(1)
        # So long memcached waits before it takes a page from values that were deleted; by itself, and in the long form, 30 s.
        node.memcached.options = context.short_or_full(["slab_automove_window=5"], [])
        with cluster:
            keys = fill(node, length)
            gone, kept = [key for number, key in enumerate(keys) if number % 10], keys[::10]
            seconds = delete_all(node, gone)
            freed = len(gone) * length
            # A third of what was freed: the rest is for tombstones, headers, and pages that are half full.
            wanted = freed // 3 // LARGE_BYTES
            large, waited = store_large(node, wanted)
            expect(large == wanted, f"of {wanted} values of 10 KiB {large} were taken within {WITHIN_SECONDS} s, after {len(gone)} of "
                                    f"{len(keys)} values of {length} bytes had been deleted")
            for key, answer in all_answers(node, kept, read_request):
                expect_equal((answer.status, len(answer.body)), (200, length), f"{key}, which was not deleted")
            for key, answer in all_answers(node, gone[:2000], read_request):
                expect_equal(answer.status, 404, f"{key}, which was deleted")
            context.note(f"{length} bytes: {len(keys)} values, {len(gone)} deleted within {seconds:.0f} s, then {large} of 10 KiB within "
                         f"{waited:.0f} s")


def all_answers(node, keys, request):
    for index, _, _, answer in exchange_many([node.address], [request(key) for key in keys]):
        yield keys[index], answer


def fill(node, length):
    """Until something is refused; returns the keys of what was taken."""
    value, taken, number = b"v" * length, [], 0
    while True:
        batch = [f"key{number + index}" for index in range(1000)]
        number += len(batch)
        refused = 0
        for key, answer in all_answers(node, batch, lambda key: store_request(key, value)):
            expect(answer.status in (200, 507), f"storing {key}: {answer}")
            if answer.status == 200:
                taken.append(key)
            else:
                refused += 1
        if refused:
            return taken


def delete_all(node, keys):
    """Again, as long as some are refused; returns how long it took."""
    began, left = time.monotonic(), keys
    while True:
        refused = []
        for key, answer in all_answers(node, left, lambda key: request_bytes("DELETE", b"/route?key=" + percent_encode(key))):
            expect(answer.status in (200, 507), f"deleting {key}: {answer}")
            if answer.status != 200:
                refused.append(key)
        seconds = time.monotonic() - began
        if not refused:
            return seconds
        expect(seconds < WITHIN_SECONDS, f"{len(refused)} of {len(keys)} deletes are refused (507) still after {seconds:.0f} s, for want of "
                                         "room for their tombstones")
        left = refused
        time.sleep(2)


def store_large(node, wanted):
    """Returns how many were taken in time, and how long that took."""
    began, taken = time.monotonic(), 0
    while taken < wanted and time.monotonic() - began < WITHIN_SECONDS:
        answer = node.store(f"large{taken}", b"L" * LARGE_BYTES)
        expect(answer.status in (200, 507), f"storing a large value: {answer}")
        if answer.status == 200:
            taken += 1
        else:
            time.sleep(0.5)
    return taken, time.monotonic() - began
