# SPDX-License-Identifier: Apache-2.0
"""A host is cut off from all, from some or in one direction: no answer is wrong, others are served, all are well again when it is back."""

LIMIT_SECONDS = 240
FULL_LIMIT_SECONDS = 900

KINDS = ["link down", "cut off silently", "cut off from all hosts", "cut one way", "cut between two"]


def run(context):
    context.run_faults(KINDS, context.short_or_full(5, 20))
