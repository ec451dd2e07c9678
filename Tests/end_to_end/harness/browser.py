# SPDX-License-Identifier: Apache-2.0
"""Debian's Chromium without a screen, driven by its DevTools protocol over a WebSocket (PyPI's websocket-client)."""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from .cluster import REPOSITORY
from .expectations import TestFailure, eventually
from .processes import OwnedProcess

WEBSOCKET_CLIENT = "websocket-client==1.9.0"


def _websocket():
    """The package, from an environment of the repository's own, made the first time."""
    directory = REPOSITORY / ".local" / "tools" / "websocket-client"
    python = directory / "bin" / "python"
    if not list(directory.glob("lib/python*/site-packages/websocket")):
        venv.create(directory, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", WEBSOCKET_CLIENT],
                       check=True, stdout=sys.stderr, timeout=180)
    for path in directory.glob("lib/python*/site-packages"):
        if str(path) not in sys.path:
            sys.path.append(str(path))
    import websocket  # pylint: disable=import-outside-toplevel
    return websocket


class Browser:
    """One Chromium with one page; use it in a `with` statement.

    `complaints` is what the console and the browser itself had to say of the page that is no mere note: exceptions, errors, warnings,
    violations of the Content-Security-Policy, files that could not be had.
    """

    def __init__(self, width=1280, height=900):
        self._websocket = _websocket()
        self._size = (width, height)
        self._directory = tempfile.mkdtemp(prefix="kvserver-chromium-")
        self._process = None
        self._socket = None
        self._number = 0
        self.complaints = []

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self._socket:
            self._socket.close()
        if self._process:
            self._process.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start(self):
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        if not program:
            raise TestFailure("Chromium is not installed (Debian's package chromium)")
        profile = Path(self._directory) / "profile"
        # (As root, and in containers, its own sandbox can't be made; what it shows here is this store's page alone.)
        arguments = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                     "--no-first-run", "--disable-background-networking", "--disable-component-update", "--mute-audio",
                     "--no-proxy-server", "--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={profile}",
                     f"--window-size={self._size[0]},{self._size[1]}", "about:blank"]
        self._process = OwnedProcess(arguments, Path(self._directory) / "chromium.log", {**os.environ, "HOME": self._directory})
        port_file = profile / "DevToolsActivePort"
        eventually(30, "Chromium listens", lambda: port_file.exists() and port_file.read_text().count("\n") >= 1)
        port = port_file.read_text().split("\n")[0]
        target = eventually(10, "Chromium has a page", lambda: self._page(port))
        self._socket = self._websocket.create_connection(target, timeout=30, enable_multithread=False)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.resize(*self._size)

    @staticmethod
    def _page(port):
        from urllib.request import ProxyHandler, build_opener  # pylint: disable=import-outside-toplevel
        with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}/json", timeout=5) as answer:
            pages = [one for one in json.load(answer) if one["type"] == "page"]
        return pages[0]["webSocketDebuggerUrl"] if pages else None

    # The protocol

    def call(self, method, **parameters):
        """One call's result; what comes before it is noted."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                if "error" in message:
                    raise TestFailure(f"{method}: {message['error']}")
                return message["result"]
            self._note(message)

    def _note(self, message):
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif message.get("method") == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.complaints.append(" ".join(str(one.get("value", one.get("description"))) for one in parameters["args"]))
        elif message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")

    # What one does with a page

    def resize(self, width, height, is_phone=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=is_phone)

    def prefer(self, **features):
        """Media features, such as `prefers_color_scheme="dark"`."""
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": name.replace("_", "-"), "value": value} for name, value in features.items()])

    def open(self, address):
        self.call("Page.navigate", url=address)
        eventually(15, f"{address} is loaded", lambda: self.value("document.readyState") == "complete" and self.value("location.href") != "about:blank")

    def value(self, expression):
        """What a JavaScript expression comes to; a promise is awaited."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise TestFailure(f"{expression}: {result['exceptionDetails'].get('exception', {}).get('description')}")
        return result["result"].get("value")

    def wait(self, expression, what, seconds=10):
        return eventually(seconds, f"{what} ({expression})", lambda: self.value(expression), interval=0.05)

    def text(self, selector):
        return self.value(f"document.querySelector({json.dumps(selector)})?.innerText ?? null")

    def fill(self, selector, text):
        """As if it had been typed."""
        self.value(f"document.querySelector({json.dumps(selector)}).focus()")
        self.value(f"document.querySelector({json.dumps(selector)}).value = ''")
        self.call("Input.insertText", text=text)

    def click(self, selector):
        self.value(f"document.querySelector({json.dumps(selector)}).click()")

    _KEYS = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35, " ": 32}

    def press(self, key, shift=False):
        code = self._KEYS[key]
        text = {"Enter": "\r", " ": " "}.get(key)
        common = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, path, is_whole=False):
        """A PNG of what is seen, or of the whole page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=is_whole,
                         **({"clip": self._whole()} if is_whole else {}))["data"]
        Path(path).write_bytes(base64.b64decode(data))

    def _whole(self):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}

    def pause(self, seconds):
        """Lets the page go on, and notes what it says."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.value("0")
            time.sleep(0.05)
