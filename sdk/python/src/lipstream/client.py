"""The server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any
from urllib.parse import urlsplit

import httpx

from . import routes
from .errors import check, unreachable
from .render import Render
from .session import Session
from .types import Json, RenderOptions, RenderStatus, SessionStatus, Usage

#: Seconds for an answer; speech is answered when all of it is queued, which has a bound of its own.
TIMEOUT = 60.0


class Lipstream:
    """A Lipstream server. Use it with ``async with``, or close it with :meth:`aclose`."""

    def __init__(self, url: str = "http://127.0.0.1:8080", *, key: str | None = None, timeout: float = TIMEOUT) -> None:
        """``key`` is one of the server's ``auth.keys`` or of a tenant; ``timeout`` is in seconds."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"{url!r} is no address of a server: give http://HOST:PORT or https://HOST")
        self.url = url.rstrip("/")
        self.headers: dict[str, str] = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.AsyncClient(base_url=self.url, headers=self.headers, timeout=timeout)

    async def __aenter__(self) -> Lipstream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def request(self, method: str, path: str, **settings: Any) -> httpx.Response:
        """Sends a request of the API; raises :class:`LipstreamError` with the server's text where it is refused, and of the kind
        ``unreachable`` where the server does not answer."""
        try:
            return check(await self._http.request(method, path, **settings))
        except httpx.TransportError as error:
            raise unreachable(self.url, error) from error

    def session(self, id: str) -> Session:
        """A session by its id, whether it exists or not."""
        return Session(self, id)

    async def sessions(self) -> list[SessionStatus]:
        answer: list[SessionStatus] = (await self.request("GET", routes.SESSIONS)).json()
        return answer

    async def create_session(self, id: str, graph: str = "avatar", **spec: Any) -> Session:
        """Creates a session. ``spec`` are the fields of :class:`SessionSpec`: ``avatar="demo"``, ``always_on=True``, ..."""
        await self.request("POST", routes.SESSIONS, json={"id": id, "graph": graph, **spec})
        return Session(self, id)

    async def avatars(self) -> list[Json]:
        answer: list[Json] = (await self.request("GET", routes.AVATARS)).json()
        return answer

    async def capacity(self) -> Json:
        answer: Json = (await self.request("GET", routes.CAPACITY)).json()
        return answer

    async def usage(self, month: str | None = None) -> list[Usage]:
        """What the key's tenant has used, by month; with a key of the operator's, what all tenants have."""
        answer = await self.request("GET", routes.USAGE, params={"month": month} if month else None)
        rows: list[Usage] = answer.json()
        return rows

    async def render(
        self,
        audio: Path | IO[bytes],
        *,
        avatar: str | None = None,
        video: Path | IO[bytes] | None = None,
        audio_b: Path | IO[bytes] | None = None,
        options: RenderOptions | None = None,
    ) -> Render:
        """Renders a video whose lips follow ``audio``: of an avatar, or of a video file. ``audio_b`` moves another
        of its faces."""
        if (avatar is None) == (video is None):
            raise ValueError("give one of avatar and video")
        opened: list[IO[bytes]] = []

        def file(source: Path | IO[bytes]) -> IO[bytes]:
            if not isinstance(source, Path):
                return source
            opened.append(source.open("rb"))
            return opened[-1]

        try:
            files = {"audio": file(audio)}
            if audio_b is not None:
                files["audio_b"] = file(audio_b)
            if video is not None:
                files["video"] = file(video)
            data = {} if avatar is None else {"avatar": avatar}
            if options is not None:
                data["options"] = json.dumps(options)
            answer = await self.request("POST", routes.RENDERS, data=data, files=files)
        finally:
            for handle in opened:
                handle.close()
        return Render(self, str(answer.json()["id"]))

    async def renders(self) -> list[RenderStatus]:
        answer: list[RenderStatus] = (await self.request("GET", routes.RENDERS)).json()
        return answer

    async def download(self, path: str) -> AsyncIterator[bytes]:
        """The body of an answer in pieces."""
        try:
            async with self._http.stream("GET", path) as response:
                if response.is_error:
                    await response.aread()
                check(response)
                async for piece in response.aiter_bytes():
                    yield piece
        except httpx.TransportError as error:
            raise unreachable(self.url, error) from error
