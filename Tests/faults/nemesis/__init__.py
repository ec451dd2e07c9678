# SPDX-License-Identifier: Apache-2.0
"""What the fault tests stand on, beside the end-to-end tests' harness: hosts with a network each, faults, schedules, checks."""
