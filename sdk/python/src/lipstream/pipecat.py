"""A video service for pipecat: sound of a TTS goes in, a talking person comes out as frames.

    avatar = LipstreamVideoService(server="http://127.0.0.1:8080", avatar="demo")
    Pipeline([transport.input(), stt, llm, tts, avatar, transport.output()])

The transport's output needs ``video_out_enabled``, ``video_out_is_live``, and the size of the avatar. Frames of the TTS end
here; the sound that goes on is the session's own, with the picture that belongs to it.
"""

from __future__ import annotations

import asyncio
import uuid

import av
from loguru import logger
from pipecat.audio.utils import create_stream_resampler
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputImageRawFrame,
    SpeechOutputAudioRawFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.ai_service import AIService
from pipecat.services.settings import ServiceSettings

from .client import Lipstream
from .errors import Closed, LipstreamError
from .session import Session
from .speech import RATES, Speech
from .whep import Player

#: Rate to which sound is brought that the server does not take as it is.
RATE = 24_000
#: Rate and channels of the sound that goes on.
OUT_RATE, OUT_LAYOUT = 48_000, "mono"
#: Seconds without sound of the TTS after which its utterance has ended; a TTS that does not say when it stops.
PAUSE = 0.5


class LipstreamVideoService(AIService):
    """See the module. It begins a session of its own and ends it, or uses one that is there: ``session="demo"``."""

    def __init__(
        self,
        *,
        server: str = "http://127.0.0.1:8080",
        key: str | None = None,
        avatar: str = "demo",
        session: str | None = None,
        **settings: object,
    ) -> None:
        super().__init__(settings=ServiceSettings(model=None), **settings)
        self._server = Lipstream(server, key=key)
        self._avatar = avatar
        self._own = session is None
        self._session: Session = self._server.session(session or f"pipecat-{uuid.uuid4().hex[:12]}")
        self._player = Player(self._session, self._on_video, self._on_audio)
        self._speech: Speech | None = None
        self._events: asyncio.Task[None] | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None
        self._speaking = False
        self._resampler = create_stream_resampler()
        self._sound = av.AudioResampler(format="s16", layout=OUT_LAYOUT, rate=OUT_RATE)

    @property
    def session(self) -> Session:
        """Its session: for a viewer beside the pipeline, its state, its clips."""
        return self._session

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        if self._own:
            self._session = await self._server.create_session(self._session.id, avatar=self._avatar)
        await self._player.open()

    async def stop(self, frame: EndFrame) -> None:
        await super().stop(frame)
        await self._close()

    async def cancel(self, frame: CancelFrame) -> None:
        await super().cancel(frame)
        await self._close()

    async def cleanup(self) -> None:
        await super().cleanup()  # type: ignore[no-untyped-call]
        await self._close()
        await self._server.aclose()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            await self._say(frame)
            return
        if isinstance(frame, TTSStoppedFrame):
            await self._end()
        elif isinstance(frame, InterruptionFrame):
            await self._interrupt()
        await self.push_frame(frame, direction)

    async def _say(self, frame: TTSAudioRawFrame) -> None:
        rate = frame.sample_rate if frame.sample_rate in RATES else RATE
        sound = frame.audio
        if rate != frame.sample_rate:
            sound = await self._resampler.resample(sound, frame.sample_rate, rate)
        try:
            if self._speech is None or self._speech.rate != rate:
                await self._open_speech(rate)
            assert self._speech is not None
            if not self._speaking:
                await self._speech.start()
                self._speaking = True
            await self._speech.write(sound)
        except Closed as closed:
            # The next sound tries anew.
            await self._close_speech()
            await self.push_error(f"Lipstream: {closed}", exception=closed)
            return
        except LipstreamError as refusal:
            await self.push_error(f"Lipstream: {refusal}", exception=refusal)
            return
        if self._pause:
            self._pause.cancel()
        self._pause = asyncio.get_running_loop().call_later(PAUSE, self._end_soon)

    def _end_soon(self) -> None:
        self._ending = asyncio.create_task(self._end())

    async def _end(self) -> None:
        if self._pause:
            self._pause.cancel()
        if self._speaking and self._speech:
            self._speaking = False
            try:
                await self._speech.end()
            except Closed as closed:
                logger.warning(f"Lipstream: {closed}")

    async def _interrupt(self) -> None:
        if self._pause:
            self._pause.cancel()
        # What is still sent of the utterance is thrown away until the next one starts.
        self._speaking = False
        try:
            ms = await self._session.interrupt()
            logger.debug(f"Lipstream: the mouth is at rest after {ms:.0f} ms")
        except LipstreamError as refusal:
            await self.push_error(f"Lipstream: {refusal}", exception=refusal)

    async def _open_speech(self, rate: int) -> None:
        await self._close_speech()
        speech = self._session.speech(rate)
        await speech.open()
        self._speech = speech
        self._events = asyncio.create_task(self._listen(speech))

    async def _listen(self, speech: Speech) -> None:
        async for event in speech:
            if event["type"] == "error":
                await self.push_error(f"Lipstream: {event['message']}")
            else:
                logger.trace(f"Lipstream: {event}")

    async def _close_speech(self) -> None:
        speech, self._speech = self._speech, None
        events, self._events = self._events, None
        self._speaking = False
        if speech:
            await speech.close()
        if events:
            events.cancel()

    async def _close(self) -> None:
        if self._pause:
            self._pause.cancel()
        await self._player.close()
        await self._close_speech()
        if self._own:
            self._own = False
            try:
                await self._session.delete()
            except LipstreamError as refusal:
                logger.debug(f"Lipstream: {refusal}")

    async def _on_video(self, frame: av.VideoFrame) -> None:
        image = await asyncio.to_thread(lambda: frame.to_ndarray(format="rgb24").tobytes())
        await self.push_frame(OutputImageRawFrame(image=image, size=(frame.width, frame.height), format="RGB"))

    async def _on_audio(self, frame: av.AudioFrame) -> None:
        for sound in self._sound.resample(frame):
            samples = sound.to_ndarray().tobytes()
            await self.push_frame(SpeechOutputAudioRawFrame(audio=samples, sample_rate=OUT_RATE, num_channels=1))
