"""The state shared by the connections of one loop."""

import asyncio
import threading

from duck.contrib.websockets.protocol.loop import clock, receive_buffer, threads


def test_each_loop_has_a_clock_of_its_own():
    async def own():
        loop = asyncio.get_running_loop()
        assert clock(loop) is clock(loop)
        return clock(loop)

    assert asyncio.run(own()) is not asyncio.run(own())


def test_a_loop_keeps_its_clock_while_another_one_runs_in_its_thread():
    async def own():
        return clock(asyncio.get_running_loop())

    with asyncio.Runner() as one, asyncio.Runner() as other:
        first = one.run(own())
        assert other.run(own()) is not first
        assert one.run(own()) is first


def test_connections_of_a_thread_share_their_buffer():
    async def scenario():
        loop = asyncio.get_running_loop()
        assert receive_buffer(loop) is receive_buffer(loop)
        assert receive_buffer(loop).window.obj is receive_buffer(loop).data

        def other_thread():
            return receive_buffer(loop)

        assert await asyncio.to_thread(other_thread) is not receive_buffer(loop)

    asyncio.run(scenario())


def test_threads_end_with_the_thread_of_their_loop():
    workers = []

    def work():
        assert threads() is threads()
        workers.append(threads().submit(threading.current_thread).result())

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert workers[0] is not workers[1]
    for worker in workers:
        worker.join()
