"""A player that only reads: when each frame of an RTMP stream arrives (Adobe's RTMP 1.0; FLV 10.1 for the payload).

It takes far less of the machine than a decoder, so it can stand for many viewers.
"""

import os
import socket
import struct
import threading
import time
import urllib.parse

# Message types of RTMP 1.0, sections 5.4 and 7.1.
SET_CHUNK_SIZE, ACKNOWLEDGE, USER_CONTROL, WINDOW, AUDIO, VIDEO, COMMAND = 1, 3, 4, 5, 8, 9, 20


def amf(value):
    """AMF 0 of a number, a string, None or a flat object."""
    if value is None:
        return b"\x05"
    if isinstance(value, dict):
        pairs = b"".join(struct.pack("!H", len(k)) + k.encode() + amf(v) for k, v in value.items())
        return b"\x03" + pairs + b"\x00\x00\x09"
    if isinstance(value, str):
        return b"\x02" + struct.pack("!H", len(value)) + value.encode()
    return b"\x00" + struct.pack("!d", value)


class Reader:
    """Plays `url` until `stop`. `frames` holds (time stamp in s, time.monotonic() of its arrival, key frame)."""

    def __init__(self, url, seconds=10):
        self.frames, self.sounds = [], 0
        self.began = time.monotonic()
        self.failure = None
        self.first = threading.Event()
        self.ended = threading.Event()
        self.size, self.window, self.received, self.told = 128, 2_500_000, 0, 0
        self.streams, self.buffer = {}, bytearray()
        self.reply = threading.Event()
        parts = urllib.parse.urlsplit(url)
        app, _, name = parts.path.strip("/").partition("/")
        self.socket = socket.create_connection((parts.hostname, parts.port or 1935), seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        first = struct.pack("!II", 0, 0) + os.urandom(1528)
        self.socket.sendall(b"\x03" + first)
        answer = self.exactly(1 + 2 * 1536)
        self.socket.sendall(answer[1:1537])
        base = f"rtmp://{parts.hostname}:{parts.port or 1935}/{app}"
        self.command("connect", 1, {"app": app, "tcUrl": base, "flashVer": "LNX 9,0,124,2"})
        self.command("createStream", 2, None)
        # The server answers in this order; the stream's number is 1 for the first of a connection.
        self.send(3, COMMAND, 1, amf("play") + amf(3) + amf(None) + amf(name))
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def exactly(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise ConnectionError("the server closed the connection")
            data += part
        return data

    def send(self, channel, kind, stream, payload):
        head = bytes([channel]) + b"\0\0\0" + len(payload).to_bytes(3, "big") + bytes([kind]) + struct.pack("<I", stream)
        pieces = [payload[at:at + 128] for at in range(0, len(payload), 128)] or [b""]
        self.socket.sendall(head + (bytes([0xC0 | channel])).join(pieces))

    def command(self, name, number, value):
        self.send(3, COMMAND, 0, amf(name) + amf(number) + amf(value))

    def run(self):
        try:
            self.socket.settimeout(1)
            while not self.ended.is_set():
                try:
                    data = self.socket.recv(1 << 16)
                except TimeoutError:
                    continue
                if not data:
                    self.failure = "the server closed the connection"
                    return
                at = time.monotonic()
                self.received += len(data)
                if self.received - self.told > self.window // 2:
                    self.told = self.received
                    self.send(2, ACKNOWLEDGE, 0, struct.pack("!I", self.received & 0xFFFFFFFF))
                self.buffer += data
                while self.chunk(at):
                    pass
        except (OSError, ValueError) as error:
            self.failure = str(error)

    def chunk(self, at):
        """Takes one chunk off the buffer; False when it is not complete."""
        data = self.buffer
        if len(data) < 3:
            return False
        form, channel, pos = data[0] >> 6, data[0] & 63, 1
        if channel == 0:
            channel, pos = data[1] + 64, 2
        elif channel == 1:
            channel, pos = data[1] + data[2] * 256 + 64, 3
        state = self.streams.setdefault(channel, {"part": bytearray(), "time": 0, "delta": 0, "long": False})
        length = (11, 7, 3, 0)[form]
        if len(data) < pos + length:
            return False
        head = data[pos:pos + length]
        pos += length
        update = {}
        if form < 3:
            moment = int.from_bytes(head[:3], "big")
            update["long"] = moment == 0xFFFFFF
            if form < 2:
                update["size"], update["kind"] = int.from_bytes(head[3:6], "big"), head[6]
        if update.get("long", state["long"]):
            if len(data) < pos + 4:
                return False
            if form < 3:
                moment = int.from_bytes(data[pos:pos + 4], "big")
            pos += 4
        size = update.get("size", state.get("size", 0))
        part = min(self.size, size - len(state["part"]))
        if len(data) < pos + part:
            return False
        new = not state["part"]
        state.update(update)
        if form == 0:
            state["time"], state["delta"] = moment, 0
        elif form < 3:
            state["delta"] = moment
            state["time"] += moment
        elif new:
            state["time"] += state["delta"]
        state["part"] += data[pos:pos + part]
        del data[:pos + part]
        if len(state["part"]) == size:
            payload, state["part"] = bytes(state["part"]), bytearray()
            self.message(state["kind"], state["time"], payload, at)
        return True

    def message(self, kind, moment, payload, at):
        if kind == SET_CHUNK_SIZE:
            self.size = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        elif kind == WINDOW:
            self.window = max(1, int.from_bytes(payload[:4], "big"))
        elif kind == USER_CONTROL and payload[:2] == b"\x00\x06":
            self.send(2, USER_CONTROL, 0, b"\x00\x07" + payload[2:6])
        elif kind == AUDIO and payload[1:2] == b"\x01":
            self.sounds += 1
        # AVC: frame type and codec, then 1 for coded pictures.
        elif kind == VIDEO and payload[1:2] == b"\x01":
            self.frames.append((moment / 1e3, at, payload[0] >> 4 == 1))
            self.first.set()

    def first_frame(self, seconds=10):
        """Seconds from the start of the connection to the first key frame; None when none comes."""
        if not self.first.wait(seconds):
            return None
        key = next((frame for frame in list(self.frames) if frame[2]), None)
        return key and key[1] - self.began

    def stop(self):
        self.ended.set()
        self.thread.join(3)
        self.socket.close()
        return self
