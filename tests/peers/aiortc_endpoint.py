"""A WHIP end point on aiortc. What happens is told as lines of JSON. A line `hang up` ends its connections; it goes on
until its input ends."""
import argparse
import asyncio
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from aiortc import RTCSessionDescription
from aiortc_media import Tally, connection


def tell(**what):
    # In one piece: several threads tell.
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Endpoint:
    def __init__(self, folder, token):
        self.folder, self.token = folder, token
        self.loop = asyncio.get_running_loop()
        self.connections = []

    async def publish(self, offer):
        """The number of the resource, and the answer to the offer."""
        pc, tally = connection(), Tally(self.folder)
        number = len(self.connections)
        self.connections.append((pc, tally))
        pc.on("track", tally.take)
        pc.on("connectionstatechange", lambda: tell(connection=number, state=pc.connectionState))
        await pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await pc.setLocalDescription(await pc.createAnswer())
        return number, pc.localDescription.sdp

    async def end(self, number):
        pc, _ = self.connections[number]
        await pc.close()

    def do(self, work):
        """From a thread of the HTTP server."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


def handler(endpoint):
    class Handler(BaseHTTPRequestHandler):
        def answer(self, status, text="", **headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def do_POST(self):
            offer = self.rfile.read(int(self.headers["Content-Length"])).decode()
            said = {name: self.headers.get(name) for name in ("Authorization", "Content-Type")}
            tell(method="POST", path=self.path, **said)
            if said["Authorization"] != f"Bearer {endpoint.token}":
                return self.answer(401, "this token is not known")
            number, sdp = endpoint.do(endpoint.publish(offer))
            self.answer(201, sdp, Content_Type="application/sdp", Location=f"/resource?number={number}")

        def do_DELETE(self):
            tell(method="DELETE", path=self.path, Authorization=self.headers.get("Authorization"))
            endpoint.do(endpoint.end(int(self.path.partition("=")[2])))
            self.answer(200)

        def log_message(self, *_):
            pass

    return Handler


async def run(folder, token):
    endpoint = Endpoint(folder, token)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(endpoint))
    Thread(target=server.serve_forever, daemon=True).start()
    tell(port=server.server_port)
    line = endpoint.loop.run_in_executor(None, sys.stdin.readline)
    while True:
        await asyncio.wait([line], timeout=0.25)
        for number, (pc, tally) in enumerate(endpoint.connections):
            if pc.connectionState == "connected":
                tell(connection=number, media=tally.report())
        if line.done():
            for number in range(len(endpoint.connections)):
                await endpoint.end(number)
            if not line.result():
                return
            line = endpoint.loop.run_in_executor(None, sys.stdin.readline)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path, help="for pictures of what comes")
parser.add_argument("token", help="the only one that is let in")
wish = parser.parse_args()
asyncio.run(run(wish.folder, wish.token))
