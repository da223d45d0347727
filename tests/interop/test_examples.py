"""The examples in a browser: each of them plays its scene."""

import pytest

from ..support.redis import RedisServer
from .scenes import EXAMPLES, SCENES, visiting
from .serving import serving

PAGES = sorted(file.stem for file in EXAMPLES.glob("*.py") if "<!doctype html>" in file.read_text())


def test_every_example_with_a_page_has_a_scene_and_fits_a_screen():
    assert sorted(SCENES) == [name for name in PAGES if name != "aiohttp_host"]
    assert [name for name in SCENES if len((EXAMPLES / f"{name}.py").read_text().splitlines()) >= 80] == []


@pytest.mark.parametrize("name", SCENES)
async def test_an_example_plays_its_scene(name, devtools):

    with serving(EXAMPLES / f"{name}.py") as server:
        async with visiting(devtools, server) as visit:
            await SCENES[name](visit)


async def test_the_rooms_span_two_workers(devtools, tmp_path):

    redis = RedisServer(tmp_path)
    redis.start()
    try:
        with serving(EXAMPLES / "rooms.py", "--workers", "2", "--groups", redis.url) as server:
            async with visiting(devtools, server) as visit:
                await SCENES["rooms"](visit)
    finally:
        redis.kill()
