"""Picture and sound of one moment are played together."""

from lipstream.playout import LONGEST, Playout, SourceClock


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
