# SPDX-License-Identifier: Apache-2.0
"""HAProxy is reloaded, and killed, while clients go through it and workers die behind it: nothing acknowledged is lost, every key stays linearizable, nodes asked directly serve on."""

LIMIT_SECONDS = 240
FULL_LIMIT_SECONDS = 900

KINDS = ["reload the balancer", "kill the balancer", "kill all workers"]


def run(context):
    context.run_faults(KINDS, context.short_or_full(3, 16))
