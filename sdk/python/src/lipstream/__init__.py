"""Client of a Lipstream server.

    async with Lipstream("http://127.0.0.1:8080") as server:
        session = server.session("demo")
        await session.speak(Path("hello.wav").read_bytes(), "audio/wav")
"""

from .client import Lipstream
from .errors import Closed, LipstreamError
from .render import Render
from .session import Session
from .speech import RATES, Speech

__all__ = ["RATES", "Closed", "Lipstream", "LipstreamError", "Render", "Session", "Speech"]
