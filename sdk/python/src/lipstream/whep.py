"""Plays a session by WHEP with aiortc: decoded pictures and sound, together on one clock.

    async with Player(session, on_video, on_audio): ...

Needs aiortc, which both extras bring.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any
from urllib.parse import urljoin

import av
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtp import RtcpSrPacket

from . import routes
from .playout import Playout, SourceClock
from .session import Session

OnVideo = Callable[[av.VideoFrame], Awaitable[None]]
OnAudio = Callable[[av.AudioFrame], Awaitable[None]]
#: RTP clock rates of H.264 and VP8, and of Opus.
RTP_RATES = {"video": 90_000, "audio": 48_000}
#: Frames that may wait to be played: about a second.
WAITING = {"video": 25, "audio": 50}

logger = logging.getLogger(__name__)

#: When a frame came, when the source made it, and the frame.
Frames = asyncio.Queue[tuple[float, "float | None", Any]]


class Player:
    """A viewer of one session. The callbacks get frames when they are to be shown and heard; they are not called again
    before they have returned. What they raise is logged, and the next frame comes all the same."""

    def __init__(self, session: Session, on_video: OnVideo, on_audio: OnAudio) -> None:
        self._session = session
        self._callbacks: dict[str, Callable[[Any], Awaitable[None]]] = {"video": on_video, "audio": on_audio}
        self._peer: RTCPeerConnection | None = None
        self._resource: str | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._playout = Playout()

    async def __aenter__(self) -> Player:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        # No STUN server is asked: Lipstream is reached at the addresses that it tells.
        self._peer = peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        for kind in ("video", "audio"):
            peer.addTransceiver(kind, direction="recvonly")
        clocks = {item.kind: self._clock(item.kind, item.receiver) for item in peer.getTransceivers()}

        @peer.on("track")
        def play(track: MediaStreamTrack) -> None:
            frames: Frames = asyncio.Queue(WAITING[track.kind])
            self._tasks.append(asyncio.create_task(self._read(track, clocks[track.kind], frames)))
            self._tasks.append(asyncio.create_task(self._play(track.kind, frames)))

        try:
            await peer.setLocalDescription(await peer.createOffer())
            path = routes.of("/whep/{id}", self._session.id)
            answer = await self._session.server.request(
                "POST", path, content=peer.localDescription.sdp, headers={"Content-Type": "application/sdp"}
            )
            self._resource = urljoin(path, answer.headers["Location"])
            await peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        peer, self._peer = self._peer, None
        if peer:
            await peer.close()
        resource, self._resource = self._resource, None
        if resource:
            try:
                await self._session.server.request("DELETE", resource)
            except Exception:
                # The session may have ended, and the viewer with it.
                pass

    def _clock(self, kind: str, receiver: Any) -> Callable[[int], float | None]:
        """The source's time of a frame's PTS. aiortc keeps sender reports and the RTP time of PTS 0 to itself; where
        another version has them elsewhere, frames are played as they come."""
        clock = SourceClock(RTP_RATES[kind])
        handle = getattr(receiver, "_handle_rtcp_packet", None)
        mapper = getattr(receiver, "_RTCRtpReceiver__timestamp_mapper", None)
        if handle is None or mapper is None or not hasattr(mapper, "_origin"):
            return lambda pts: None

        async def handle_too(packet: Any) -> None:
            if isinstance(packet, RtcpSrPacket):
                clock.report(packet.sender_info.ntp_timestamp, packet.sender_info.rtp_timestamp)
            await handle(packet)

        receiver._handle_rtcp_packet = handle_too
        return lambda pts: None if mapper._origin is None else clock.time(mapper._origin + pts)

    async def _read(self, track: MediaStreamTrack, clock: Callable[[int], float | None], frames: Frames) -> None:
        """Takes frames as they come; where they are not played in time, the oldest are dropped."""
        try:
            while True:
                frame = await track.recv()
                source = None if frame.pts is None else clock(frame.pts)
                if frames.full():
                    frames.get_nowait()
                frames.put_nowait((time.monotonic(), source, frame))
        except MediaStreamError:
            # The session has ended, or the connection was closed.
            return

    async def _play(self, kind: str, frames: Frames) -> None:
        while True:
            arrived, source, frame = await frames.get()
            due = arrived + self._playout.hold(kind, arrived, source)
            left = due - time.monotonic()
            if left > 0.001:
                await asyncio.sleep(left)
            try:
                await self._callbacks[kind](frame)
            except Exception:
                logger.exception("the callback for %s failed", kind)
