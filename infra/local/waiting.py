"""Waiting for news in a loop that somebody may end."""

import asyncio


async def news(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait until the event is set, `seconds` at most; whether it is.

    Not `asyncio.wait_for`, which on Python 3.11 forgets that its task was cancelled where the event comes in the same
    moment: a loop around it would not end, and whoever waits for the loop neither.
    """
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
