"""The video service in a pipeline of pipecat."""

import asyncio
import time

import pytest
from support import KEY, URL, needs_server, run, server, tone, until

pytest.importorskip("pipecat")
pytest.importorskip("aiortc")

from pipecat.frames.frames import (  # noqa: E402
    EndFrame,
    InterruptionFrame,
    OutputImageRawFrame,
    SpeechOutputAudioRawFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.pipeline import Pipeline  # noqa: E402
from pipecat.pipeline.runner import PipelineRunner  # noqa: E402
from pipecat.pipeline.task import PipelineTask  # noqa: E402
from pipecat.processors.frame_processor import FrameProcessor  # noqa: E402

from lipstream.pipecat import OUT_RATE, LipstreamVideoService  # noqa: E402


class Sink(FrameProcessor):
    """Keeps what comes out: when, and how loud or of what size."""

    def __init__(self):
        super().__init__()
        self.images, self.sounds, self.others = [], [], []

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        now = time.monotonic()
        if isinstance(frame, OutputImageRawFrame):
            assert len(frame.image) == frame.size[0] * frame.size[1] * 3 and frame.format == "RGB"
            self.images.append((now, frame.size))
        elif isinstance(frame, SpeechOutputAudioRawFrame):
            assert (frame.sample_rate, frame.num_channels) == (OUT_RATE, 1)
            samples = memoryview(frame.audio).cast("h")
            self.sounds.append((now, max(map(abs, samples[::16]), default=0)))
        else:
            self.others.append(frame)
        await self.push_frame(frame, direction)

    def loud(self):
        return [at for at, level in self.sounds if level > 3000]


@needs_server
@run
async def test_sound_goes_in_picture_and_sound_come_out_and_an_interruption_silences():
    avatar, sink = LipstreamVideoService(server=URL, key=KEY, avatar="demo"), Sink()
    task = PipelineTask(Pipeline([avatar, sink]), cancel_on_idle_timeout=False)
    running = asyncio.create_task(PipelineRunner(handle_sigint=False).run(task))
    await until("pictures", lambda: len(sink.images) > 10)
    assert {size for _, size in sink.images} == {(1280, 720)}
    assert not sink.loud()

    # In pieces, as a TTS sends them.
    sound = tone(1.5, 24_000)
    await task.queue_frame(TTSStartedFrame())
    for at in range(0, len(sound), 4800):
        await task.queue_frame(TTSAudioRawFrame(audio=sound[at : at + 4800], sample_rate=24_000, num_channels=1))
    await task.queue_frame(TTSStoppedFrame())
    await until("sound", lambda: sink.loud())
    await until("its end", lambda: sink.sounds and sink.sounds[-1][0] - sink.loud()[-1] > 0.5)
    heard = sink.loud()[-1] - sink.loud()[0]
    print(f"1.5 s of speech were heard in {heard:.2f} s, with {len(sink.images)} pictures")
    assert 1.0 < heard < 3.0
    kinds = [type(frame) for frame in sink.others]
    assert TTSStartedFrame in kinds and TTSStoppedFrame in kinds and TTSAudioRawFrame not in kinds

    # A rate that the server does not take, and no word of the end.
    for _ in range(50):
        await task.queue_frame(TTSAudioRawFrame(audio=tone(0.1, 22_000), sample_rate=22_000, num_channels=1))
    before = len(sink.loud())
    await until("sound again", lambda: len(sink.loud()) > before + 10)
    asked = time.monotonic()
    await task.queue_frame(InterruptionFrame())
    await until("silence", lambda: sink.sounds[-1][0] - sink.loud()[-1] > 0.3)
    print(f"silent {1e3 * (sink.loud()[-1] - asked):.0f} ms after the interruption")
    async with server() as lipstream:
        status = await lipstream.session(avatar.session.id).status()
        assert status["flush_ms"] is not None and status["speech_queued_ms"] == 0, status
        print(f"at rest after {status['flush_ms']:.0f} ms")
    shown = len(sink.images)
    await until("pictures after it", lambda: len(sink.images) > shown + 10)

    await task.queue_frame(EndFrame())
    await asyncio.wait_for(running, 30)
    async with server() as lipstream:
        assert avatar.session.id not in [one["id"] for one in await lipstream.sessions()], "its session has ended"
