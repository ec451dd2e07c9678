# SPDX-License-Identifier: Apache-2.0
"""A node that is none: it serves the ring's page from its files, and tells it of whatever ring a test makes up.

So the page is shown rings of a hundred nodes, and troubles, that no test could bring about on one machine.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .cluster import REPOSITORY

FILES = {"/ui": ("page.html", "text/html; charset=utf-8"), "/ui/page.css": ("page.css", "text/css; charset=utf-8"),
         "/ui/page.js": ("page.js", "text/javascript; charset=utf-8"), "/ui/icon.svg": ("icon.svg", "image/svg+xml")}
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")


def even_positions(count, each):
    """So many nodes at so many positions each, `10.0.0.1:5000` and on."""
    total = count * each
    return {f"10.0.{node // 250}.{node % 250 + 1}:5000": [((index * count + (node * 7 + index * 3) % count) * 10000) // total for index in range(each)]
            for node in range(count)}


def healthy(node, number=0, **different):
    """What a node tells that lacks nothing."""
    return {"node": node, "age": 0.1, "version": "0.1.0", "epoch": 7, "uptimeSeconds": 260000 + number, "workers": 4, "isRecovering": False,
            "items": 412_000 + 1700 * number, "bytes": 1_450_000_000 + 9_000_000 * number, "limitBytes": 4 << 30, "hints": 0, "slotsDiffering": 0,
            "isClockAhead": False, "connections": 48, "troubles": [], "requestsPerSecond": 8120.0 + 13 * number, "errorsPerSecond": 0.0,
            "p50Milliseconds": 0.21 + number % 7 / 100, "p99Milliseconds": 1.34 + number % 5 / 10, **different}


class Stage:
    """Use it in a `with` statement; `show` tells all pages that look."""

    def __init__(self, positions, standbys=(), **further):
        self.ring = {"node": next(iter(positions), "10.0.0.1:5000"), "epoch": 7, "replicas": 3, "positions": positions, "standbys": list(standbys), **further}
        self.state = {"nodes": [healthy(node, number) for number, node in enumerate([*positions, *standbys] or [self.ring["node"]])]}
        #: Answers to other requests, by target: (status, text), and headers behind them where there are some.
        self.answers = {}
        #: What was asked, beside the page itself: (method, target, Authorization).
        self.asked = []
        #: The token without which nothing is told.
        self.token = None
        #: Says nothing, and keeps its streams.
        self.is_mute = False
        #: Ends its streams without an end, and answers nobody that asks for one.
        self.is_away = False
        #: Streams that are open.
        self.watching = 0
        self._news = threading.Condition()
        self._number = 0
        self._ring_number = 0
        self._is_over = False
        stage = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                stage._answer(self)

            def do_POST(self):
                stage._answer(self)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # a page that has gone

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with self._news:
            self._is_over = True
            self._news.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def show(self, is_ring_new=False):
        with self._news:
            self._number += 1
            if is_ring_new:
                self._ring_number += 1
            self._news.notify_all()

    def node(self, index):
        """What is told of that node, to be changed in place."""
        return self.state["nodes"][index]

    def _answer(self, handler):
        if handler.path in FILES:
            name, kind = FILES[handler.path]
            return self._send(handler, 200, kind, (REPOSITORY / "Sources/RingPage" / name).read_bytes())
        self.asked.append((handler.command, handler.path, handler.headers.get("Authorization")))
        if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
            return self._send(handler, 401, "text/plain", b"Say who you are.\n")
        if handler.path == "/ui/events":
            return self._tell(handler)
        status, text, *headers = self.answers.get(handler.path, (404, "There is no such path.\n"))
        return self._send(handler, status, "application/json" if text.startswith("{") else "text/plain", text.encode(), headers)

    @staticmethod
    def _send(handler, status, kind, body, headers=()):
        handler.send_response(status)
        for name, value in (*headers, ("Content-Type", kind), ("Content-Length", str(len(body))), ("Content-Security-Policy", POLICY),
                            ("X-Content-Type-Options", "nosniff")):
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def _tell(self, handler):
        handler.close_connection = True
        if self.is_away:
            return
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        number, ring_number = None, None
        try:
            self.watching += 1
            while not self._is_over and not self.is_away:
                with self._news:
                    self._news.wait_for(lambda: self._is_over or self._number != number, timeout=1)
                    text = "" if self._ring_number == ring_number else f"event: ring\ndata: {json.dumps(self.ring)}\n\n"
                    text += f"event: nodes\ndata: {json.dumps(self.state)}\n\n"
                    number, ring_number = self._number, self._ring_number
                if self.is_mute:
                    text = ""
                    ring_number = None
                handler.wfile.write(text.encode())
                handler.wfile.flush()
        except OSError:
            pass  # the page has gone
        finally:
            self.watching -= 1
