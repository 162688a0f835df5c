"""Paths of the API, as its OpenAPI document has them."""

from urllib.parse import quote

SESSIONS = "/api/v1/sessions"
SESSION = "/api/v1/sessions/{id}"
SPEAK = "/api/v1/sessions/{id}/speak"
AUDIO = "/api/v1/sessions/{id}/audio"
INTERRUPT = "/api/v1/sessions/{id}/interrupt"
RENDERS = "/api/v1/renders"
RENDER = "/api/v1/renders/{id}"
RESULT = "/api/v1/renders/{id}/result"
AVATARS = "/api/v1/avatars"
CAPACITY = "/api/v1/capacity"
USAGE = "/api/v1/usage"

#: What the client sends to each.
METHODS = {
    SESSIONS: ["get", "post"],
    SESSION: ["get", "patch", "delete"],
    SPEAK: ["post"],
    AUDIO: ["get"],
    INTERRUPT: ["post"],
    RENDERS: ["get", "post"],
    RENDER: ["get", "delete"],
    RESULT: ["get"],
    AVATARS: ["get"],
    CAPACITY: ["get"],
    USAGE: ["get"],
}


def of(path: str, id: str) -> str:
    return path.replace("{id}", quote(id, safe=""))
