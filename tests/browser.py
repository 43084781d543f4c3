"""A headless Chromium, driven over its DevTools protocol: for tests that look at pages, and for pictures of them.

It reaches no host: every name is unresolvable, and requests are counted.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--hide-scrollbars", "--remote-debugging-pipe",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--force-color-profile=srgb", "--font-render-hinting=none",
)  # fmt: skip
# DevTools reads from file descriptor 3 and writes to 4; Popen cannot place them there.
_START = "import os, sys; os.dup2(int(sys.argv[1]), 30); os.dup2(int(sys.argv[2]), 31); os.dup2(30, 3); os.dup2(31, 4); os.execv(sys.argv[3], sys.argv[3:])"


class Browser:
    """One process of Chromium with one tab."""

    def __enter__(self) -> Browser:
        self.folder = tempfile.mkdtemp(prefix="attn-browser-")
        to_read, self.to_write = os.pipe()
        from_read, from_write = os.pipe()
        command = [CHROMIUM, *_FLAGS, f"--user-data-dir={self.folder}/profile", "about:blank"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, str(to_read), str(from_write), *command],
            pass_fds=(to_read, from_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(from_write)
        self.from_read = from_read
        self.numbers = count(1)
        self.buffer = b""
        self.session = None
        self.errors: list[str] = []  # what the console says
        self.requests: list[str] = []  # of anything that is no file and no data
        self.downloads = Path(self.folder, "downloads")
        [target] = [t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        self.session = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        self.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads), eventsEnabled=True)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.to_write)
        self.process.terminate()
        self.process.wait(20)
        os.close(self.from_read)
        shutil.rmtree(self.folder, ignore_errors=True)

    # ── the protocol ─────────────────────────────────────────────────────────────────────────────
    def send(self, method: str, **parameters: object) -> dict:
        """Send a command, and wait for its answer; events that come before it are noted."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self.session
        os.write(self.to_write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _receive(self) -> dict:
        while b"\0" not in self.buffer:
            more = os.read(self.from_read, 2**16)
            if not more:
                raise RuntimeError("Chromium has ended")
            self.buffer += more
        text, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(text)

    def _note(self, event: dict) -> None:
        parameters = event.get("params", {})
        if event["method"] == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(parameters["exceptionDetails"])[:2000])
        elif event["method"] == "Log.entryAdded" or (
            event["method"] == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning")
        ):
            self.errors.append(json.dumps(parameters)[:2000])
        elif event["method"] == "Network.requestWillBeSent":
            url = parameters["request"]["url"]
            if not url.startswith(("file:", "data:", "blob:", "about:")):
                self.requests.append(url)

    # ── what a reader does ───────────────────────────────────────────────────────────────────────
    def open(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False, ratio: float = 1) -> None:
        """Open a file in a window so wide, and wait until it is drawn."""
        self.errors.clear()
        self.requests.clear()
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=ratio,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url=path.resolve().as_uri())
        self.wait_for("document.documentElement.dataset.ready === 'yes'")

    def evaluate(self, expression: str) -> object:
        """The value of a JavaScript expression, which may be a promise."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, expression: str, tries: int = 400) -> None:
        """Wait, frame by frame, until an expression is true."""
        for _ in range(tries):
            try:
                if self.evaluate(expression):
                    return
                self.evaluate("new Promise(done => setTimeout(done, 25))")
            except RuntimeError as error:  # the page is being replaced
                if "ended" in str(error):
                    raise
        raise AssertionError(f"it never became true: {expression}; {self.errors}")

    def next_frame(self) -> None:
        """Wait until what has happened is drawn."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def point(self, selector: str, x: float = 0.5, y: float = 0.5) -> tuple[float, float]:
        """Where an element is in the window, once it has been scrolled to: a share of its width and height from its corner."""
        box = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
            " const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()"
        )
        return box[0] + x * box[2], box[1] + y * box[3]

    def hover(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Move the pointer there."""
        at_x, at_y = self.point(selector, x, y)
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=at_x, y=at_y)
        self.next_frame()

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Click there."""
        at_x, at_y = self.point(selector, x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=at_x, y=at_y, button="left", clickCount=1)
        self.next_frame()

    def press(self, key: str) -> None:
        """Press a key, such as ArrowDown or n."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        self.send(
            "Input.dispatchKeyEvent",
            type="keyDown",
            key=key,
            code=key,
            windowsVirtualKeyCode={"Tab": 9}.get(key, 0),
            **text,
        )
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)
        self.next_frame()

    def type(self, selector: str, text: str) -> None:
        """Replace the text of a field."""
        self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.focus(); e.select(); }})()"
        )
        self.send("Input.insertText", text=text)
        self.next_frame()

    def choose(self, name: str, text: str) -> None:
        """Choose an option of one of the bar's lists by its text."""
        self.evaluate(
            f"(() => {{ const e = document.querySelector('select[data-name=\"{name}\"]');"
            f" e.value = [...e.options].find(o => o.text === {json.dumps(text)}).value;"
            " e.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )
        self.next_frame()

    def text(self, selector: str) -> str:
        """The text of an element, as it is shown."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements."""
        return list(self.evaluate(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.innerText)"))

    def wait_for_download(self, name: str) -> None:
        """Wait until a file has been saved whole."""
        for _ in range(400):
            if (self.downloads / name).is_file():
                return
            self.next_frame()
        raise AssertionError(f"{name} was not saved; there is {list(self.downloads.glob('*'))}")

    def screenshot(self, path: Path, *, full: bool = True) -> None:
        """Save what the page looks like."""
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=full)["data"]
        path.write_bytes(base64.b64decode(data))
