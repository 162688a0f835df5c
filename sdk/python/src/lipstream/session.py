"""A session: a live picture that says what it is given."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from . import routes
from .speech import Speech
from .types import Event, SessionChange, SessionStatus, Spoken, Voice

if TYPE_CHECKING:
    from .client import Lipstream


class Session:
    """A session of a server; made by :meth:`Lipstream.session` and :meth:`Lipstream.create_session`."""

    def __init__(self, server: Lipstream, id: str) -> None:
        self.server = server
        self.id = id

    def _path(self, path: str) -> str:
        return routes.of(path, self.id)

    @property
    def whep_url(self) -> str:
        """Where viewers play it by WHEP."""
        return f"{self.server.url}{routes.of('/whep/{id}', self.id)}"

    async def status(self) -> SessionStatus:
        answer: SessionStatus = (await self.server.request("GET", self._path(routes.SESSION))).json()
        return answer

    async def change(
        self,
        *,
        clip: str | None = None,
        speaker: str | None = None,
        speaker_b: str | None = None,
        params: dict[str, str] | None = None,
    ) -> SessionStatus:
        """Shows another clip, lets another face speak, or sets parameters of the graph such as ``{"motion-gain": "1.2"}``."""
        body = SessionChange()
        if clip is not None:
            body["clip"] = clip
        if speaker is not None:
            body["speaker"] = speaker
        if speaker_b is not None:
            body["speaker_b"] = speaker_b
        if params is not None:
            body["params"] = params
        answer: SessionStatus = (await self.server.request("PATCH", self._path(routes.SESSION), json=body)).json()
        return answer

    async def delete(self) -> None:
        """Ends it with its viewers."""
        await self.server.request("DELETE", self._path(routes.SESSION))

    async def speak(
        self,
        sound: bytes | AsyncIterator[bytes],
        content_type: str,
        *,
        utterance: str | None = None,
        voice: Voice | None = None,
    ) -> Spoken:
        """Speaks WAV, MP3, Ogg Opus, FLAC, or raw samples as ``audio/L16;rate=24000;channels=1``, while it comes. Returns
        when all of it is queued. ``voice`` is ``"b"`` for the session's second voice."""
        params = {"utterance": utterance, "voice": voice}
        answer: Spoken = (
            await self.server.request(
                "POST",
                self._path(routes.SPEAK),
                content=sound,
                params={name: value for name, value in params.items() if value is not None},
                headers={"Content-Type": content_type},
            )
        ).json()
        return answer

    def speech(self, rate: int = 24_000, *, voice: Voice = "a") -> Speech:
        """A WebSocket for speech of a voice as it is made, and for its events; use it with ``async with``."""
        url = self.server.url.replace("http", "ws", 1) + self._path(routes.AUDIO)
        if voice != "a":
            url += f"?voice={voice}"
        return Speech(url, self.server.headers, rate)

    async def events(self) -> AsyncIterator[Event]:
        """What happens to its speech, whoever speaks, until the session ends."""
        async with self.speech() as speech:
            async for event in speech:
                yield event

    async def interrupt(self, voice: Voice | None = None) -> float:
        """Throws away all queued speech, or that of one voice. Returns when the mouth is at rest, with the milliseconds that it took."""
        params = {} if voice is None else {"voice": voice}
        answer = await self.server.request("POST", self._path(routes.INTERRUPT), params=params)
        return float(answer.json()["ms"])
