#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What replication costs: reads and writes of a cluster with three replicas beside those of one with a single one.

    replicas.py [--seconds N] [--rounds N]

Two clusters of three nodes with a worker each, on loopback, are measured in turn, all requests through one node, so that
both stand in the same weather; medians are printed, and the ratios. Takes wrk.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "end_to_end"))
sys.dont_write_bytecode = True

from harness.cluster import Cluster  # noqa: E402
from harness.processes import end_all  # noqa: E402
from harness.workload import store_many  # noqa: E402

POSITIONS = {2000: 1, 5000: 2, 8000: 3}
CONNECTIONS, KEYS = 32, 10_000
#: Of one replica's, what three have to reach, with sloppy requests.
WANTED = {"GET": 0.45, "POST": 0.3}


def main():
    options = parse_arguments()
    rates = {}
    try:
        with tempfile.TemporaryDirectory(prefix="kvserver-bench-") as logs, ExitStack() as stack:
            clusters = {replicas: stack.enter_context(Cluster(f"replicas.{replicas}", logs, positions=POSITIONS, proxy=False,
                                                              workers=1, replicas=replicas)) for replicas in (1, 3)}
            for cluster in clusters.values():
                store_many(cluster.addresses, [f"bench-{number}" for number in range(KEYS)], "fill")
            for _ in range(options.rounds):
                for method in WANTED:
                    for replicas, cluster in clusters.items():
                        rates.setdefault((method, replicas, "sloppy"), []).append(load(cluster, method, options.seconds))
                    rates.setdefault((method, 3, "strict"), []).append(load(clusters[3], method, options.seconds, "strict"))
    finally:
        end_all()
    medians = {what: statistics.median(found) for what, found in rates.items()}
    print(f"three nodes with a worker each, {CONNECTIONS} connections to one of them, {KEYS} keys, 100-byte values; medians of "
          f"{options.rounds} rounds of {options.seconds} s")
    for method, wanted in WANTED.items():
        one = medians[method, 1, "sloppy"]
        for consistency in ("sloppy", "strict"):
            three = medians[method, 3, consistency]
            of_wanted = f" ({wanted} wanted)" if consistency == "sloppy" else ""
            print(f"  {method} {consistency}: one replica {one:.0f}/s, three {three:.0f}/s: {three / one:.2f}{of_wanted}")
    return 0


def load(cluster, method, seconds, consistency=None):
    """Requests a second; fails if any was not answered 200."""
    arguments = [method, str(KEYS)] + ([f"query=consistency={consistency}"] if consistency else [])
    ran = subprocess.run(["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", f"{seconds}s", "-s", HERE / "keys.lua",
                          f"http://{cluster.node(1).address}", "--", *arguments], capture_output=True, text=True, check=True)
    if re.search("Non-2xx|Socket errors", ran.stdout):
        sys.exit(f"replicas.py: not every request was answered 200:\n{ran.stdout}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", ran.stdout).group(1))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement (5)")
    parser.add_argument("--rounds", type=int, default=5, help="of all measurements (5)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
