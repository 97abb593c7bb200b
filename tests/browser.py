"""A headless browser, driven by Chrome's developer tools protocol with real clicks and keys."""

import base64
import json
import subprocess
import time
import urllib.request

import websocket

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--remote-debugging-port=0", "--remote-allow-origins=*", "about:blank"),
)
# The protocol's text for keys whose name is not their text.
KEY_CODES = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Escape": 27}


class Browser:
    """One page in its own browser.

    Args:
        command: command that starts the browser.
        profile: a folder for its files; downloads go there too.
    """

    def __init__(self, command, profile):
        self.profile, self.number = profile, 0
        self.process = subprocess.Popen(
            [command, f"--user-data-dir={profile}", *FLAGS], stderr=subprocess.DEVNULL
        )
        port = self._port()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            target = next(page for page in json.load(answer) if page["type"] == "page")
        self.socket = websocket.create_connection(target["webSocketDebuggerUrl"], timeout=60)
        self.call("Page.enable")
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(profile))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.process.terminate()
        self.process.wait(30)

    def _port(self):
        file, start = self.profile / "DevToolsActivePort", time.monotonic()
        while not (file.is_file() and file.read_text().count("\n")):
            assert self.process.poll() is None, "the browser ended"
            assert time.monotonic() - start < 60, "the browser did not start in 60 s"
            time.sleep(0.05)
        return file.read_text().splitlines()[0]

    def call(self, method, **parameters):
        """Calls a method of the protocol; returns its result."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, page, address="", width=1280, height=900, *, scheme="light"):
        """Opens a file, by default in a window of desktop size."""
        self.call(
            *("Emulation.setDeviceMetricsOverride",),
            **{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        # Without it, an address that differs only after # would load nothing.
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=page.as_uri() + address)
        start = time.monotonic()
        while not self.js("location.protocol === 'file:' && document.readyState === 'complete'"):
            assert time.monotonic() - start < 60, f"{page} did not load in 60 s"
            time.sleep(0.02)

    def js(self, expression):
        """The value of an expression in the page; for a promise, the value it resolves to."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def click(self, selector):
        """Clicks the middle of the first matching element, once it no longer moves."""
        box = self.js(f"""(async () => {{
            const element = document.querySelector({json.dumps(selector)});
            element.scrollIntoView({{ block: "center" }});
            await Promise.all([...document.images].map(one => one.decode().catch(() => null)));
            let before = [], middle = null, still = 0;
            for (let frame = 0; still < 5 && frame < 600; frame++) {{
                await new Promise(requestAnimationFrame);
                const box = element.getBoundingClientRect();
                middle = [box.x + box.width / 2, box.y + box.height / 2];
                const hit = element.contains(document.elementFromPoint(...middle));
                const stays = middle[0] === before[0] && middle[1] === before[1];
                still = hit && stays ? still + 1 : 0;
                before = middle;
            }}
            return middle;
        }})()""")
        place = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **place)

    def press(self, *keys):
        """Presses keys by their names, such as "ArrowLeft", "r" or " "."""
        for key in keys:
            code = KEY_CODES.get(key) or ord(key.upper())
            text = {} if key in KEY_CODES else {"text": key}
            for kind in ("keyDown", "keyUp"):
                self.call(
                    "Input.dispatchKeyEvent",
                    **{"type": kind, "key": key, "windowsVirtualKeyCode": code, **text},
                )

    def write(self, text):
        """Types text into the field that has the focus."""
        self.call("Input.insertText", text=text)

    def screenshot(self, path):
        """Saves a screenshot as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
