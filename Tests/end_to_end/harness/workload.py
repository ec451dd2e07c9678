# SPDX-License-Identifier: Apache-2.0
"""Readers and writers in processes of their own, and pairs in bulk.

Every value carries its key and a number of its own (`key|client.sequence|xxxx`), so that an answer given to the wrong
request shows, and so that the checkers can tell every write from every other.
"""

import dataclasses
import errno
import multiprocessing
import os
import random
import select
import signal
import socket
import tempfile
import time
import traceback
from multiprocessing.sharedctypes import RawArray, RawValue
from typing import NamedTuple

from . import client as http
from .client import NO, OK, UNKNOWN
from .expectations import TestFailure, expect, shorten
from .history import FOREVER, READ, WRITE, History, Operation, read_operations, write_operations
from .processes import die_with_parent

_fork = multiprocessing.get_context("fork")


# Values


def value_for(key, writer, length=100):
    """The bytes that go over the wire for a write, and the short form that histories keep."""
    short = f"{key}|{writer}|"
    return short.encode().ljust(length, b"x"), short


def short_form(key, body):
    """The short form of a value that was read; a value of another key, or one that was cut, stays as it is, so that no
    checker will know it."""
    end = body.find(b"|", len(key) + 1)
    if end > 0 and body.startswith(key.encode() + b"|") and not body[end + 1:].strip(b"x"):
        return body[:end + 1].decode()
    return "corrupt:" + body[:200].decode("latin-1")


# Bulk


def store_many(addresses, keys, writer, length=100):
    """Stores a pair for each key, and returns the writes as operations. Any refusal is an error."""
    values = [value_for(key, f"{writer}.{number}", length) for number, key in enumerate(keys)]
    requests = [http.store_request(key, wire) for key, (wire, _) in zip(keys, values)]
    operations = [None] * len(keys)
    for index, called, returned, answer in http.exchange_many(addresses, requests):
        expect(answer.status == 200 and answer.body == b"OK", f"storing {keys[index]!r} in bulk: {answer}")
        operations[index] = Operation(writer, keys[index], WRITE, values[index][1], answer.version, called, returned, OK,
                                      addresses[0], answer.status)
    return operations


def read_many(addresses, keys, reader="final"):
    """Reads each key, and returns the reads as operations. Any answer other than a value or "not found" is an error."""
    requests = [http.read_request(key) for key in keys]
    operations = [None] * len(keys)
    for index, called, returned, answer in http.exchange_many(addresses, requests):
        value = value_of_read(keys[index], answer)
        operations[index] = Operation(reader, keys[index], READ, value, answer.version, called, returned, OK,
                                      addresses[0], answer.status)
    return operations


def value_of_read(key, answer):
    if answer.status == 200:
        return short_form(key, answer.body)
    if answer.status == 404 and answer.body == b"N/A":
        return None
    raise TestFailure(f"reading {key!r}: {answer}")


# Load


class Draw(NamedTuple):
    """An operation that a client is about to begin."""

    kind: str
    key: str
    value: str | None                   # in short form; None for a read, and for a delete
    request: bytes
    expected: str | None = None         # what a conditional write asks for


class ReadsAndWrites:
    """What clients do by default. Anything with these two methods can take its place as `LoadOptions.mix`."""

    def __init__(self, options):
        self._options = options

    def draw(self, chooser, name):
        """The next operation of a client; `name` is unique, for its value."""
        key = chooser.choice(self._options.keys)
        if chooser.random() < self._options.write_fraction:
            wire, value = value_for(key, name, self._options.value_bytes)
            return Draw(WRITE, key, value, http.store_request(key, wire))
        return Draw(READ, key, None, http.read_request(key))

    def learn(self, operation):
        """Hears of each operation once it has ended."""


@dataclasses.dataclass
class LoadOptions:
    addresses: list                     # clients are spread over them in turn
    keys: list
    connections: int = 16
    processes: int = 2
    write_fraction: float = 0.3
    value_bytes: int = 100
    rate: float | None = None           # operations a second, all clients together; None: as fast as answers come
    operation_deadline: float = 10.0    # seconds after which a client gives an operation up as unknown
    seed: int = 0
    name: str = "load"
    mix: object = None                  # what to do instead of ReadsAndWrites
    moves_on: bool = False              # after a failure, a client asks the next address, and comes back later


@dataclasses.dataclass
class LoadResult:
    history: History
    seconds: float
    failed_reads: list                  # operations whose answer was no value and no "not found"
    failed_writes: list                 # operations that were not acknowledged
    notes: list                         # what a client saw on each failure

    @property
    def operations(self):
        return len(self.history)

    def slowest_milliseconds(self, kind):
        """How long the slowest answered operation took."""
        durations = [o.returned - o.called for operations in self.history.by_key.values() for o in operations
                     if o.kind == kind and o.outcome == OK]
        return max(durations, default=0) / 1e6

    def summary(self):
        reads = self.history.count(READ, OK)
        writes = self.history.count(WRITE, OK)
        unknown = self.history.count(WRITE, UNKNOWN)
        return (f"{reads} reads and {writes} writes in {self.seconds:.1f} s, {len(self.failed_reads)} reads failed, "
                f"{len(self.failed_writes)} writes failed ({unknown} unknown), slowest read "
                f"{self.slowest_milliseconds(READ):.0f} ms, write {self.slowest_milliseconds(WRITE):.0f} ms")

    def expect_no_failed_read(self):
        expect(not self.failed_reads, f"{len(self.failed_reads)} reads failed, first "
               f"{', '.join(self.notes_of(READ)[:5])}; {self.summary()}")

    def expect_no_failed_request(self):
        self.expect_no_failed_read()
        expect(not self.failed_writes, f"{len(self.failed_writes)} writes failed, first "
               f"{', '.join(self.notes_of(WRITE)[:5])}; {self.summary()}")

    def notes_of(self, kind):
        return [note for noted_kind, note in self.notes if noted_kind == kind]


class Load:
    """Clients that read and write until told to stop. Use as a context manager, so that none outlives its test."""

    def __init__(self, options):
        self.options = options
        self._stop = RawValue("b", 0)
        self._answered = RawArray("Q", options.processes)
        self._directory = tempfile.TemporaryDirectory(prefix="kvserver-load-")
        self._started = time.monotonic()
        self._result = None
        self._processes = []
        for number in range(options.processes):
            process = _fork.Process(target=_run_load, args=(
                options, number, self._stop, self._answered, self._directory.name), daemon=True)
            process.start()
            self._processes.append(process)

    @property
    def answered(self):
        """Operations answered so far, by all clients."""
        return sum(self._answered)

    def wait_for_more(self, operations, seconds=30):
        """Waits until that many more operations have been answered: faults are placed by counts, not by time."""
        goal = self.answered + operations
        deadline = time.monotonic() + seconds
        while self.answered < goal:
            expect(all(process.is_alive() for process in self._processes), "a process of the load has ended")
            expect(time.monotonic() < deadline,
                   f"the load came to a standstill: {goal - self.answered} of {operations} operations missing after {seconds} s")
            time.sleep(0.005)

    def stop(self):
        """Stops the clients after their present operations, and returns what they did and saw."""
        if self._result is not None:
            return self._result
        self._stop.value = 1
        for process in self._processes:
            process.join(self.options.operation_deadline + 30)
        seconds = time.monotonic() - self._started
        failed = [process.exitcode for process in self._processes if process.exitcode != 0]
        expect(not failed, f"a process of the load ended with {failed}: {self._read_crashes()}")
        operations, notes = [], []
        for number in range(self.options.processes):
            operations += read_operations(f"{self._directory.name}/{number}.jsonl")
            with open(f"{self._directory.name}/{number}.notes", encoding="utf-8") as file:
                notes += [tuple(line.rstrip("\n").split(" ", 1)) for line in file]
        self._directory.cleanup()
        failed_operations = [operation for operation in operations if operation.outcome != OK]
        self._result = LoadResult(
            History(operations), seconds,
            [operation for operation in failed_operations if operation.kind == READ],
            [operation for operation in failed_operations if operation.is_write], notes)
        return self._result

    def _read_crashes(self):
        crashes = []
        for number in range(self.options.processes):
            path = f"{self._directory.name}/{number}.crash"
            if os.path.exists(path):
                with open(path, encoding="utf-8") as file:
                    crashes.append(file.read())
        return "\n".join(crashes) or "no trace"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop.value = 1
        for process in self._processes:
            process.join(1)
            if process.is_alive():
                process.kill()
                process.join()
        self._directory.cleanup()


def _run_load(options, number, stop, answered, directory):
    """The body of one process of the load. Leaves by os._exit: nothing of the parent's clean-up is its business."""
    code = 1
    try:
        die_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _LoadProcess(options, number, stop, answered, directory).run()
        code = 0
    except BaseException:
        with open(f"{directory}/{number}.crash", "w", encoding="utf-8") as file:
            traceback.print_exc(file=file)
    os._exit(code)


class _LoadProcess:
    """Many clients in one thread, each with one operation under way at a time."""

    def __init__(self, options, number, stop, answered, directory):
        self.options = options
        self.number = number
        self.random = random.Random(f"{options.seed}/{options.name}/{number}")
        self.operations = []
        self.notes = []
        self._stop = stop
        self._answered = answered
        self._directory = directory
        self._poll = select.epoll()
        self._clients = {}
        self._names = 0
        self.mix = options.mix or ReadsAndWrites(options)
        share = options.connections // options.processes
        self._share = max(1, share + (1 if number < options.connections % options.processes else 0))
        self.pause = self._share / (options.rate / options.processes) if options.rate else 0.0

    def run(self):
        clients = []
        for index in range(self._share):
            place = index * self.options.processes + self.number
            clients.append(_LoadClient(self, place))
        next_look = 0.0
        for client in clients:
            client.begin_after(self.random.random() * self.pause)
        while not self._stop.value:
            self._serve(0.002 if self.pause else 0.02)
            now = time.monotonic()
            if now >= next_look:
                next_look = now + (0.002 if self.pause else 0.02)
                for client in clients:
                    client.look_at_clock(now)
        # What is under way is awaited: an operation that is merely cut off would count as unknown.
        deadline = time.monotonic() + self.options.operation_deadline
        while any(client.is_waiting for client in clients) and time.monotonic() < deadline:
            self._serve(0.05)
        for client in clients:
            client.give_up("still under way at the end")
        write_operations(f"{self._directory}/{self.number}.jsonl", self.operations)
        with open(f"{self._directory}/{self.number}.notes", "w", encoding="utf-8") as file:
            for kind, note in self.notes[:1000]:
                file.write(f"{kind} {note}\n".replace("\r", " "))

    def _serve(self, seconds):
        for descriptor, _ in self._poll.poll(seconds):
            client = self._clients.get(descriptor)
            if client:
                client.go_on()

    @property
    def stopping(self):
        return self._stop.value

    def new_name(self):
        self._names += 1
        return f"{self.options.name}{self.number}-{self._names}"

    def record(self, operation, note=None):
        self.operations.append(operation)
        self.mix.learn(operation)
        if operation.outcome == OK:
            self._answered[self.number] += 1
        else:
            self.notes.append((operation.kind, f"{note} ({operation.key} at {operation.node})".replace("\n", " ")))

    def watch(self, descriptor, client):
        """Calls the client's `go_on` once the socket is connected, or can't be."""
        self._clients[descriptor] = client
        self._poll.register(descriptor, select.EPOLLOUT)

    def await_answers(self, descriptor):
        self._poll.modify(descriptor, select.EPOLLIN)

    def forget(self, descriptor):
        self._clients.pop(descriptor, None)
        self._poll.unregister(descriptor)


class _LoadClient:
    """One client: a connection, a name, and at most one operation under way."""

    CONNECT_WITHIN_SECONDS = 1.0
    OPERATIONS_AWAY = 50

    def __init__(self, process, place):
        self._process = process
        self._home = place
        self._move_to(place)
        self._name = process.new_name()
        self._sequence = 0
        self._socket = None
        self._reader = None
        self._pending = None            # (what was drawn, called)
        self._unsent = False            # the connection is not there yet
        self._begin_at = 0.0

    @property
    def is_waiting(self):
        return self._pending is not None

    def begin_after(self, pause):
        self._begin_at = time.monotonic() + pause

    def look_at_clock(self, now):
        """Begins the next operation when it is due, and gives up one that takes too long."""
        if self._pending is None:
            if now >= self._begin_at and not self._process.stopping:
                self._begin()
            return
        seconds = now - self._pending[1] / 1e9
        if self._unsent and seconds > self.CONNECT_WITHIN_SECONDS:
            self._lose("no connection in time")
        elif seconds > self._process.options.operation_deadline:
            self._lose("no answer in time")

    def go_on(self):
        """Something happened at the socket."""
        if self._unsent:
            error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self._lose(f"connection refused: {os.strerror(error)}")
                return
            self._process.await_answers(self._socket.fileno())
            self._send()
            return
        try:
            data = self._socket.recv(65536)
        except OSError as error:
            self._lose(f"connection lost: {error}")
            return
        if not data:
            self._lose("connection closed without an answer")
            return
        self._reader.feed(data)
        answer = self._reader.next_answer()
        if answer is not None:
            self._finish(answer)

    def give_up(self, why):
        """The operation under way has no answer and will get none."""
        if self._pending is None:
            return
        draw, called = self._pending
        outcome = UNKNOWN if draw.kind != READ and not self._unsent else NO
        self._pending, self._unsent = None, False
        self._record(draw, draw.value, None, called, FOREVER if outcome == UNKNOWN else time.monotonic_ns(), outcome, 0, why)
        if outcome == UNKNOWN:
            self._name = self._process.new_name()
        self._move_on()
        self.begin_after(0.01)

    def _record(self, draw, value, version, called, returned, outcome, status, note):
        self._process.record(Operation(self._name, draw.key, draw.kind, value, version, called, returned, outcome,
                                       self._address, status, draw.expected), note)

    def _move_on(self):
        if self._process.options.moves_on:
            self._close()
            self._move_to(self._place + 1)

    def _come_back(self):
        """To its own address, when it has asked another one for a while."""
        if self._place != self._home:
            self._operations_away += 1
            if self._operations_away > self.OPERATIONS_AWAY:
                self._close()
                self._move_to(self._home)

    def _move_to(self, place):
        self._place = place
        self._operations_away = 0
        self._address = self._process.options.addresses[place % len(self._process.options.addresses)]

    def _begin(self):
        self._sequence += 1
        draw = self._process.mix.draw(self._process.random, f"{self._name}.{self._sequence}")
        self._pending = (draw, time.monotonic_ns())
        if self._socket is not None:
            self._send()
            return
        self._unsent = True
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = http.AnswerReader()
        self._process.watch(self._socket.fileno(), self)
        error = self._socket.connect_ex(http.socket_address(self._address))
        if error not in (0, errno.EINPROGRESS):
            self._lose(f"connection refused: {os.strerror(error)}")

    def _send(self):
        self._unsent = False
        try:
            self._socket.send(self._pending[0].request)     # a request is smaller than an empty socket buffer
        except OSError as error:
            self._lose(f"sending failed: {error}")

    def _finish(self, answer):
        draw, called = self._pending
        self._pending = None
        returned = time.monotonic_ns()
        outcome, note = self._judge(draw.kind, answer)
        value = draw.value
        if draw.kind == READ and outcome == OK:
            value = short_form(draw.key, answer.body) if answer.status == 200 else None
        if outcome == UNKNOWN:
            returned = FOREVER
        self._record(draw, value, answer.version, called, returned, outcome, answer.status, note)
        if outcome == UNKNOWN:
            self._name = self._process.new_name()
        if answer.closes:
            self._close()
        if outcome == OK:
            self._come_back()
        else:
            self._move_on()
        if self._process.stopping:
            return
        if outcome != OK:
            self.begin_after(0.01)
        elif self._process.pause:
            self.begin_after(self._process.pause)
        else:
            self._begin()

    @staticmethod
    def _judge(kind, answer):
        note = f"{answer.status} {shorten(answer.body, 120)}"
        if kind == READ:
            found = answer.status == 200 or (answer.status == 404 and answer.body == b"N/A")
            return (OK, None) if found else (NO, note)
        if answer.status == 200:
            return OK, None
        return answer.outcome if answer.status >= 400 else UNKNOWN, note

    def _lose(self, why):
        self._close()
        self.give_up(why)

    def _close(self):
        if self._socket is not None:
            self._process.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
