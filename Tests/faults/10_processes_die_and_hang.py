# SPDX-License-Identifier: Apache-2.0
"""Workers, daemons and whole hosts die or hang under load: nothing acknowledged is lost, every key stays linearizable, others are served, all are well again."""

LIMIT_SECONDS = 240
FULL_LIMIT_SECONDS = 900

KINDS = ["kill a worker", "stop a worker", "a worker dies at a write", "kill all workers", "kill the daemon", "stop memcached",
         "pause the host"]


def run(context):
    context.run_faults(KINDS, context.short_or_full(7, 21))
