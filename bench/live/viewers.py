"""A storm of viewers: RTMP players, WHEP viewers of a browser and WHEP offers; they stay a moment or go without a word."""

import random
import socket
import subprocess
import threading
import time

from .browser import view
from .server import Refused

# An offer to receive video and audio as browsers write it. Nobody answers at its addresses: the server has to let go of
# what it opened for it.
OFFER = """v=0
o=- {id} 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=msid-semantic: WMS
m=video 9 UDP/TLS/RTP/SAVPF 96 97
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=ice-ufrag:{ufrag}
a=ice-pwd:{password}
a=ice-options:trickle
a=fingerprint:sha-256 {fingerprint}
a=setup:actpass
a=mid:0
a=recvonly
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtpmap:97 H264/90000
a=fmtp:97 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f
a=rtcp-fb:97 nack
a=rtcp-fb:97 nack pli
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=ice-ufrag:{ufrag}
a=ice-pwd:{password}
a=ice-options:trickle
a=fingerprint:sha-256 {fingerprint}
a=setup:actpass
a=mid:1
a=recvonly
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
"""


def offer(noise):
    hexadecimal = ":".join(f"{noise.randrange(256):02X}" for _ in range(32))
    text = OFFER.format(id=noise.randrange(1 << 60), ufrag=f"{noise.randrange(1 << 32):08x}",
                        password=f"{noise.getrandbits(128):032x}", fingerprint=hexadecimal)
    return text.replace("\n", "\r\n").encode()


def whep(server, session, count, counts, seed):
    """Offers; every second one is taken back, the others are left alone."""
    noise = random.Random(seed)
    for number in range(count):
        try:
            headers, _ = server.exchange("POST", f"/whep/{session}", offer(noise), "application/sdp", timeout=10)
            counts["whep"] += 1
            place = headers.get("Location")
            if place and number % 2 == 0:
                time.sleep(noise.random() * 0.2)
                server.request("DELETE", place)
        except Refused as refused:
            counts[f"whep refused {refused.status}"] = counts.get(f"whep refused {refused.status}", 0) + 1
        except OSError:
            counts["whep failed"] = counts.get("whep failed", 0) + 1


def rtmp(url, count, counts):
    """Players that read without decoding, a second or two each; every third is killed."""
    for number in range(count):
        seconds = 1 + number % 2
        player = subprocess.Popen(["nice", "ffmpeg", "-nostdin", "-v", "error", "-analyzeduration", "200000", "-i", url,
                                   "-t", str(seconds), "-c", "copy", "-f", "null", "-"],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            if number % 3 == 2:
                time.sleep(0.5)
                player.kill()
                player.wait()
            else:
                counts["rtmp"] += player.wait(seconds + 15) == 0
        except subprocess.TimeoutExpired:
            player.kill()
            player.wait()
            counts["rtmp stuck"] = counts.get("rtmp stuck", 0) + 1


def half_open(server, count):
    """Connections that ask for the stream and then read nothing."""
    peers = []
    for _ in range(count):
        try:
            peers.append(socket.create_connection((server.host, server.port), 2))
        except OSError:
            break
    time.sleep(1)
    for peer in peers:
        peer.close()


def storm(stand, players=3, rounds=4, offers=20):
    """Runs it and returns how many got through."""
    counts = {"rtmp": 0, "whep": 0}
    server = stand.server
    work = []
    for session in ("relay", "avatar"):
        url = f"{server.rtmp}/{session}/synced"
        work += [threading.Thread(target=rtmp, args=(url, rounds, counts), daemon=True) for _ in range(players)]
    work.append(threading.Thread(target=half_open, args=(server, 50), daemon=True))
    for thread in work:
        thread.start()
    whep(server, "relay", offers, counts, 1)
    whep(server, "avatar", offers, counts, 2)
    seen = view(server, ["avatar", "relay"])
    if seen is None:
        counts["browser"] = "skipped: no Chromium"
    else:
        frames = [viewer.get("video", {}).get("framesDecoded", 0) for viewer in seen]
        counts["browser"] = {"frames decoded": frames, "errors": [v["error"] for v in seen if "error" in v][:3]}
    for thread in work:
        thread.join(120)
    return counts
