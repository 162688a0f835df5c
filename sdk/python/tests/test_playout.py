"""Picture and sound of one moment are played together."""

import asyncio

import pytest

from lipstream.playout import LONGEST, Playout, SourceClock
from support import run, until


def test_the_faster_stream_is_held_for_the_slower():
    playout = Playout()
    for n in range(200):
        made = n * 0.02
        assert playout.hold("audio", made + 0.15, made) < 1e-9
        if n % 2 == 0:
            held = playout.hold("video", made + 0.05, made)
    assert abs(held - 0.1) < 1e-6


def test_nothing_is_held_for_long_or_without_a_source_time():
    playout = Playout()
    assert playout.hold("audio", 100.0, None) == 0.0
    playout.hold("audio", 100.0, 0.0)
    assert playout.hold("video", 100.0, 100.0) == LONGEST


def test_rtp_time_is_read_across_its_wrap():
    clock = SourceClock(48_000)
    assert clock.time(5) is None
    clock.report(10 << 32, 2**32 - 24_000)
    assert clock.time(2**32 - 24_000) == 10.0
    assert clock.time(24_000) == 11.0
    assert clock.time(2**32 - 72_000) == 9.0


@run
async def test_a_callback_that_fails_is_told_of_and_the_next_frame_comes(caplog):
    whep = pytest.importorskip("lipstream.whep")
    shown = []

    async def show(frame):
        shown.append(frame)
        if frame == "first":
            raise ValueError("no such window")

    player = whep.Player(None, show, show)
    frames = asyncio.Queue()
    for frame in ("first", "second"):
        frames.put_nowait((0.0, None, frame))
    playing = asyncio.create_task(player._play("video", frames))
    await until("both frames", lambda: len(shown) == 2)
    playing.cancel()
    assert "no such window" in caplog.text
