"""A loop that waits for news ends when it is told to, also in the moment in which news come."""

import asyncio

from infra.local.waiting import news


def test_news_and_their_absence_are_told_apart() -> None:
    async def both() -> tuple[bool, bool]:
        event = asyncio.Event()
        absent = await news(event, 0.01)
        event.set()
        return absent, await news(event, None)

    assert asyncio.run(both()) == (False, True)


def test_a_cancellation_that_comes_with_the_news_is_not_lost() -> None:
    async def told_and_cancelled() -> bool:
        event = asyncio.Event()
        waiting = asyncio.ensure_future(news(event, 60))
        await asyncio.sleep(0)
        event.set()
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        return waiting.cancelled() or waiting.result()

    async def cancelled_and_told() -> bool:
        event = asyncio.Event()
        waiting = asyncio.ensure_future(news(event, 60))
        await asyncio.sleep(0)
        event.set()
        waiting.cancel()
        await asyncio.wait([waiting])
        return waiting.cancelled()

    assert asyncio.run(told_and_cancelled())
    assert asyncio.run(cancelled_and_told())
