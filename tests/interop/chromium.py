"""A headless Chromium, driven over its DevTools protocol: as much of that as the tests need."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

__all__ = ["Page", "find", "launch", "open_page", "shared_page"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

FLAGS = (
    "--headless",
    "--remote-debugging-port=0",
    "--no-sandbox",  # does not work for root; nothing but the tests' own pages is loaded
    "--ignore-certificate-errors",  # the tests' authority is in no browser's list
    "--disable-gpu",
    "--hide-scrollbars",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    # Without these it looks for updates on the network.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

_ANNOUNCEMENT = "DevTools listening on "


def find() -> str | None:
    """The browser's path, None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def launch(executable: str) -> Iterator[str]:
    """Runs a browser, with all its files in a folder that is removed at the end.

    Args:
        executable: Its path.

    Yields:
        The URL of its DevTools.
    """
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,  # its last processes may still write
        subprocess.Popen(
            [executable, *FLAGS, f"--user-data-dir={folder}/profile", "about:blank"],
            env=os.environ | {"TMPDIR": folder},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith(_ANNOUNCEMENT):
                break
        else:
            raise RuntimeError(f"{executable} did not start:\n{''.join(said)}")
        # It continues to report missing services, and must not wait for a reader.
        drain = threading.Thread(target=deque, args=(process.stderr, 0))
        drain.start()
        try:
            yield line.removeprefix(_ANNOUNCEMENT).strip()
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
            drain.join()


class Page:
    """A tab."""

    def __init__(self, devtools: ClientConnection) -> None:
        self._devtools = devtools
        self._numbers = itertools.count()
        self._session: dict[str, str] = {}
        self._events: set[str | None] = set()

    async def open(self, url: str) -> None:
        """Makes the tab, with cookies of its own, and loads a page in it."""
        context = await self._command("Target.createBrowserContext", disposeOnDetach=True)
        await self._open(url, context)

    async def share(self, url: str) -> None:
        """Takes the tab in which an earlier caller has loaded the page, or makes it. The tab outlives its callers."""
        targets = (await self._command("Target.getTargets"))["targetInfos"]
        found = next((target["targetId"] for target in targets if target["url"] == url), None)
        if found is None:
            await self._open(url, {})
        else:
            self._session = await self._command("Target.attachToTarget", targetId=found, flatten=True)

    async def _open(self, url: str, context: dict[str, str]) -> None:
        target = await self._command("Target.createTarget", url="about:blank", **context)
        session = await self._command("Target.attachToTarget", **target, flatten=True)
        self._session = session
        loaded = await self._command("Page.navigate", url=url)
        assert "errorText" not in loaded, f"{url}: {loaded['errorText']}"
        await self.evaluate(
            "new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', () => done()))"
        )

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; that of a promise is waited for.

        Raises:
            RuntimeError: It threw, or the promise was rejected.
        """
        result = await self._command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"]["description"])
        return result["result"].get("value")

    async def until(self, condition: str) -> None:
        """Waits until changes to the document make a JavaScript expression true."""
        await self.evaluate(
            f"""new Promise(done => {{
                const observer = new MutationObserver(look);
                function look() {{ if ({condition}) {{ observer.disconnect(); done() }} }}
                observer.observe(document, {{ childList: true, characterData: true, subtree: true }});
                look();
            }})"""
        )

    async def type(self, selector: str, text: str) -> None:
        """Fills an input."""
        await self.evaluate(f"document.querySelector({selector!r}).value = {json.dumps(text)}")

    async def click(self, selector: str) -> None:
        """Clicks an element."""
        await self.evaluate(f"document.querySelector({selector!r}).click()")

    async def submit(self, selector: str) -> None:
        """Sends a form that leads to another page, and waits until that is loaded."""
        await self._command("Page.enable")
        self._events.clear()
        await self.evaluate(f"document.querySelector({selector!r}).requestSubmit()")
        while "Page.loadEventFired" not in self._events:
            self._events.add(json.loads(await self._devtools.recv()).get("method"))

    async def photograph(self, width: int = 640) -> bytes:
        """The whole page as PNG, with two pixels for each of CSS."""
        size = {"width": width, "height": 100, "deviceScaleFactor": 2, "mobile": False}
        await self._command("Emulation.setDeviceMetricsOverride", **size)
        size["height"] = await self.evaluate("document.documentElement.scrollHeight")
        await self._command("Emulation.setDeviceMetricsOverride", **size)
        picture = await self._command("Page.captureScreenshot", format="png")
        return base64.b64decode(picture["data"])

    async def close(self) -> None:
        """Closes the tab, and with it its connections."""
        await self._command("Page.close")

    async def _command(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._devtools.send(json.dumps({"id": number, "method": method, "params": params, **self._session}))
        async for message in self._devtools:
            answer = json.loads(message)
            if answer.get("id") == number:
                break
            self._events.add(answer.get("method"))
        else:
            raise RuntimeError("the browser has closed")
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result


@asynccontextmanager
async def open_page(devtools: str, url: str) -> AsyncIterator[Page]:
    """Loads a page in a tab of its own.

    Args:
        devtools: The result of `launch`.
    """
    async with connect(devtools, max_size=None, compression=None, ping_interval=None) as connection:
        page = Page(connection)
        await page.open(url)
        try:
            yield page
        finally:
            await page.close()


@asynccontextmanager
async def shared_page(devtools: str, url: str) -> AsyncIterator[Page]:
    """Loads a page once for callers that use it in turn: loading takes most of the time of a short use.

    Args:
        devtools: The URL that `launch` has yielded.
        url: No other page has it.
    """
    async with connect(devtools, max_size=None, compression=None, ping_interval=None) as connection:
        page = Page(connection)
        await page.share(url)
        yield page
