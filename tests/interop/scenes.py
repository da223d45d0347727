"""A scene for each example: its pages in a browser, the actions of visitors, and the expected content.

The tests play the scenes, and `python -m tests.docs.screenshots` photographs the page that each one returns.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from .chromium import Page, open_page
from .serving import Server

__all__ = ["EXAMPLES", "SCENES", "Scene", "Visit", "visiting"]

EXAMPLES = Path(__file__).parents[2] / "examples"


class Visit:
    """A browser at a served example."""

    def __init__(self, devtools: str, server: Server, pages: AsyncExitStack) -> None:
        self._devtools = devtools
        self._server = server
        self._pages = pages

    async def open(self, path: str = "/") -> Page:
        """Loads a page for a new visitor, without cookies of the others."""
        return await self._pages.enter_async_context(open_page(self._devtools, self._server.page(path)))


@asynccontextmanager
async def visiting(devtools: str, server: Server) -> AsyncIterator[Visit]:
    """Visits an example; its pages are closed in the end."""
    async with AsyncExitStack() as pages:
        yield Visit(devtools, server, pages)


Scene = Callable[[Visit], Awaitable[Page]]


LOG = "[...document.querySelectorAll('#log li')].map(line => line.textContent).join('|')"
"""The lines of the log, as JavaScript."""


async def _heard(page: Page, line: str) -> None:
    """Waits until the log ends with a line."""
    await page.until(f"{LOG}.endsWith({json.dumps(line)})")


async def _lines(page: Page, *lines: str) -> None:
    """Waits for as many lines in the log, and compares them."""
    await page.until(f"document.querySelectorAll('#log li').length >= {len(lines)}")
    shown = await page.evaluate(LOG)
    assert shown == "|".join(lines), shown


async def _state(page: Page, text: str) -> None:
    await page.until(f"document.querySelector('#state').textContent === {text!r}")


async def _say(page: Page, text: str) -> None:
    """Types a line into the last form, and sends it by its button."""
    await page.type("form:last-of-type input", text)
    await page.click("form:last-of-type button")


async def echo(visit: Visit) -> Page:
    page = await visit.open("/page")
    await _state(page, "Connected.")
    for count, text in enumerate(said := ["Hello", "<b>bold</b>", "Grüße"], 1):
        await _say(page, text)
        await _lines(page, *said[:count])
    return page


async def chat(visit: Visit) -> Page:
    alice, bob = await visit.open(), await visit.open()
    for page in (alice, bob):
        await _state(page, "Connected.")
    said = ["Hello, Bob", "Grüße, <b>Alice</b>", "Is anybody else here?"]
    for count, (page, text) in enumerate(zip((alice, bob, alice), said, strict=True), 1):
        await _say(page, text)
        for reader in (alice, bob):
            await _lines(reader, *said[:count])
    assert await alice.evaluate("document.querySelector('input').value") == ""
    return bob


async def login(visit: Visit) -> Page:
    async def sign_in(name: str, password: str) -> Page:
        page = await visit.open()
        await page.type("[name=name]", name)
        await page.type("[name=password]", password)
        await page.submit("form")
        return page

    stranger = await sign_in("<alice>", "guess")
    assert (
        await stranger.evaluate("document.querySelector('.error').textContent") == "The name or the password is wrong."
    )
    alice, bob = await sign_in("alice", "quack"), await sign_in("bob", "honk")
    for page in (alice, bob):
        await page.evaluate(
            "new Promise(done => { if (socket.readyState === 1) done(); else socket.onopen = () => done() })"
        )
    await _say(alice, "Hello")
    for page in (alice, bob):
        await _lines(page, "alice: Hello")
    await _say(bob, "<i>Hi, Alice</i>")
    for page in (alice, bob):
        await _lines(page, "alice: Hello", "bob: <i>Hi, Alice</i>")
    await bob.submit("form")
    assert await bob.evaluate("document.querySelector('h1').textContent") == "Sign in"
    return alice


async def rooms(visit: Visit) -> Page:
    async def here(page: Page, *names: str) -> None:
        await page.until(f"document.querySelector('#people').textContent === {', '.join(names)!r}")

    alice, bob, carol = [await visit.open(f"/{room}?name={name}") for room, name in _GUESTS]
    for page in (alice, bob):
        await here(page, "Alice", "Bob")
    await here(carol, "Carol")
    for page, text in ((carol, "One coffee, please"), (alice, "Green or black?"), (bob, "<b>Black</b>")):
        await _say(page, text)
        await _heard(page, text)
    await bob.type("[name=name]", "Robert")
    await bob.submit("form")
    for page in (alice, bob):
        await here(page, "Alice", "Robert")
        await _lines(page, "Alice: Green or black?", "Bob: <b>Black</b>")
    await here(carol, "Carol")
    await _lines(carol, "Carol: One coffee, please")
    return alice


async def upload(visit: Visit) -> Page:
    page = await visit.open()
    content = b"quack " * 1_000_000
    shown = await page.evaluate(
        """new Promise(done => {
            const shares = [];
            new MutationObserver(() => {
                shares.push(bar.value);
                if (state.textContent.includes("SHA")) done(JSON.stringify([shares, state.textContent]));
            }).observe(state, { childList: true });
            const files = new DataTransfer();
            files.items.add(new File(["quack ".repeat(1000000)], "quack.txt"));
            input.files = files.files;
            input.dispatchEvent(new Event("change"));
        })"""
    )
    shares, text = json.loads(shown)
    assert text == f"{len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}", text
    assert shares == sorted(shares), shares
    assert len(shares) > 2, shares
    assert shares[-1] == 1, shares
    return page


async def dashboard(visit: Visit) -> Page:
    page, other = await visit.open(), await visit.open()
    for one in (page, other):
        await _state(one, "Connected.")
    await other.click("button")
    numbers = "[...document.querySelectorAll('output')].map(one => one.textContent)"
    await page.until(f"Number({numbers}[1]) > 0")
    assert await page.evaluate(f"{numbers}[0]") == "2"
    await page.until("document.querySelectorAll('polyline')[1].getAttribute('points').split(' ').length >= 3")
    names = await page.evaluate("[...document.querySelectorAll('figcaption span')].map(one => one.textContent).join()")
    assert names == "Open connections,Messages received / s,Messages sent / s", names
    return page


_GUESTS = [("tea", "Alice"), ("tea", "Bob"), ("coffee", "Carol")]

SCENES: dict[str, Scene] = {scene.__name__: scene for scene in (echo, chat, login, rooms, upload, dashboard)}
"""The scenes by the names of their examples."""
