"""Speech over a WebSocket, as it is made."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection, connect

from .errors import Closed, problem, unreachable
from .types import Event

#: Sample rates that the server takes, in Hz.
RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
#: Bytes of sound in one message.
PIECE = 1 << 16
#: Events that wait to be read; older ones are dropped.
WAITING = 1024


class Speech:
    """16-bit little-endian samples of one channel go up, events come down: ``async for event in speech``."""

    def __init__(self, url: str, headers: dict[str, str], rate: int) -> None:
        if rate not in RATES:
            raise ValueError(f"rate {rate} is not taken; one of {', '.join(map(str, RATES))}")
        self.rate = rate
        self._url = url
        self._headers = headers
        self._socket: ClientConnection | None = None
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None
        self._reason = "the WebSocket is not open"

    async def __aenter__(self) -> Speech:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        try:
            self._socket = await connect(self._url, additional_headers=self._headers, max_size=1 << 20)
        except websockets.exceptions.InvalidStatus as refusal:
            status, body = refusal.response.status_code, refusal.response.body or b""
            raise problem(status, body, f"the WebSocket was refused with status {status}") from None
        except (OSError, websockets.exceptions.InvalidHandshake) as error:
            raise unreachable(self._url, error) from error
        self._reader = asyncio.create_task(self._read(self._socket))

    async def close(self) -> None:
        socket, self._socket = self._socket, None
        if socket:
            await socket.close()
        if self._reader:
            await self._reader

    async def start(self, utterance: str | None = None) -> None:
        """Begins an utterance; one that is open ends where it is."""
        command: dict[str, Any] = {"type": "speak_start", "rate": self.rate}
        if utterance is not None:
            command["utterance"] = utterance
        await self._send(json.dumps(command))

    async def write(self, samples: bytes) -> None:
        """Sound of the utterance that is open, in pieces of any size."""
        for at in range(0, len(samples), PIECE):
            await self._send(samples[at : at + PIECE])

    async def end(self) -> None:
        """The utterance has no more sound."""
        await self._send('{"type":"speak_end"}')

    async def say(self, sound: bytes | Iterable[bytes] | AsyncIterator[bytes], utterance: str | None = None) -> None:
        """Speaks one utterance, whole or as its pieces come. Returns when it is sent; ``ended`` tells when it is over."""
        await self.start(utterance)
        if isinstance(sound, bytes):
            await self.write(sound)
        elif isinstance(sound, AsyncIterator):
            async for piece in sound:
                await self.write(piece)
        else:
            for piece in sound:
                await self.write(piece)
        await self.end()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event = await self._events.get()
        if event is None:
            self._events.put_nowait(None)
            raise StopAsyncIteration
        return event

    async def _send(self, message: str | bytes) -> None:
        if self._socket is None:
            raise Closed(self._reason)
        try:
            await self._socket.send(message)
        except websockets.exceptions.ConnectionClosed:
            raise Closed(self._reason) from None

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for message in socket:
                while self._events.qsize() >= WAITING:
                    self._events.get_nowait()
                self._events.put_nowait(json.loads(message))
        except (websockets.exceptions.ConnectionClosed, ValueError):
            # What follows ends the iteration.
            pass
        self._reason = f"the WebSocket has ended: {socket.close_reason or 'no reason was given'}"
        self._events.put_nowait(None)
