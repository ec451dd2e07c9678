# SPDX-License-Identifier: Apache-2.0
"""A host's packets come 200 ms late, in another order, slowly, or one in twenty not at all: no answer is wrong."""

LIMIT_SECONDS = 240
FULL_LIMIT_SECONDS = 900

KINDS = ["lose packets", "delay packets", "reorder packets", "slow link"]


def run(context):
    context.run_faults(KINDS, context.short_or_full(4, 16))
