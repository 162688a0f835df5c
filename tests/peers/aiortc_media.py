"""What the aiortc peers send, and what they count of what they are sent."""
import asyncio
import math
from fractions import Fraction
from pathlib import Path

from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame, VideoFrame

WIDTH, HEIGHT, RATE = 320, 240, 25
SAMPLES, SAMPLE_RATE, TONE = 960, 48_000, 440


def connection():
    """One that asks no STUN server, which it would by default."""
    return RTCPeerConnection(RTCConfiguration(iceServers=[]))


class Paced(MediaStreamTrack):
    """A track of which frame `n` is due `n * step` seconds after the first."""

    step: Fraction

    def __init__(self):
        super().__init__()
        self.count, self.began = 0, None

    async def recv(self):
        loop = asyncio.get_running_loop()
        if self.began is None:
            self.began = loop.time()
        await asyncio.sleep(self.began + float(self.count * self.step) - loop.time())
        frame = self.frame(self.count)
        self.count += 1
        return frame


class Picture(Paced):
    """Bright on the left, dark on the right, with a grey bar that goes down."""

    kind = "video"
    step = Fraction(1, RATE)

    def frame(self, count):
        frame = VideoFrame(WIDTH, HEIGHT, "yuv420p")
        frame.pts, frame.time_base = count, self.step
        luma, *chroma = frame.planes
        half = WIDTH // 2
        row = bytes([200]) * half + bytes([50]) * half + bytes(luma.line_size - WIDTH)
        bar = bytes([125]) * luma.line_size
        at = count * 4 % HEIGHT
        luma.update(b"".join(bar if at <= y < at + 8 else row for y in range(HEIGHT)))
        for plane in chroma:
            plane.update(bytes([128]) * plane.buffer_size)
        return frame


class Tone(Paced):
    """A sine of half the full scale."""

    kind = "audio"
    step = Fraction(SAMPLES, SAMPLE_RATE)

    def frame(self, count):
        frame = AudioFrame(format="s16", layout="mono", samples=SAMPLES)
        frame.pts, frame.sample_rate, frame.time_base = count * SAMPLES, SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
        first = count * SAMPLES
        wave = (math.sin(2 * math.pi * TONE * (first + n) / SAMPLE_RATE) for n in range(SAMPLES))
        frame.planes[0].update(b"".join(int(16_384 * s).to_bytes(2, "little", signed=True) for s in wave))
        return frame


class Tally:
    """Counts the decoded frames of a peer; `folder` is given some of its pictures."""

    def __init__(self, folder: Path):
        self.folder, self.ended = folder, 0
        steps = {"frames": 0, "first": None, "last": None, "shortest": math.inf, "longest": -math.inf}
        self.video = {**steps, "sizes": []}
        self.audio = {**steps, "rates": [], "loudest": 0}
        self.tasks = []

    def take(self, track):
        self.tasks.append(asyncio.ensure_future(self.count(track)))

    async def count(self, track):
        seen = self.video if track.kind == "video" else self.audio
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                self.ended += 1
                return
            self.time(seen, float(frame.pts * frame.time_base))
            if track.kind == "video":
                size = [frame.width, frame.height]
                if size not in seen["sizes"]:
                    seen["sizes"].append(size)
                if seen["frames"] % 25 == 10 and seen["frames"] < 75:
                    self.keep(frame, seen["frames"])
            else:
                if frame.sample_rate not in seen["rates"]:
                    seen["rates"].append(frame.sample_rate)
                samples = memoryview(bytes(frame.planes[0])).cast("h")
                seen["loudest"] = max(seen["loudest"], max(samples), -min(samples))
            seen["frames"] += 1

    def time(self, seen, pts):
        """PTS in seconds, and the steps from one to the next."""
        if seen["last"] is None:
            seen["first"] = pts
        else:
            step = pts - seen["last"]
            seen["shortest"], seen["longest"] = min(seen["shortest"], step), max(seen["longest"], step)
        seen["last"] = pts

    def keep(self, frame, count):
        """The luma of a frame, as a PGM file."""
        luma = frame.reformat(format="gray").planes[0]
        data, line = bytes(luma), luma.line_size
        rows = b"".join(data[y * line : y * line + frame.width] for y in range(frame.height))
        (self.folder / f"{count}.pgm").write_bytes(f"P5 {frame.width} {frame.height} 255\n".encode() + rows)

    def report(self):
        """None before there is one of both."""
        both = self.video["frames"] > 1 and self.audio["frames"] > 1
        return {"video": self.video, "audio": self.audio, "ended": self.ended} if both else None
