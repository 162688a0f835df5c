"""What goes wrong during a soak, one function a fault. Each takes the `Stand` that runs it."""

import http.client
import os
import random
import socket
import threading
import time

from .server import Refused
from .viewers import storm

# Seconds that a fault of the source takes.
DARK = 6


def kill(stand):
    """the publisher is killed and comes back after 1 s"""
    stand.publisher.kill()
    time.sleep(1)
    stand.publisher.start()


def garbage(host, port, seed, count=20):
    """Sends noise, pieces of the protocols and nothing at all."""
    noise = random.Random(seed)
    starts = [b"", b"\x03", b"\x03" + bytes(1536), b"\x03" + bytes(3072), b"GET / HTTP/1.1\r\n", b"POST /whip/relay HTTP/1.1\r\n"
              b"Content-Length: 99999999999\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    for number in range(count):
        try:
            with socket.create_connection((host, port), 2) as peer:
                peer.settimeout(0.3)
                peer.sendall(starts[number % len(starts)] + noise.randbytes(noise.choice([0, 10, 1000, 100_000])))
                try:
                    peer.recv(100)
                except TimeoutError:
                    pass
        except OSError:
            pass


def garbage_rtmp(stand):
    """garbage bytes on the RTMP port"""
    host, port = stand.server.rtmp.split("/")[2].split(":")
    garbage(host, int(port), 1)


def garbage_http(stand):
    """garbage bytes on the HTTP port, and JSON and SDP that are none"""
    garbage(stand.server.host, stand.server.port, 2)
    bodies = [(b"{", "application/json"), (os.urandom(1000), "application/json"), (b"v=0", "application/sdp"),
              (os.urandom(5000), "audio/wav"), (b"", "application/sdp")]
    paths = ["/api/v1/sessions", "/whep/relay", "/whip/relay", "/api/v1/sessions/avatar/speak", "/api/v1/sessions/..%2f..",
             "/whep/" + "x" * 3000, "/api/v1/avatars"]
    for path in paths:
        for body, kind in bodies:
            try:
                stand.server.request("POST", path, body, kind, timeout=5)
            except (Refused, OSError, http.client.HTTPException):
                pass


def resolution(stand):
    """the publisher's picture changes its size while it runs"""
    stand.publisher.restart(clip=stand.clips["change"], loop=False)
    time.sleep(2 * 4 + 0.5)
    stand.publisher.restart()


def silence(stand):
    """a publisher without speech or beep"""
    stand.publisher.restart(clip=stand.clips["silent"])
    time.sleep(DARK)
    stand.publisher.restart()


def muted(stand):
    """a publisher without an audio track"""
    stand.publisher.restart(sound=False)
    time.sleep(DARK)
    stand.publisher.restart()


def no_face(stand):
    """a publisher whose picture shows no face"""
    stand.publisher.restart(clip=stand.clips["noface"])
    time.sleep(DARK)
    stand.publisher.restart()


def stall(stand):
    """the publisher stands still for 3 s"""
    stand.publisher.stall(3)


def skew(stand):
    """a publisher whose clock is 0.1 % fast"""
    stand.publisher.restart(rate=1.001)


def viewers(stand):
    """viewers come and go"""
    stand.notes.setdefault("viewers", []).append(storm(stand))


def sessions(stand, count=200):
    """sessions are created and deleted"""
    server, made, full = stand.server, 0, 0
    settle = max(2.0, min(10.0, stand.seconds / 60))
    time.sleep(settle)
    before = server.usage()
    for number in range(count):
        spec = {"id": f"churn-{number}", "graph": "relay", "always_on": number % 4 == 0}
        if number % 20 == 10:
            spec = {"id": f"churn-{number}", "graph": "avatar", "avatar": "demo", "always_on": True}
        try:
            server.api("POST", "/sessions", spec)
        except Refused as refused:
            if refused.status != 503:
                raise
            full += 1
            continue
        made += 1
        server.api("DELETE", f"/sessions/{spec['id']}")
    time.sleep(settle)
    after = server.usage()
    left = [s["id"] for s in server.api("GET", "/sessions") if s["id"].startswith("churn-")]
    stand.notes.setdefault("sessions", []).append({
        "created": made, "refused as full": full, "left": len(left),
        "threads": after["threads"] - before["threads"], "fds": after["fds"] - before["fds"],
        "megabytes": round((after["rss"] - before["rss"]) / 1e6, 1),
    })


# The order of a soak, and whether the fault breaks the source, so that markers around it say nothing of drift.
PLAN = [
    (kill, True), (garbage_rtmp, False), (garbage_http, False), (resolution, True), (silence, True), (muted, True),
    (no_face, True), (stall, True), (sessions, False), (viewers, False), (skew, True),
]


def background(function, *arguments):
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread
