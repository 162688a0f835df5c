"""Janus, an SFU, behind a WHIP end point (Janus itself has none), and a page that watches its room.

    janus.py FOLDER TOKEN

Prints `ready HOST:PORT` once Janus answers. `POST /whip/room` publishes into its video room, `GET /` is the page.
"""
import http.server
import json
import os
import random
import socket
import string
import subprocess
import sys
import threading
import time
import urllib.request

ROOM = 1234
PAGE = b"<!doctype html><title>A room of Janus</title><video id=video autoplay playsinline></video>"


def machine():
    """An address of this machine that is not the loopback's, where there is one: Janus takes no part on that."""
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        probe.connect(("192.0.2.200", 9))
        return probe.getsockname()[0]
    except OSError:
        return "127.0.0.1"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_configuration(folder, port):
    texts = {
        "janus.jcfg": f'''
general: {{ configs_folder = "{folder}" debug_level = 4 token_auth = false }}
media: {{ rtp_port_range = "20000-40000" }}
nat: {{ ignore_mdns = true }}
plugins: {{ disable = "{",".join(f"libjanus_{name}.so" for name in
           "audiobridge duktape echotest lua nosip recordplay sip streaming textroom videocall voicemail".split())}" }}
transports: {{ disable = "libjanus_mqtt.so,libjanus_nanomsg.so,libjanus_pfunix.so,libjanus_rabbitmq.so,libjanus_websockets.so" }}
''',
        "janus.transport.http.jcfg": f'''
general: {{ json = "compact" base_path = "/janus" http = true port = {port} https = false }}
admin: {{ admin_http = false }}
''',
        "janus.plugin.videoroom.jcfg": f'''
room-{ROOM}: {{ publishers = 4 bitrate = 8000000 fir_freq = 2 videocodec = "h264" audiocodec = "opus" h264_profile = "42e01f" }}
''',
    }
    for name, text in texts.items():
        with open(os.path.join(folder, name), "w") as file:
            file.write(text)


class Handle:
    """A handle of the video room: a publisher or a listener."""

    def __init__(self, base):
        session = self.ask(base, {"janus": "create"})["data"]["id"]
        self.session = f"{base}/{session}"
        self.handle = f"{self.session}/{self.ask(self.session, {'janus': 'attach', 'plugin': 'janus.plugin.videoroom'})['data']['id']}"

    @staticmethod
    def ask(url, message):
        message = {"transaction": "".join(random.choices(string.ascii_letters, k=12)), **message}
        request = urllib.request.Request(url, json.dumps(message).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def request(self, body, jsep=None):
        """Sends a message and gives the event that answers it."""
        self.ask(self.handle, {"janus": "message", "body": body, **({"jsep": jsep} if jsep else {})})
        while True:
            with urllib.request.urlopen(f"{self.session}?maxev=1", timeout=60) as answer:
                event = json.load(answer)
            if "plugindata" in event:
                assert "error" not in event["plugindata"]["data"], event
                return event

    def stay(self):
        """Janus ends sessions from which nothing is heard for a minute."""
        def poll():
            while True:
                try:
                    urllib.request.urlopen(f"{self.session}?maxev=5", timeout=60).read()
                except OSError:
                    return
        threading.Thread(target=poll, daemon=True).start()


class Gate(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    resources = {}

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200, PAGE, Content_Type="text/html")

    def do_POST(self):
        offer = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, b"no such token")
        publisher = Handle(BASE)
        publisher.request({"request": "join", "ptype": "publisher", "room": ROOM, "display": "lipstream"})
        event = publisher.request({"request": "publish"}, {"type": "offer", "sdp": offer})
        publisher.stay()
        name = f"/resource/{len(self.resources)}"
        self.resources[name] = publisher
        self.answer(201, event["jsep"]["sdp"].encode(), Content_Type="application/sdp", Location=name)

    def do_DELETE(self):
        publisher = self.resources.pop(self.path, None)
        if publisher:
            publisher.ask(publisher.session, {"janus": "destroy"})
        self.answer(200 if publisher else 404)


FOLDER, TOKEN = sys.argv[1:]
PORT = free_port()
BASE = f"http://127.0.0.1:{PORT}/janus"
write_configuration(FOLDER, PORT)
janus = subprocess.Popen(["janus", "--configs-folder", FOLDER, "--config", f"{FOLDER}/janus.jcfg"],
                         stdout=open(f"{FOLDER}/janus.log", "w"), stderr=subprocess.STDOUT)
try:
    for _ in range(200):
        try:
            urllib.request.urlopen(f"{BASE}/info", timeout=5).read()
            break
        except OSError:
            time.sleep(0.05)
    HOST = machine()
    server = http.server.ThreadingHTTPServer((HOST, 0), Gate)
    print(f"ready {HOST}:{server.server_address[1]} http://{HOST}:{PORT}/janus", flush=True)
    # Ends with who started it.
    threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
    server.serve_forever()
finally:
    janus.kill()
