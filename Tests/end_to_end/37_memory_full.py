# SPDX-License-Identifier: Apache-2.0
"""When memory is full, writes get 507 and the old value stays; reads go on, and a ring change can still bring relief."""

from harness.client import exchange_many, read_request, store_request
from harness.expectations import expect, expect_equal
from harness.placement import keys_owned_by

FULL_LIMIT_SECONDS = 900


def value_of(key, number, length):
    return f"{key}|{number}|".encode().ljust(length, b"v")


def run(context):
    megabytes = context.short_or_full(16, 128)
    with context.cluster(memory_megabytes=megabytes, hash_power=16) as cluster:
        full = cluster.node(1)
        keys = keys_owned_by(cluster.first_ring, full.address, megabytes * 200)
        wanted, refused = {}, 0
        for key, answer in store_all(cluster, [(key, value_of(key, 0, 8000)) for key in keys]):
            if answer.status == 200:
                wanted[key] = value_of(key, 0, 8000)
            else:
                refused += is_full(key, answer)
        expect(refused > 0, f"{len(keys)} values of 8 KB fit into {megabytes} MB")
        expect(len(wanted) > megabytes * 50, f"only {len(wanted)} values of 8 KB fit into {megabytes} MB")
        all_as_wanted(cluster, wanted, keys)

        overwrites = {200: 0, 507: 0}
        for number, length in ((1, 8000), (2, 16_000), (3, 100)):
            for key, answer in store_all(cluster, [(key, value_of(key, number, length)) for key in wanted]):
                if answer.status == 200:
                    wanted[key] = value_of(key, number, length)
                else:
                    is_full(key, answer)
                overwrites[answer.status] += 1
            all_as_wanted(cluster, wanted, keys)
        expect(overwrites[507] > 0, "no overwrite was refused, though memory is full")
        expect_equal(cluster.wait_for_one_ring(), cluster.first_ring, "the ring with full memory")
        expect_equal(full.get("/health/ready").status, 200, "readiness with full memory: reads are served")

        relief = cluster.node(3).address
        answer = cluster.node(2).get(f"/add_node/1500/{relief}", timeout=60)
        expect_equal((answer.status, answer.body), (200, b"OK"), "adding a node beside the full one")
        expect_equal(cluster.wait_for_one_ring(), cluster.first_ring.adding(1500, relief), "the ring after that")
        all_as_wanted(cluster, wanted, keys)
        for key in list(wanted)[:50]:
            expect_equal(cluster.proxy.store(key, value_of(key, 4, 8000)).status, 200, f"storing {key} once there is room")

        expect_equal(full.get("/clear_cache", timeout=30).status, 200, "clearing the full node")
        key = keys_owned_by(cluster.first_ring.adding(1500, relief), full.address, 1, "after")[0]
        expect_equal(cluster.proxy.store(key, "x" * 8000).status, 200, "storing after the node was cleared")
    context.note(f"{len(wanted)} values fitted, {refused} new ones refused; of the overwrites {overwrites[200]} stored, {overwrites[507]} refused")


def store_all(cluster, pairs):
    requests = [store_request(key, value) for key, value in pairs]
    for index, _, _, answer in exchange_many([cluster.node(1).address, cluster.node(3).address], requests, depth=16):
        yield pairs[index][0], answer


def is_full(key, answer):
    expect_equal((answer.status, answer.header("X-KV-Outcome")), (507, "not-applied"), f"storing {key} in full memory")
    return 1


def all_as_wanted(cluster, wanted, keys):
    requests = [read_request(key) for key in keys]
    for index, _, _, answer in exchange_many([cluster.proxy.address, cluster.node(2).address], requests, depth=16):
        value = wanted.get(keys[index])
        found = answer.body if answer.status == 200 else None
        expect(found == value and answer.status in (200, 404),
               f"{keys[index]}: wanted {value and value[:40]}, found {answer.status} {answer.body[:40]}")
