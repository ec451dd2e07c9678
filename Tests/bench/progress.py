#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Watches a node's /status until a ring change has come and gone; prints how fast each of its steps was.

progress.py ADDRESS:PORT SECONDS
"""

import json
import sys
import time
import urllib.request


def main():
    address, end = sys.argv[1], time.monotonic() + float(sys.argv[2])
    best = {}
    began = {}
    seen = False
    while time.monotonic() < end:
        now = time.monotonic()
        try:
            with urllib.request.urlopen(f"http://{address}/status", timeout=5) as answer:
                change = json.load(answer)["transition"]
        except OSError:
            change = None if not seen else {}
        if change is None and seen:
            break
        if change:
            seen = True
            began.setdefault(change["step"], now)
            for job in change["progress"]:
                best[change["step"], job["node"]] = job
        time.sleep(0.1)
    steps = sorted(began, key=began.get)
    ends = [began[step] for step in steps[1:]] + [time.monotonic()]
    for step, step_end in zip(steps, ends):
        jobs = "; ".join(f"{node} had done {job['pairsDone']} pairs in {job['seconds']:.1f} s"
                         for (at, node), job in sorted(best.items()) if at == step and job["pairsDone"])
        print(f"    {step}: {step_end - began[step]:.1f} s" + (f"; last seen: {jobs}" if jobs else ""))


if __name__ == "__main__":
    main()
