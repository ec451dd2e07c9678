# SPDX-License-Identifier: Apache-2.0
"""All faults in a row, some of them in the middle of a ring change: the same promises."""

from nemesis.faults import FAULTS

LIMIT_SECONDS = 300
FULL_LIMIT_SECONDS = 900


def run(context):
    context.run_faults(list(FAULTS), context.short_or_full(6, 10), ring_changes=0.3)
