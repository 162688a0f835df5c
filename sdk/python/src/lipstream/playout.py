"""Puts the streams of one source on one clock: each frame is played when its counterpart of the other stream is."""

from __future__ import annotations

#: Most that a frame is held for the other stream, in seconds: more is a fault of the network, not a difference of paths.
LONGEST = 0.5
#: Weight of a new frame in the mean of a stream's delay.
WEIGHT = 0.05


class Playout:
    """Times are in seconds. A stream whose source time is not known yet is played as it comes."""

    def __init__(self) -> None:
        self._delays: dict[str, float] = {}

    def hold(self, stream: str, arrived: float, source: float | None) -> float:
        """How long a frame is held that came at ``arrived`` and was made at ``source`` by the source's clock."""
        if source is None:
            return 0.0
        delay = arrived - source
        before = self._delays.get(stream, delay)
        self._delays[stream] = before + (delay - before) * WEIGHT
        due = source + max(self._delays.values())
        return min(max(due - arrived, 0.0), LONGEST)


class SourceClock:
    """A stream's RTP time as time of the source's clock, by its sender reports (RFC 3550, 6.4.1)."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._report: tuple[float, int] | None = None

    def report(self, ntp: int, rtp: int) -> None:
        """A sender report: NTP time in 32.32 bits and the RTP time of the same moment."""
        self._report = (ntp / 2**32, rtp)

    def time(self, rtp: int) -> float | None:
        """The source's time of an RTP time, which may have wrapped; ``None`` before the first report."""
        if self._report is None:
            return None
        ntp, at = self._report
        ticks = (rtp - at + 2**31) % 2**32 - 2**31
        return ntp + ticks / self._rate
