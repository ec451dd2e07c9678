#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the names of requests cost: GETs without a name, with an id, with a trace, at the node that has the pairs and at another one;
and, as `token`, what it costs to look at a data token.

    Tests/bench/names.py [--rounds 5] [--seconds 3] [--names none,id,both,token] [--method GET] [BINARY ...]

Two nodes with one worker each. Prints requests a second and, which tells more on a machine that does other things as well, the processor
time of both nodes for each request; medians of the rounds, in which all variants take turns.
"""

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

BENCH = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCH.parent / "end_to_end"))

from harness.cluster import Cluster, find_server_binary  # noqa: E402
from harness.placement import keys_owned_by  # noqa: E402
from harness.processes import processor_seconds  # noqa: E402
from harness.workload import store_many  # noqa: E402


def used_by(cluster):
    """Of the processor, by all workers so far, in seconds."""
    return sum(processor_seconds(worker) for node in cluster.nodes for worker in node.workers())


def ask_for_a_token(cluster):
    """From now on; what is measured carries it."""
    files = cluster.write_tokens({"data": "t" * 64, "peer": "p" * 64})
    for node in cluster.nodes:
        workers = node.workers()
        node.change_settings(**files)
        node.supervisor.signal(signal.SIGHUP)
        node.wait_until_replaced(workers, 20)


def measure(cluster, url, method, keys_file, names, options):
    before = used_by(cluster)
    output = subprocess.run(
        ["wrk", "-t", "1", "-c", str(options.connections), "-d", f"{options.seconds}s", "-s", BENCH / "names.lua", url, "--",
         method, keys_file, names], check=True, capture_output=True, text=True).stdout
    used = used_by(cluster) - before
    if re.search("Non-2xx|Socket errors", output):
        sys.exit(f"not every request was answered 200:\n{output}")
    requests = int(re.search(r"(\d+) requests in", output).group(1))
    rate = float(re.search(r"Requests/sec: *([0-9.]+)", output).group(1))
    return rate, used / requests * 1e6


def file_of(directory, binary, is_locked, place):
    return Path(directory) / f"{Path(binary).name}.{place}{'.token' if is_locked else ''}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--method", default="GET")
    parser.add_argument("--names", default="none,id,both,sampled")
    parser.add_argument("binaries", nargs="*")
    options = parser.parse_args()
    clusters, found = {}, {}
    with tempfile.TemporaryDirectory() as directory:
        try:
            for binary in options.binaries or [find_server_binary()]:
                os.environ["KVSERVER_BINARY"] = binary
                for is_locked in {names == "token" for names in options.names.split(",")}:
                    cluster = clusters[binary, is_locked] = Cluster(Path(binary).name, directory, nodes=2, workers=1, proxy=False)
                    cluster.start()
                    for place, node in (("here", 1), ("elsewhere", 2)):
                        keys = keys_owned_by(cluster.first_ring, cluster.node(node).address, 2000, "bench-")
                        store_many(cluster.addresses, keys, "v" * 100)
                        file_of(directory, binary, is_locked, place).write_text("".join(f"{key}\n" for key in keys))
                    if is_locked:
                        ask_for_a_token(cluster)
            for number in range(options.rounds + 1):
                for where in ("here", "elsewhere"):
                    for names in options.names.split(","):
                        for (binary, is_locked), cluster in clusters.items():
                            if is_locked != (names == "token"):
                                continue
                            file = file_of(directory, binary, is_locked, where)
                            figures = measure(cluster, f"http://{cluster.node(1).address}", options.method, file, names, options)
                            if number > 0:  # (the first round warms up)
                                found.setdefault((where, names, binary), []).append(figures)
        finally:
            for cluster in clusters.values():
                cluster.end()
    for (where, names, binary), figures in found.items():
        rates, costs = zip(*figures)
        print(f"{options.method} {where:9} {names:8} {Path(binary).name:16} {statistics.median(rates):8.0f}/s "
              f"{statistics.median(costs):6.2f} µs a request ({min(costs):.2f} to {max(costs):.2f})")


if __name__ == "__main__":
    main()
