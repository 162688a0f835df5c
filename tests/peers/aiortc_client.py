"""aiortc as a client of WHEP or WHIP. What happens is told as lines of JSON; it goes on until its input ends."""
import argparse
import asyncio
import datetime
import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from aiortc import RTCCertificate, RTCRtpSender, RTCSessionDescription
from aiortc_media import Picture, Tally, Tone, connection
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa


def tell(**what):
    # In one piece: several threads tell.
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def rsa_certificate():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "peer")])
    now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
    return RTCCertificate(key, builder.sign(key, hashes.SHA256()))


def send(method, url, key, body=None):
    """Status, headers and text of the answer."""
    headers = {"Content-Type": "application/sdp"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, data=body, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.headers, refusal.read().decode()


def bare(offer):
    """The offer without the profiles of H.264."""
    return re.sub(";profile-level-id=[0-9a-f]{6}", "", offer)


def prepared(wish):
    pc = connection()
    if wish.rsa:
        # aiortc has no setting for it.
        pc._RTCPeerConnection__certificates = [rsa_certificate()]
    if wish.mode == "whip":
        pc.addTransceiver(Picture(), direction="sendonly")
        pc.addTransceiver(Tone(), direction="sendonly")
    else:
        pc.addTransceiver("video", direction="recvonly")
        pc.addTransceiver("audio", direction="recvonly")
    if wish.codec:
        formats = RTCRtpSender.getCapabilities("video").codecs
        wanted = [f for f in formats if f.mimeType in (f"video/{wish.codec}", "video/rtx")]
        pc.getTransceivers()[0].setCodecPreferences(wanted)
    if wish.data_channel:
        pc.createDataChannel("chat")
    return pc


async def run(wish):
    loop = asyncio.get_running_loop()
    pc, tally = prepared(wish), Tally(wish.folder)
    pc.on("track", tally.take)
    pc.on("connectionstatechange", lambda: tell(state=pc.connectionState))
    await pc.setLocalDescription(await pc.createOffer())
    offer = bare(pc.localDescription.sdp) if wish.bare else pc.localDescription.sdp
    status, headers, text = await asyncio.to_thread(send, "POST", wish.url, wish.key, offer.encode())
    tell(status=status, offer=offer, answer=text)
    if status == 201:
        await pc.setRemoteDescription(RTCSessionDescription(text, "answer"))
        ended = loop.run_in_executor(None, sys.stdin.read)
        while not ended.done():
            tell(media=tally.report())
            await asyncio.wait([ended], timeout=0.25)
        resource = urllib.parse.urljoin(wish.url, headers["Location"])
        status, _, _ = await asyncio.to_thread(send, "DELETE", resource, wish.key)
        tell(deleted=status)
    await pc.close()


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("mode", choices=["whep", "whip"])
parser.add_argument("url")
parser.add_argument("folder", type=Path, help="for pictures of what comes")
parser.add_argument("--codec", choices=["H264", "VP8"], help="the only one to offer")
parser.add_argument("--rsa", action="store_true", help="with an RSA-2048 certificate")
parser.add_argument("--data-channel", action="store_true")
parser.add_argument("--bare", action="store_true", help="offer H.264 without its profiles")
parser.add_argument("--key", help="sent as a bearer token")
asyncio.run(run(parser.parse_args()))
