"""A render: a video and a speech file become a talking video."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from . import routes
from .errors import LipstreamError
from .types import RenderStatus

if TYPE_CHECKING:
    from .client import Lipstream

OVER = ("done", "failed", "cancelled")


class Render:
    """A render of a server; made by :meth:`Lipstream.render`."""

    def __init__(self, server: Lipstream, id: str) -> None:
        self.server = server
        self.id = id

    async def status(self) -> RenderStatus:
        answer: RenderStatus = (await self.server.request("GET", routes.of(routes.RENDER, self.id))).json()
        return answer

    async def progress(self, every: float = 0.5) -> AsyncIterator[RenderStatus]:
        """Its status, each ``every`` seconds until it is over."""
        while True:
            status = await self.status()
            yield status
            if status["state"] in OVER:
                return
            await asyncio.sleep(every)

    async def save(self, path: Path | str, every: float = 0.5) -> Path:
        """Waits until it is done and writes the video to ``path``. Raises with the server's text where it failed."""
        async for status in self.progress(every):
            if status["state"] in ("failed", "cancelled"):
                raise LipstreamError(0, status["state"], status.get("error", f"render {self.id} was cancelled"))
        path = Path(path)
        # What breaks off is not taken for the video.
        part = path.with_name(f"{path.name}.part")
        try:
            with part.open("wb") as file:
                async for piece in self.server.download(routes.of(routes.RESULT, self.id)):
                    file.write(piece)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return path

    async def delete(self) -> None:
        """Cancels it where it is not over, and forgets it with its result."""
        await self.server.request("DELETE", routes.of(routes.RENDER, self.id))
