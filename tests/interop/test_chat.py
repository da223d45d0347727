"""The chat example, as two people with a browser see it."""

from .chromium import open_page

LINES = "[...document.querySelectorAll('#log li')].map(line => line.textContent)"
STATE = "document.querySelector('#state').textContent"


async def say(page, words):
    """Type a line, and send it by the button."""
    await page.evaluate(f"document.querySelector('input').value = {words!r}; document.querySelector('button').click()")


async def has_heard(page, *lines):
    await page.until(f"document.querySelectorAll('#log li').length === {len(lines)}")
    assert await page.evaluate(LINES) == list(lines)


def test_two_pages_hear_each_other(chat_server, devtools, run):
    async def scenario():
        url = chat_server.page("/")
        async with open_page(devtools, url) as alice, open_page(devtools, url) as bob:
            for page in (alice, bob):
                await page.until(f"{STATE} === 'Connected.'")
            await say(alice, "Hello, Bob")
            for page in (alice, bob):
                await has_heard(page, "Hello, Bob")
            await say(bob, "<b>Hello, Alice</b> 🦆")
            for page in (alice, bob):
                await has_heard(page, "Hello, Bob", "<b>Hello, Alice</b> 🦆")
            assert await alice.evaluate("document.querySelector('input').value") == ""

    run(scenario())
