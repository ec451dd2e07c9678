# SPDX-License-Identifier: Apache-2.0
"""One host's clock is seconds or an hour ahead or behind, and jumps back: no acknowledged write is lost, every key stays linearizable."""

LIMIT_SECONDS = 240
FULL_LIMIT_SECONDS = 900


def run(context):
    context.run_faults(["wrong clock"], context.short_or_full(3, 12), ring_changes=0.3)
