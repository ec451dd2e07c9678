# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests stand on: real processes, a fast client, histories and their checkers."""
