"""The picture and sound of a session as tracks of a LiveKit participant."""

from __future__ import annotations

import asyncio
from typing import Any

import av
from livekit import rtc

from .session import Session
from .whep import Player

RATE = 48_000


class Publisher:
    """Plays a session by WHEP and publishes what it plays to ``room``."""

    def __init__(self, room: rtc.Room, session: Session) -> None:
        self._room = room
        self._audio = rtc.AudioSource(RATE, 1)
        self._video: rtc.VideoSource | None = None
        self._sound = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        self._tracks: list[str] = []
        self._player = Player(session, self._on_video, self._on_audio)

    async def open(self) -> None:
        track = rtc.LocalAudioTrack.create_audio_track("lipstream-voice", self._audio)
        await self._add(track, rtc.TrackSource.SOURCE_MICROPHONE)
        try:
            await self._player.open()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._player.close()
        for sid in self._tracks:
            await self._room.local_participant.unpublish_track(sid)

    async def _add(self, track: Any, source: Any) -> None:
        options = rtc.TrackPublishOptions(source=source)
        publication = await self._room.local_participant.publish_track(track, options)
        self._tracks.append(publication.sid)

    async def _on_video(self, frame: av.VideoFrame) -> None:
        if self._video is None:
            # Its size is known now.
            self._video = rtc.VideoSource(frame.width, frame.height)
            track = rtc.LocalVideoTrack.create_video_track("lipstream-picture", self._video)
            await self._add(track, rtc.TrackSource.SOURCE_CAMERA)
        image = await asyncio.to_thread(lambda: frame.to_ndarray(format="yuv420p").tobytes())
        self._video.capture_frame(rtc.VideoFrame(frame.width, frame.height, rtc.VideoBufferType.I420, image))

    async def _on_audio(self, frame: av.AudioFrame) -> None:
        for sound in self._sound.resample(frame):
            samples = sound.to_ndarray().tobytes()
            await self._audio.capture_frame(rtc.AudioFrame(samples, RATE, 1, sound.samples))
