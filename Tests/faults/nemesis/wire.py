#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Carries packets between two network devices, each after a while: `wire.py DEVICE DEVICE MILLISECONDS JITTER`.

The milliseconds are those of a round trip: half of them each way. Jitter, in per cent of that, lets packets overtake
each other.
"""

import heapq
import random
import select
import socket
import sys
import time

_ALL_PROTOCOLS = 3
_OUTGOING = 4
#: A wire that can't keep pace loses packets, as wires do.
_LONGEST_QUEUE = 20_000


def main():
    names, milliseconds, jitter = sys.argv[1:3], float(sys.argv[3]), float(sys.argv[4])
    ends = [open_end(name) for name in names]
    poll = select.epoll()
    for end in ends:
        poll.register(end.fileno(), select.EPOLLIN)
    by_descriptor = {ends[0].fileno(): (ends[0], ends[1]), ends[1].fileno(): (ends[1], ends[0])}
    waiting, number, chooser = [], 0, random.Random(1)
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, there, packet = heapq.heappop(waiting)
            try:
                there.send(packet)
            except OSError:
                pass
        pause = max(0.0, waiting[0][0] - now) if waiting else 1.0
        for descriptor, _ in poll.poll(pause):
            here, there = by_descriptor[descriptor]
            for packet in arrived(here):
                number += 1
                if len(waiting) < _LONGEST_QUEUE:
                    late = milliseconds / 2000 * (1 + chooser.random() * jitter / 100)
                    heapq.heappush(waiting, (time.monotonic() + late, number, there, packet))


def open_end(name):
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
    end.bind((name, _ALL_PROTOCOLS))
    end.setblocking(False)
    return end


def arrived(end):
    """What has arrived there, but not what was sent from there."""
    for _ in range(64):
        try:
            packet, address = end.recvfrom(65536)
        except BlockingIOError:
            return
        except OSError:
            return
        if address[2] != _OUTGOING:
            yield packet


if __name__ == "__main__":
    main()
