# SPDX-License-Identifier: Apache-2.0
"""Of requests whose ends may be read in several ways, a node, HAProxy, and a node behind it find the same ones as PyPI's h11, or refuse and
close: none is split, none is merged with the next."""

import importlib
import re
import socket
import subprocess
import sys
import threading
import venv
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs

from harness.client import AnswerReader, MalformedAnswer, socket_address
from harness.cluster import REPOSITORY, Proxy
from harness.expectations import expect
from harness.framing import VECTORS, vector_bytes

LIMIT_SECONDS = 180

H11 = "h11==0.16.0"
#: So many vectors at a time: they wait for most of their time.
AT_ONCE = 32
#: How long nothing has to come before a connection counts as answered, the same once all that is expected has come, and how long it may
#: take to end after that.
QUIET_SECONDS, SETTLED_SECONDS, END_SECONDS = 1.5, 0.3, 4.0

#: What a node takes and h11 does not, with the reason: what has to be replaced in it to have h11 find the requests that are meant, and by
#: what. (They may be refused all the same.)
READ_BY_NODES = {
    # An empty line before a request is to be passed over (RFC 9112, section 2.2).
    "blank lines before a request": (b"\r\n\r\n", b""),
    "one LF before a request": (b"\n", b""),
    "a request behind CR CR LF": (b"\r\r\n", b""),
    # A number may have any zeros in front; h11 stops at 20 digits.
    "length: with many leading zeros": (b"0" * 40, b""),
    "chunks: a size with many leading zeros": (b"0" * 40, b""),
    # The words of a request line may be found between any blanks (section 3).
    "two blanks before the target": (b"  ", b" "),
    "two blanks behind the target": (b"  ", b" "),
}
#: And what HAProxy 2.6 takes as well. It writes each request anew, so that nobody behind it sees these bytes, but for those that nodes refuse.
READ_BY_HAPROXY = {
    **READ_BY_NODES,
    "tabs for blanks": (b"GET\t/route?key=@c\t", b"GET /route?key=@c "),
    # Nodes refuse it, with their connection to HAProxy.
    "no Host": (b"HTTP/1.1\r\n", b"HTTP/1.1\r\nHost: kv\r\n"),
    "a NUL in a value": (b"\0", b""),
    "chunks: a trailer with a NUL": (b"\0", b""),
    "coding: chunked with an empty element behind": (b"chunked,", b"chunked"),
    # Ends of lines within chunks.
    "chunks: an extension behind a blank": (b" ;", b";"),
    "chunks: an extension that ends in a bare LF": (b"x\n", b"x\r\n"),
    "chunks: a size behind a bare LF": (b"f\n", b"f\r\n"),
    "chunks: data that end in a bare LF": (b"1\n0", b"1\r\n0"),
    "chunks: data that are shorter than their size": (b"1\r\n0", b"1\r\r\n0"),
    "chunks: the last one ends in LF LF": (b"0\n\n", b"0\r\n\r\n"),
    "chunks: a trailer with a bare LF": (b"1\n", b"1\r\n"),
}


def run(context):
    h11 = installed()
    with context.cluster(replicas=1, nodes=2, positions={5000: 1}) as cluster:
        names = [b"v%03d" % number for number in range(len(VECTORS))]
        expect(len(VECTORS) >= 150, "a table of at least 150")
        with Recorder(h11, cluster.unused_address(30)) as recorder:
            proxy = second_proxy(cluster, recorder)
            try:
                found = {
                    "a node": judge(h11, cluster, cluster.node(1).address, b"n", names, READ_BY_NODES),
                    "a node behind HAProxy": judge(h11, cluster, cluster.proxy.address, b"p", names, READ_BY_HAPROXY),
                    "HAProxy": judge_forwarded(h11, recorder, proxy.address, b"r", names),
                }
            finally:
                proxy.end()
    problems = [f"{place}: {line}" for place, (lines, _) in found.items() for line in lines]
    expect(not problems, f"{len(problems)} disagreements:\n  " + "\n  ".join(problems))
    for place, (_, counts) in found.items():
        expect(counts["same"] > 30 and counts["refused"] > 50, f"{place}: {counts}: the vectors do not say what they are meant to")
        context.note(f"{place}: {counts['same']} read alike, {counts['refused']} refused")


def installed():
    """h11: in an environment of the repository's own, made the first time."""
    directory = REPOSITORY / ".local" / "tools" / "h11"
    if not list(directory.glob("lib/*/site-packages/h11/__init__.py")):
        venv.create(directory, with_pip=True, clear=True)
        subprocess.run([directory / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", H11],
                       check=True, stdout=sys.stderr, timeout=180)
    sys.path.append(str(next(directory.glob("lib/*/site-packages"))))
    return importlib.import_module("h11")


# The reference

class Reference:
    """What h11 finds in some bytes: requests as (method, target, body), and whether it goes on to their end."""

    def __init__(self, h11, data):
        self.requests = []
        self.is_clean = False
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 17)
        connection.receive_data(data)
        try:
            while self._take_one(h11, connection):
                pass
        except h11.RemoteProtocolError:
            return

    def _take_one(self, h11, connection):
        head, body = None, b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                # (A part of a request is none.)
                self.is_clean = head is None and connection.trailing_data[0] == b""
                return False
            if event is h11.PAUSED:
                # It was the last one, by its own word.
                self.is_clean = True
                return False
            if isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        self.requests.append((head.method.decode(), head.target.decode("latin-1"), body))
        # (No protocol is switched, and nothing is connected to.)
        connection.send(h11.Response(status_code=405 if head.method == b"CONNECT" else 200, headers=[("Content-Length", "0")]))
        connection.send(h11.EndOfMessage())
        if connection.our_state is h11.MUST_CLOSE:
            self.is_clean = True
            return False
        connection.start_next_cycle()
        return True


# The store

class Store:
    """What the store answers to requests that are as they should be: the status and the body, or None where it refuses."""

    def __init__(self, name):
        text = name.decode()
        self.pairs = {f"{text}{letter}": f"value of {text}{letter}" for letter in "acd"}

    def answer(self, method, target, body):
        path, _, query = target.partition("?")
        if path != "/route":
            return None
        if method in ("GET", "HEAD", "DELETE"):
            fields = parse_qs(query)
            if "key" not in fields:
                return None
            key = fields["key"][0]
            if method == "DELETE":
                self.pairs.pop(key, None)
                return 200, "OK"
            value = self.pairs.get(key)
            if method == "HEAD":
                return (200 if value is not None else 404), ""
            return (200, value) if value is not None else (404, "N/A")
        if method == "POST":
            fields = parse_qs(body.decode("latin-1"))
            if "key" not in fields or "val" not in fields:
                return None
            self.pairs[fields["key"][0]] = fields["val"][0]
            return 200, "OK"
        return None


def judge(h11, cluster, address, prefix, names, read_otherwise):
    """Sends all vectors; returns what is wrong, a line each, and how many were read alike, and refused."""
    names = [prefix + name[1:] for name in names]
    node = cluster.node(1)
    for name in names:
        for letter in "acd":
            key = f"{name.decode()}{letter}"
            expect(node.store(key, f"value of {key}").status == 200, f"storing {key}")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(lambda pair: judge_one(h11, node, address, read_otherwise, *pair), zip(VECTORS, names)))
    problems = [f"{title}: {problem}" for (title, _), (problem, _) in zip(VECTORS, outcomes) if problem]
    return problems, {kind: sum(kind == found for _, found in outcomes) for kind in ("same", "refused")}


def judge_one(h11, node, address, read_otherwise, vector, name):
    data = vector_bytes(vector[1], name)
    reference, store = Reference(h11, meant(vector, name, read_otherwise)), Store(name)
    expected = [(request, store.answer(*request)) for request in reference.requests]
    answers, ending, rest = exchange(address, data, [method == "HEAD" for method, _, _ in reference.requests])
    is_closed = ending == "closed" or ending == "ended" and not reference.is_clean
    held = {letter: node.read(f"{name.decode()}{letter}") for letter in "abcdh"}
    pairs = {f"{name.decode()}{letter}": answer.text for letter, answer in held.items() if answer.status == 200}
    return compare(name, expected, reference.is_clean, answers, is_closed, rest, pairs)


def meant(vector, name, read_otherwise):
    """What h11 is given for a vector."""
    title, template = vector
    old, new = read_otherwise.get(title, (b"", b""))
    assert old in template, title
    return vector_bytes(template.replace(old, new, 1), name)


def compare(name, expected, is_clean, answers, is_closed, rest, pairs):
    """What is wrong with the answers, or None; and how they compare."""
    if rest:
        return f"bytes behind the last answer: {rest[:80]!r}", "split"
    told = Store(name)
    for number, answer in enumerate(answers):
        if number >= len(expected):
            if is_refusal(answer) and is_closed and number == len(answers) - 1:
                break
            return f"{len(answers)} answers to {len(expected)} requests: {[str(a.status) for a in answers]}", "split"
        (method, target, body), wanted = expected[number]
        if wanted is not None and (answer.status, answer.text) == wanted:
            told.answer(method, target, body)
            continue
        if answer.status < 400 or wanted is None and answer.status >= 500 and answer.status not in (501, 505):
            return f"{method} {target} was answered {answer.status} {answer.text!r}, wanted {wanted}", "another"
        if is_closed and number == len(answers) - 1:
            break
        if number + 1 == len(answers) and number + 1 < len(expected):
            return f"a refusal ({answer.status}) after which nothing is answered, and the connection is open", "hangs"
    # (A refusal behind which the connection goes on has found the same end as h11, or the next answers would be others.)
    same = is_clean and len(answers) == len(expected)
    if not same and not is_closed:
        return (f"neither the {len(expected)} requests of h11's ({'whole' if is_clean else 'then an error'}) nor a refusal that closes: "
                f"{[answer.status for answer in answers]}"), "hangs"
    # What was done is what was answered, or what h11 found (of a write behind which the connection broke).
    later = Store(name)
    states = [dict(told.pairs)]
    for (method, target, body), _ in expected:
        later.answer(method, target, body)
        states.append(dict(later.pairs))
    if pairs not in states:
        return f"pairs that no request of h11's has made: {pairs}", "hidden"
    return None, "same" if same else "refused"


def is_refusal(answer):
    return answer.status >= 400


def exchange(address, data, heads):
    """All final answers to these bytes; how the connection ended: "closed" by the other side, "ended" once this side had, or "open"; and
    what came that is no answer. `heads` says which of the requests are HEAD."""
    reader, answers = AnswerReader(), []

    def read(seconds, seconds_at_end):
        """True once the other side has ended the connection."""
        while True:
            connection.settimeout(seconds_at_end if len(answers) >= len(heads) else seconds)
            try:
                got = connection.recv(1 << 16)
            except TimeoutError:
                return False
            except OSError:
                return True
            if not got:
                return True
            reader.feed(got)
            while (answer := reader.next_answer(len(answers) < len(heads) and heads[len(answers)])) is not None:
                answers.append(answer)

    with socket.create_connection(socket_address(address), timeout=10) as connection:
        try:
            connection.sendall(data)
        except OSError:
            pass  # (Refused and closed before all was sent.)
        try:
            if read(QUIET_SECONDS, SETTLED_SECONDS):
                return answers, "closed", b""
            # Of half a request nobody waits for the rest any more.
            connection.shutdown(socket.SHUT_WR)
            return answers, "ended" if read(END_SECONDS, END_SECONDS) else "open", b""
        except OSError:
            return answers, "closed", b""
        except MalformedAnswer as problem:
            return answers, "closed", str(problem).encode()


# What HAProxy sends on

class Recorder:
    """A server that notes each request as h11 reads it; nothing but what is well-formed should reach it."""

    def __init__(self, h11, address):
        self.address = address
        self.requests = []
        self.errors = []
        self._h11 = h11
        self._lock = threading.Lock()
        self._listener = socket.create_server(socket_address(address), backlog=256)
        self._listener.settimeout(0.2)
        self._is_over = False
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._is_over = True
        self._thread.join()
        self._listener.close()

    def _accept(self):
        while not self._is_over:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        h11 = self._h11
        reading = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 17)
        head, body, raw = None, b"", b""
        with connection:
            connection.settimeout(30)
            while True:
                try:
                    event = reading.next_event()
                    if event is h11.NEED_DATA:
                        got = connection.recv(1 << 16)
                        raw += got
                        reading.receive_data(got)
                    elif isinstance(event, h11.Request):
                        head, body = event, b""
                    elif isinstance(event, h11.Data):
                        body += bytes(event.data)
                    elif isinstance(event, h11.EndOfMessage):
                        with self._lock:
                            self.requests.append((head.method.decode(), head.target.decode("latin-1"), body))
                        text = b"recorded\n"
                        response = h11.Response(status_code=200, headers=[("Content-Length", str(len(text)))])
                        connection.sendall(reading.send(response) + (reading.send(h11.Data(text)) if head.method != b"HEAD" else b"")
                                           + reading.send(h11.EndOfMessage()))
                        if reading.our_state is h11.MUST_CLOSE:
                            return
                        reading.start_next_cycle()
                        raw = b""
                    else:
                        return
                except h11.RemoteProtocolError as problem:
                    with self._lock:
                        self.errors.append((problem, raw))
                    return
                except OSError:
                    return

    def of(self, name):
        """The requests that name this vector, in their order."""
        with self._lock:
            return [request for request in self.requests if name.decode() in request[1] or name in request[2]]


def second_proxy(cluster, recorder):
    """HAProxy as it is shipped, in front of the recorder."""
    directory = cluster.directory / "second"
    directory.mkdir()
    proxy = Proxy(cluster.unused_address(9), cluster.unused_address(8), [recorder], directory)
    proxy.start()
    proxy.wait_until_serving()
    return proxy


def judge_forwarded(h11, recorder, address, prefix, names):
    names = [prefix + name[1:] for name in names]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(lambda pair: judge_one_forwarded(h11, recorder, address, *pair), zip(VECTORS, names)))
    problems = [f"{title}: {problem}" for (title, _), (problem, _) in zip(VECTORS, outcomes) if problem]
    excepted = {name for (title, _), name in zip(VECTORS, names) if title in READ_BY_HAPROXY}
    problems += [f"it sent on what h11 can't read: {error}: {raw[:300]!r}" for error, raw in recorder.errors
                 if not any(name in raw for name in excepted)]
    return problems, {kind: sum(kind == found for _, found in outcomes) for kind in ("same", "refused")}


def judge_one_forwarded(h11, recorder, address, vector, name):
    """HAProxy sends on the requests that h11 finds, or the first of them, and then refuses and closes."""
    data = vector_bytes(vector[1], name)
    reference = Reference(h11, meant(vector, name, READ_BY_HAPROXY))
    answers, ending, rest = exchange(address, data, [method == "HEAD" for method, _, _ in reference.requests])
    is_closed = ending == "closed" or ending == "ended" and not reference.is_clean
    sent_on = recorder.of(name)
    wanted = [(method, without_host(target), body) for method, target, body in reference.requests
              if name.decode() in target or name in body]
    found = [(method, without_host(target), body) for method, target, body in sent_on]
    if rest:
        return f"bytes behind the last answer: {rest[:80]!r}", "split"
    if reference.is_clean and found == wanted:
        return None, "same"
    # (Of those that it answers by itself it sends nothing on.)
    remaining = iter(wanted)
    if not all(request in remaining for request in found):
        return f"sent on {found}, where h11 finds {wanted}", "split"
    if not is_closed and not any(is_refusal(answer) for answer in answers):
        return f"sent on {found} of {wanted}, and refused nothing: {[answer.status for answer in answers]}", "hangs"
    return None, "refused"


def without_host(target):
    return re.sub(r"^http://[^/]*", "", target)
