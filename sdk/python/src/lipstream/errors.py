"""What a server refuses, with its own words."""

from __future__ import annotations

import httpx


class LipstreamError(Exception):
    """The server refused a request; the text is the server's and names the cause and the cure."""

    def __init__(self, status: int, kind: str, detail: str) -> None:
        super().__init__(detail)
        #: The HTTP status.
        self.status = status
        #: Stays the same for one kind of problem: ``unknown``, ``conflict``, ``invalid``, ``full``, ``interrupted``, ...
        self.kind = kind
        self.detail = detail


class Closed(LipstreamError):
    """The server ended a WebSocket, or there is none yet."""

    def __init__(self, reason: str) -> None:
        super().__init__(0, "closed", reason)


def check(response: httpx.Response) -> httpx.Response:
    """The response, or the problem (RFC 9457) in it as an error. Its body must have been read."""
    if not response.is_error:
        return response
    try:
        problem = response.json()
        kind = str(problem["type"]).removeprefix("urn:lipstream:")
        detail = str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        # A proxy in front of the server may answer too.
        kind, detail = "unexpected", f"{response.status_code} {response.reason_phrase}: {response.text[:500]}"
    raise LipstreamError(response.status_code, kind, detail)
