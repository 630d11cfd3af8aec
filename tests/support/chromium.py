"""Drives a headless Chromium over its pipe (file descriptors 3 and 4, JSON between NUL bytes), without any library.

The protocol: Chrome DevTools Protocol, domains Page, Network, Log, Runtime, Input and Emulation.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
"""Debian's package; None where it is not installed."""
TIMEOUT_S = 60.0
Message = dict[str, Any]


class Browser:
    """One headless Chromium with one page; close it."""

    def __init__(self, profile: Path) -> None:
        """Start it with a profile folder of its own."""
        assert CHROMIUM is not None
        self._to_read, self._to_write = _high_pipe()
        self._from_read, self._from_write = _high_pipe()
        options = ["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
        command = [CHROMIUM, *options, *quiet, f"--user-data-dir={profile}", "about:blank"]
        moved = f'exec "$@" 3<&{self._to_read} 4>&{self._from_write}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", moved, "bash", *command],
            pass_fds=(self._to_read, self._from_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._ids = itertools.count(1)
        self._buffer = b""
        self._session: str | None = None
        self.events: list[Message] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Message:
        """Call a method and wait for its result."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to_write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                return dict(answer["result"])
            self.events.append(answer)

    def open(self, path: Path) -> None:
        """Load a file and wait until it is there."""
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not self.of("Page.loadEventFired"):
            self.events.append(self._read())

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, number: int) -> None:
        """Press and release a key, by its name and its virtual key code."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=number)

    def size(self, width: int, height: int, *, mobile: bool = False) -> None:
        """Set the size of the window, in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def of(self, method: str) -> list[Message]:
        """Parameters of the events of one kind, since the page was opened."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for descriptor in (self._to_read, self._to_write, self._from_read, self._from_write):
            os.close(descriptor)

    def _read(self) -> Message:
        end = time.monotonic() + TIMEOUT_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from_read], [], [], 1.0)
            assert self._process.poll() is None, "Chromium ended"
            assert time.monotonic() < end, "Chromium does not answer"
            if ready:
                self._buffer += os.read(self._from_read, 1 << 20)
        text, self._buffer = self._buffer.split(b"\0", 1)
        return dict(json.loads(text))


def _high_pipe() -> tuple[int, int]:
    """A pipe whose ends are not the descriptors 3 and 4, which the browser's shall be."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]
