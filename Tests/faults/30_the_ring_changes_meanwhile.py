# SPDX-License-Identifier: Apache-2.0
"""The standby joins and leaves while a process dies or a network fails: one ring in the end, nothing lost, every key linearizable."""

LIMIT_SECONDS = 420
FULL_LIMIT_SECONDS = 1800

KINDS = ["kill a worker", "stop a worker", "kill all workers", "kill the daemon", "stop memcached", "link down", "cut off silently",
         "cut one way", "cut between two", "lose packets", "delay packets"]


def run(context):
    context.run_faults(KINDS, context.short_or_full(6, 22), ring_changes=1.0)
