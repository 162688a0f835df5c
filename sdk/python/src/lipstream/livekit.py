"""An avatar for agents of livekit-agents: a participant that speaks the agent's sound with a Lipstream session.

Agents begin it by :class:`lipstream.livekit_session.AvatarSession`; this is what it does in the room. The agent sends its sound by
DataStream and is told when it was played, as ``DataStreamAudioOutput`` of livekit-agents does it:

    avatar = Avatar(room, server.session("anna"), agent="agent-identity")     # room: joined as the avatar
    await avatar.start()
    ...
    agent_session.output.audio = DataStreamAudioOutput(agent_room, destination_identity=avatar_identity)

``publish=False`` leaves the picture to WHEP.
"""

from __future__ import annotations

import asyncio
import array
import json
import logging
import uuid
from dataclasses import dataclass, field
from typing import Any

from .errors import LipstreamError
from .session import Session
from .speech import RATES, Speech

TOPIC = "lk.audio_stream"
CLEAR_BUFFER = "lk.clear_buffer"
PLAYBACK_FINISHED = "lk.playback_finished"
PLAYBACK_STARTED = "lk.playback_started"
#: The agent waits 2 s for the end of what it cleared; it is told before, whatever the server does.
CLEARED_WITHIN = 1.5
#: Tries of a call to the agent, and seconds between two.
TRIES, PAUSE = 3, 0.1
#: Seconds without sound or its end after which a stream is taken to have ended.
IDLE = 10.0

logger = logging.getLogger(__name__)


@dataclass
class Segment:
    """The sound of one byte stream."""

    id: str
    #: Seconds that came.
    received: float = 0.0
    cleared: asyncio.Event = field(default_factory=asyncio.Event)
    #: A newer stream has come: nothing more comes of this one than is there.
    superseded: asyncio.Event = field(default_factory=asyncio.Event)
    finished: bool = False


class Avatar:
    """See the module. ``room`` is a connected ``livekit.rtc.Room``, ``agent`` the identity of who speaks."""

    def __init__(self, room: Any, session: Session, *, agent: str, publish: bool = True) -> None:
        self._room = room
        self._session = session
        self._agent = agent
        self._publish = publish
        self._tasks: set[asyncio.Task[Any]] = set()
        self._streams: asyncio.Queue[Any] = asyncio.Queue()
        #: The one whose stream is read.
        self._reading: Segment | None = None
        #: Segments whose end the agent waits for, first to last.
        self._segments: list[Segment] = []
        self._speech: Speech | None = None
        self._publisher: Any = None

    async def start(self) -> None:
        if self._publish:
            from .livekit_tracks import Publisher

            self._publisher = Publisher(self._room, self._session)
            await self._publisher.open()
        self._room.local_participant.register_rpc_method(CLEAR_BUFFER, self._on_clear)
        self._room.register_byte_stream_handler(TOPIC, self._on_stream)
        self._spawn(self._speak_streams())

    async def aclose(self) -> None:
        self._room.unregister_byte_stream_handler(TOPIC)
        self._room.local_participant.unregister_rpc_method(CLEAR_BUFFER)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._speech:
            await self._speech.close()
        if self._publisher:
            await self._publisher.close()

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _on_stream(self, reader: Any, identity: str) -> None:
        if identity == self._agent:
            self._streams.put_nowait(reader)
            if self._reading:
                self._reading.superseded.set()

    async def _speak_streams(self) -> None:
        while True:
            reader = await self._streams.get()
            # Others may speak in the session too.
            segment = Segment(f"livekit-{uuid.uuid4().hex[:12]}")
            self._segments.append(segment)
            self._reading = segment
            if not self._streams.empty():
                segment.superseded.set()
            try:
                await self._speak(reader, segment)
            except (LipstreamError, ValueError, KeyError) as error:
                logger.error("segment %s is not spoken: %s", segment.id, error)
                await self._finished(segment, 0.0, True)

    async def _speak(self, reader: Any, segment: Segment) -> None:
        attributes = reader.info.attributes or {}
        rate, channels = int(attributes["sample_rate"]), int(attributes["num_channels"])
        if rate not in RATES or not 1 <= channels <= 2:
            raise ValueError(f"{channels} channels at {rate} Hz are not taken")
        speech = await self._open(rate)
        await speech.start(segment.id)
        odd = b""
        async for piece in _pieces(reader, segment):
            piece = odd + piece
            whole = len(piece) - len(piece) % (2 * channels)
            odd, piece = piece[whole:], piece[:whole]
            segment.received += len(piece) / (2 * channels * rate)
            await speech.write(piece if channels == 1 else _mono(piece))
        if not segment.cleared.is_set():
            await speech.end()
            if segment.received == 0.0:
                # The server tells nothing of silence.
                await self._finished(segment, 0.0, False)

    async def _open(self, rate: int) -> Speech:
        if self._speech and self._speech.rate == rate:
            return self._speech
        speech = self._session.speech(rate)
        await speech.open()
        self._speech, before = speech, self._speech
        self._spawn(self._listen(speech))
        if before:
            await before.close()
        return speech

    async def _listen(self, speech: Speech) -> None:
        async for event in speech:
            segment = next((s for s in self._segments if s.id == event.get("utterance")), None)
            if event["type"] == "speaking" and segment:
                self._spawn(self._call(PLAYBACK_STARTED, ""))
            elif event["type"] == "ended" and segment:
                await self._finished(segment, event["spoken_ms"] / 1e3, "cut" in event)
            elif event["type"] == "error":
                logger.error("the server says: %s", event["message"])
        if self._speech is speech:
            # The session has ended: nothing that waits will be played.
            self._speech = None
            for segment in list(self._segments):
                await self._finished(segment, 0.0, True)

    async def _on_clear(self, data: Any) -> str:
        if data.caller_identity != self._agent:
            return "reject"
        waiting = list(self._segments)
        for segment in waiting:
            segment.cleared.set()
        self._spawn(self._clear(waiting))
        return "ok"

    async def _clear(self, waiting: list[Segment]) -> None:
        async def interrupt() -> None:
            await self._session.interrupt()
            while any(not segment.finished for segment in waiting):
                await asyncio.sleep(0.01)

        try:
            await asyncio.wait_for(interrupt(), CLEARED_WITHIN)
        except (LipstreamError, OSError, asyncio.TimeoutError) as error:
            logger.error("the speech is not known to be interrupted: %r", error)
        # One that the server never heard of, or says nothing about.
        for segment in waiting:
            await self._finished(segment, 0.0, True)

    async def _finished(self, segment: Segment, position: float, interrupted: bool) -> None:
        """Tells the agent once that a segment is over."""
        if segment.finished:
            return
        segment.finished = True
        self._segments.remove(segment)
        payload = json.dumps({"playback_position": position, "interrupted": interrupted})
        await self._call(PLAYBACK_FINISHED, payload)

    async def _call(self, method: str, payload: str) -> None:
        for n in range(TRIES):
            try:
                await self._room.local_participant.perform_rpc(
                    destination_identity=self._agent, method=method, payload=payload
                )
                return
            except Exception as error:
                # An agent that does not ask for the start has no such method.
                if method == PLAYBACK_STARTED or n == TRIES - 1:
                    logger.log(
                        logging.DEBUG if method == PLAYBACK_STARTED else logging.ERROR, "%s: %s", method, error
                    )
                    return
                await asyncio.sleep(PAUSE)


async def _pieces(reader: Any, segment: Segment) -> Any:
    """Pieces of a stream until it ends, is cleared, or its end seems lost: a newer one has come, or it is silent for long."""
    pieces = reader.__aiter__()
    over = [asyncio.ensure_future(event.wait()) for event in (segment.cleared, segment.superseded)]
    try:
        while not segment.cleared.is_set():
            piece = asyncio.ensure_future(pieces.__anext__())
            done, _ = await asyncio.wait({piece, *over}, timeout=IDLE, return_when=asyncio.FIRST_COMPLETED)
            # What is there is taken first.
            if piece not in done:
                piece.cancel()
                return
            try:
                yield piece.result()
            except StopAsyncIteration:
                return
    finally:
        for event in over:
            event.cancel()


def _mono(samples: bytes) -> bytes:
    """The mean of two channels."""
    both = array.array("h", samples)
    return array.array("h", ((left + right) // 2 for left, right in zip(both[::2], both[1::2]))).tobytes()
