# SPDX-License-Identifier: Apache-2.0
"""kvctl lists a cluster's keys, backs it up and restores it into another one, while clients write; nothing newer is overwritten."""

import json

from harness.client import exchange_many, form_request, store_request
from harness.expectations import eventually, expect, expect_equal
from harness.kvctl import Kvctl

KEYS = [f"user/{number}" for number in range(3000)] + ["a b", "ü", "50 %", "x" * 1500]


def fill(cluster, requests):
    for _, _, _, answer in exchange_many(cluster.addresses, requests):
        expect_equal(answer.status, 200, "storing a pair")


def run(context):
    with context.cluster(replicas=None) as cluster:
        kvctl = Kvctl(cluster.proxy.address)
        file = context_file(cluster)
        fill(cluster, [store_request(key, f"value of {key}") for key in KEYS])
        fill(cluster, [form_request("/route", {"key": "soon", "val": "gone", "ttl": "3600"})])
        kvctl("put", "typed", "<svg/>", "--content-type", "image/svg+xml").expect()
        kvctl("put", "deleted", "x").expect()
        kvctl("delete", "deleted").expect()
        expect_equal(sorted(kvctl("list").expect().lines), sorted([*KEYS, "soon", "typed"]), "the keys")
        expect_equal(len(kvctl("list", "--prefix", "user/29").expect().lines), 111, "keys with a prefix")
        expect_equal(len(kvctl("list", "--limit", "17").expect().lines), 17, "a limit")
        entry = json.loads(kvctl("list", "--prefix", "typed", "--json").expect().output)
        expect_equal((entry["key"], entry["bytes"], entry["contentType"]), ("typed", 6, "image/svg+xml"), "a key as JSON")
        version = kvctl("get", "typed", "--json").expect().json["version"]
        expect_equal(entry["version"], version, "its version")

        kvctl("backup", file).expect(says=f"{len(KEYS) + 2} pairs")
        kvctl("verify", file).expect(says="whole")
        # Everything is there still, so nothing is stored; what is newer, or was deleted since, stays.
        kvctl("put", "user/1", "newer").expect()
        kvctl("delete", "user/2").expect()
        report = kvctl("restore", file, "--json").expect().json
        expect_equal((report["stored"], report["kept"]), (0, len(KEYS) + 2), "restored where all is there already")
        expect_equal(cluster.proxy.read("user/1").text, "newer", "what is newer")
        expect_equal(cluster.proxy.read("user/2").status, 404, "what was deleted since")
        content = file.read_bytes()
    with context.cluster(replicas=None, positions={1000: 1, 4000: 2, 7000: 3}) as other:
        kvctl = Kvctl(other.proxy.address)
        file = context_file(other)
        file.write_bytes(content)
        report = kvctl("restore", file, "--json").expect().json
        expect_equal((report["stored"], report["kept"]), (len(KEYS) + 2, 0), "restored into another cluster")
        for key in KEYS:
            expect_equal(other.proxy.read(key).text, f"value of {key}", f"{key} after the restore")
        typed = kvctl("get", "typed", "--json").expect().json
        expect_equal((typed["version"], typed["contentType"], typed["value"]), (version, "image/svg+xml", "<svg/>"), "a pair with its version")
        eventually(10, "all keys are listed", lambda: len(kvctl("list").expect().lines) == len(KEYS) + 2)
        entry = json.loads(kvctl("list", "--prefix", "soon", "--json").expect().output)
        expect(entry.get("expires"), f"the time to live is lost: {entry}")


def context_file(cluster):
    return cluster.directory / "pairs.kvbackup"
