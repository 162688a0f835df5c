"""A server for the tests: LIPSTREAM_URL and LIPSTREAM_KEY name one that runs, with the session `demo`."""

import asyncio
import functools
import math
import os
import struct
from pathlib import Path

import pytest

from lipstream import Lipstream

ROOT = Path(__file__).parents[3]
URL = os.environ.get("LIPSTREAM_URL", "")
KEY = os.environ.get("LIPSTREAM_KEY")
#: Seconds for one condition on a busy machine.
PATIENCE = 60

needs_server = pytest.mark.skipif(not URL, reason="LIPSTREAM_URL names no server")


def server() -> Lipstream:
    return Lipstream(URL, key=KEY)


def run(test):
    """Runs a test that is a coroutine."""

    @functools.wraps(test)
    def wrapped(**fixtures):
        asyncio.run(asyncio.wait_for(test(**fixtures), 4 * PATIENCE))

    return wrapped


def tone(seconds: float, rate: int = 24_000) -> bytes:
    count = int(seconds * rate)
    return struct.pack(f"<{count}h", *(int(12_000 * math.sin(n * 0.06)) for n in range(count)))


async def until(what, condition):
    for _ in range(PATIENCE * 50):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"waited for {what}")
