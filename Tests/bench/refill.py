#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A host loses its memory and all its workers under load: what clients see of it, and how soon it holds everything again.

    refill.py [--pairs N] [--rate N] [--runs N] [--workers N]

Three nodes with three replicas behind HAProxy, on loopback. Pairs of 100 bytes are stored; then writes come at a steady
rate, whatever the answers (an open loop), each to another of these keys. The memcached of one host and all its workers are
killed (-9), and memcached is started again, empty. Once it is refilled every key is read: what was acknowledged, and is not
there, is lost, and fails the run; so do client errors for longer than a second.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "end_to_end")]
sys.dont_write_bytecode = True

from fill import numbers  # noqa: E402
from harness import client as http  # noqa: E402
from harness.cluster import Cluster  # noqa: E402
from harness.expectations import eventually  # noqa: E402
from harness.processes import end_all, kill, processor_seconds  # noqa: E402
from open_loop import OpenLoop  # noqa: E402

POSITIONS = {3000: 1, 6000: 2, 9000: 3}
SECONDS_BEFORE, SECONDS_AFTER = 3, 3
MOST_SECONDS_OF_ERRORS = 1.0
REFILLED_WITHIN_SECONDS = 120


def main():
    options = parse_arguments()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1_000_000)
    print(f"{options.pairs} pairs, {options.rate:g} writes/s, {options.workers} workers a node, seed {seed}", flush=True)
    good = 0
    try:
        for number in range(options.runs):
            good += run(options, random.Random(seed + number), f"refill.{number + 1}")
    finally:
        end_all()
    print(f"{good} of {options.runs} runs: nothing acknowledged is lost, errors for {MOST_SECONDS_OF_ERRORS:g} s at most")
    return 0 if good == options.runs else 1


def run(options, chooser, name):
    with tempfile.TemporaryDirectory(prefix="kvserver-refill-") as logs, \
            Cluster(name, logs, nodes=3, positions=POSITIONS, workers=options.workers, replicas=3, memory_megabytes=512) as cluster:
        subprocess.run([sys.executable, HERE / "fill.py", cluster.node(1).address, str(options.pairs)], check=True,
                       stdout=subprocess.DEVNULL)
        keys = [b"move-%d" % number for number in numbers(options.pairs, 0, 9999)]
        order = list(range(len(keys)))
        chooser.shuffle(order)

        def request_of(number):
            return http.store_request(keys[order[number]], new_value(number))
        loop = OpenLoop(cluster.proxy.address, options.rate, request_of, len(keys))
        time.sleep(SECONDS_BEFORE)
        victim = cluster.node(chooser.randint(1, 3))
        began = lose(victim)
        refilled, busy, processors = wait_until_refilled(cluster, victim)
        time.sleep(SECONDS_AFTER)
        sent = loop.stop()
        cluster.accept_present_workers()
        lost = lost_writes(cluster, keys, order, sent)
        held = int(victim.memcached.command(b"stats", end=b"END\r\n").split(b"STAT curr_items ")[1].split()[0])
        return report(options, sent, began, refilled, busy, processors, lost, held)


def new_value(number):
    return b"new %d " % number + b"n" * 88


def lose(node):
    """All of the host's memory is gone, and its workers are; returns when."""
    began = time.monotonic()
    node.memcached.process.kill()
    for worker in node.workers():
        kill(worker)
    node.memcached.start()
    return began


def wait_until_refilled(cluster, node):
    """When it was, how long pairs were on their way (the rest is the wait before anybody is asked), and how many seconds of
    a processor the nodes and their memcacheds took meanwhile."""
    seen = {}

    def is_refilled():
        status = node.status()
        now = time.monotonic()
        if status["isRecovering"]:
            seen.setdefault("recovering", (now, used_by(cluster)))
            if status["recovery"] and any(source["state"] != "silent" for source in status["recovery"]["sources"]):
                seen.setdefault("asked", (now, used_by(cluster)))
            return False
        return "recovering" in seen
    eventually(REFILLED_WITHIN_SECONDS, f"{node.name} is refilled", is_refilled, interval=0.02)
    now = time.monotonic()
    asked, processors = seen.get("asked", seen["recovering"])
    return now, now - asked, used_by(cluster) - processors


def used_by(cluster):
    """Of all living workers and memcacheds so far."""
    return sum(processor_seconds(pid) for node in cluster.nodes for pid in [*node.workers(), node.memcached.process.pid])


def lost_writes(cluster, keys, order, sent):
    """Keys that have neither their newest acknowledged value nor one that may have been stored since."""
    outcomes = {order[request.number]: request for request in sent}
    requests = [http.read_request(key, "/route") for key in keys]
    lost = []
    for index, _, _, answer in http.exchange_many(cluster.addresses, requests):
        written = outcomes.get(index)
        new = written is not None and answer.body == new_value(written.number)
        old = answer.body.startswith(b"m" * 92)
        acceptable = new if written and written.outcome == http.OK else new or old if written else old
        if not acceptable:
            lost.append((keys[index], written, answer))
    return lost


def report(options, sent, began, refilled, busy, processors, lost, held):
    failed = sorted((request for request in sent if request.outcome != http.OK), key=lambda request: request.due)
    span = failed[-1].ended - began if failed else 0.0
    slow = sorted(request.ended - request.due for request in sent if request.outcome == http.OK)
    unknown = sum(request.outcome == http.UNKNOWN for request in failed)
    print(f"  {len(sent)} writes, {len(failed)} failed ({unknown} unknown), the last of them {span:.2f} s after the loss; {len(lost)} "
          f"acknowledged lost; whole again after {refilled - began:.2f} s, {options.pairs / busy:.0f} pairs/s once the others were asked ({processors:.1f} s of a "
          f"processor in {busy:.1f} s); it holds {held} items; of the writes, a hundredth took over {slow[len(slow) * 99 // 100] * 1000:.0f} ms, the slowest "
          f"{slow[-1] * 1000:.0f} ms", flush=True)
    for request in failed[:3]:
        print(f"    {request.due - began:.3f} s after the loss: {request.what}")
    for loss in lost[:3]:
        print(f"    LOST {loss}")
    return not lost and span <= MOST_SECONDS_OF_ERRORS


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=300_000)
    parser.add_argument("--rate", type=float, default=2000, help="writes a second (2000)")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="of each node (1)")
    parser.add_argument("--seed", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
