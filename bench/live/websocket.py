"""A WebSocket client (RFC 6455), as much of it as the speech socket needs."""

import base64
import json
import os
import select
import socket
import struct
import time

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Socket:
    def __init__(self, host, port, path, timeout=10, headers=()):
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}:{port}", "Upgrade: websocket", "Connection: Upgrade",
                 f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *headers, "", ""]
        self.socket.sendall("\r\n".join(lines).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.socket.recv(4096)
            if not data:
                raise ConnectionError(f"no upgrade: {head[:200]!r}")
            head += data
        head, self.buffer = head.split(b"\r\n\r\n", 1)
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise ConnectionError(f"no upgrade: {head.splitlines()[0].decode()} {self.buffer[:300].decode(errors='replace')}")

    def frame(self, opcode, data):
        length = len(data)
        if length < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
        elif length < 1 << 16:
            head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, length)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, length)
        mask = os.urandom(4)
        # XOR as one large number is far quicker than byte by byte.
        stream = (mask * (length // 4 + 1))[:length]
        masked = (int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")).to_bytes(length, "big") if length else b""
        self.socket.sendall(head + mask + masked)

    def send(self, message):
        """A `dict` goes as JSON text, bytes go as sound."""
        if isinstance(message, (bytes, bytearray)):
            self.frame(BINARY, bytes(message))
        else:
            self.frame(TEXT, json.dumps(message).encode())

    def take(self, count, end):
        while len(self.buffer) < count:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                raise TimeoutError
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("the server closed the socket")
            self.buffer += data
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def receive(self, seconds=10):
        """The next JSON message, or None when none comes in time."""
        end = time.monotonic() + seconds
        try:
            while True:
                first, second = self.take(2, end)
                length = second & 0x7F
                if length == 126:
                    (length,) = struct.unpack("!H", self.take(2, end))
                elif length == 127:
                    (length,) = struct.unpack("!Q", self.take(8, end))
                data = self.take(length, end + 1)
                opcode = first & 0x0F
                if opcode == PING:
                    self.frame(PONG, data)
                elif opcode == CLOSE:
                    raise ConnectionError(f"closed: {data[:2].hex()} {data[2:].decode(errors='replace')}")
                elif opcode == TEXT:
                    return json.loads(data)
        except TimeoutError:
            return None

    def until(self, kind, seconds=10):
        """The next message of this `type`; the others are dropped."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            message = self.receive(end - time.monotonic())
            if message is None:
                return None
            if message.get("type") == kind:
                return message
        return None

    def close(self):
        try:
            self.frame(CLOSE, struct.pack("!H", 1000))
        except OSError:
            pass
        self.socket.close()
