"""What the server takes and says. Answers may have more fields than are listed here."""

from __future__ import annotations

from typing import Any, Literal, TypedDict


#: One of the two voices that a session may have.
Voice = Literal["a", "b"]


class SessionSpec(TypedDict, total=False):
    """A session as it is created; what is left out has the graph's or the server's default."""

    id: str
    graph: str
    engine: str
    #: Parameters of the graph, such as ``motion-gain``.
    params: dict[str, str]
    #: Sound after a frame that its mouth may hear, in milliseconds: one of the engine's ``look_aheads_ms``.
    look_ahead_ms: int
    #: Which of several faces speak: ``largest``, ``all``, ``auto``, ``left``, ``right`` or ``track:N``.
    speaker: str
    #: Gives it a second voice, ``b``, which moves these of the other faces.
    speaker_b: str
    #: Whether what is before the face stays before its mouth.
    occlusion: Literal["auto", "off"]
    #: What becomes of transparency: ``drop``, ``key:#rrggbb`` or ``stack``.
    alpha: str
    #: Text in every picture for all to see, and where it is.
    label: str
    label_corner: Literal["top-left", "top-right", "bottom-left", "bottom-right"]
    avatar: str
    #: URL to read.
    pull: str
    #: URLs to which the output is pushed.
    push: list[str]
    #: Name under which RTMP clients play it.
    play: str
    stream_key: str
    always_on: bool
    idle_seconds: int


class SessionChange(TypedDict, total=False):
    clip: str
    #: Which of several faces speak, and which of the others the second voice moves.
    speaker: str
    speaker_b: str
    params: dict[str, str]


class SecondVoice(TypedDict, total=False):
    """A moment of a session's second voice."""

    speaking: bool
    speech_queued_ms: float
    publishing: bool
    speaker_track: int | None


class SessionStatus(TypedDict, total=False):
    """A moment of a session; times are in milliseconds."""

    id: str
    graph: str
    #: The node of the cluster that has it; None where there is no cluster.
    node: str | None
    phase: Literal["idle", "waiting", "running", "restarting"]
    reason: str | None
    #: The engine in use, ``NAME@VERSION`` where it has versions, and why that is not the one that it is to have.
    engine: str | None
    engine_reason: str | None
    avatar: str | None
    clip: str | None
    clips: list[str]
    params: dict[str, str]
    #: What says that a machine made a part of the picture.
    marks: list[str]
    viewers: int
    width: int
    height: int
    fps: float
    frames: int
    frames_late: int
    latency_ms: float
    #: The number of the face whose mouth is made, and how sure ``auto`` is of it, 0 to 1.
    speaker_track: int | None
    speaker_confidence: float | None
    speaking: bool
    speech_queued_ms: float
    #: ``None`` where it has one voice.
    voice_b: SecondVoice | None
    flush_ms: float | None
    restarts: int


class Spoken(TypedDict):
    """Speech that has been queued."""

    utterance: str
    seconds: float


class RenderOptions(TypedDict, total=False):
    #: What becomes of transparency: ``drop``, ``keep`` (in webm and mov), ``#rrggbb`` or ``stack``.
    alpha: str
    container: Literal["mp4", "mov", "mkv", "webm"]
    #: Quality of H.264, 0 to 50, lower is better.
    crf: int
    engine: str
    #: What makes the face better: ``sharpen``, ``clahe``, ``detail``, ``combined``, or an enhancer that was imported.
    enhance: str
    #: Frames of a face for one evaluation of an enhancer, 1 to 8.
    enhance_every: int
    #: How much of it is blended in, 0 to 1.
    enhance_strength: float
    #: By how much the picture is enlarged before, 1 to 2.
    face_upscale: float
    #: Of an enhancer with a weight, 0 to 1: 0 is the best picture, 1 the most like the face.
    fidelity: float
    #: Text in every picture for all to see, and where it is.
    label: str
    label_corner: Literal["top-left", "top-right", "bottom-left", "bottom-right"]
    loop: bool
    motion_gain: float
    #: How much of the mouth is kept from the enhancement, 0 to 1.
    mouth_protection: float
    #: Whether what is before the face stays before its mouth.
    occlusion: Literal["auto", "off"]
    #: In place of ``crf``: visually lossless.
    quality: Literal["high"]
    #: Which of several faces speak, as of a session.
    speaker: str
    #: Which of the others the second voice moves.
    speaker_b: str


class RenderStatus(TypedDict, total=False):
    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    #: Done so far, 0 to 1.
    progress: float
    fps: float
    seconds_left: float
    ahead: int
    error: str
    container: str
    created: float
    seconds: float
    frames: int
    bytes: int


class Event(TypedDict, total=False):
    """What happens to a session's speech. Of each utterance ``listening``, ``speaking`` if any of it is heard, ``ended``;
    ``idle`` after the last, and after an interruption ``flushed``. ``error`` is about what this client sent."""

    type: Literal["listening", "speaking", "ended", "idle", "flushed", "error"]
    utterance: str
    #: With ``ended``: so much of it was given to the graph.
    spoken_ms: float
    #: With ``ended``: why not all of it was.
    cut: Literal["interrupted", "stalled", "unheard"]
    #: With ``flushed``: until the mouth was at rest.
    ms: float
    #: With ``error``.
    message: str


class Usage(TypedDict):
    """What a tenant has used in a month."""

    tenant: str
    #: In UTC, as ``2026-11``.
    month: str
    session_seconds: float
    gpu_seconds: float
    frames: int
    egress_bytes: int


Json = dict[str, Any]
