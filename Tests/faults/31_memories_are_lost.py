# SPDX-License-Identifier: Apache-2.0
"""One host's memory is lost: with three copies, nothing acknowledged is. (Not for fewer copies.)"""

LIMIT_SECONDS = 240
FULL_LIMIT_SECONDS = 900

KINDS = ["empty memcached", "lose the host"]


def run(context):
    context.run_faults(KINDS, context.short_or_full(4, 16))
