"""What a server refuses, with its own words."""

from __future__ import annotations

import json

import httpx


class LipstreamError(Exception):
    """The server refused a request; the text is the server's and names the cause and the cure."""

    def __init__(self, status: int, kind: str, detail: str) -> None:
        super().__init__(detail)
        #: The HTTP status; 0 where there was no answer.
        self.status = status
        #: Stays the same for one kind of problem: ``unknown``, ``conflict``, ``invalid``, ``full``, ``interrupted``, ``unreachable``, ...
        self.kind = kind
        self.detail = detail


class Closed(LipstreamError):
    """The server ended a WebSocket, or there is none yet."""

    def __init__(self, reason: str) -> None:
        super().__init__(0, "closed", reason)


def unreachable(url: str, error: Exception) -> LipstreamError:
    """The error of a server that does not answer, or whose answer breaks off."""
    return LipstreamError(0, "unreachable", f"{url} does not answer: {str(error) or type(error).__name__}")


def check(response: httpx.Response) -> httpx.Response:
    """The response, or the problem in it as an error. Its body must have been read."""
    if not response.is_error:
        return response
    status = response.status_code
    raise problem(status, response.content, f"{status} {response.reason_phrase}: {response.text[:500]}")


def problem(status: int, body: bytes, otherwise: str) -> LipstreamError:
    """The problem (RFC 9457) in an answer; the text ``otherwise`` where there is none: a proxy in front of the server may answer."""
    try:
        found = json.loads(body)
        return LipstreamError(status, str(found["type"]).removeprefix("urn:lipstream:"), str(found["detail"]))
    except (ValueError, KeyError, TypeError):
        return LipstreamError(status, "unexpected", otherwise)
