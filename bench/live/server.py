"""`lipstream serve` on free ports, with its REST API and what it takes of the machine."""

import http.client
import json
import os
import re
import signal
import subprocess
import time
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("LIPSTREAM_BINARY", ROOT / "target/release/lipstream"))
# Seconds in which the server must say where it is; the first start prepares the demo avatar.
START = 60
# proc(5): clock ticks a second in /proc/PID/stat.
TICKS = os.sysconf("SC_CLK_TCK")
# What a line of the log holds when a thread of the server has panicked.
PANIC = re.compile(r"panicked at|panicked$|a session's pacer panicked|fatal runtime error|double free|SIGSEGV")


class Refused(Exception):
    """An answer of the server that is no success."""

    def __init__(self, status, body):
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body


def toml(value):
    """A TOML value; JSON's strings, numbers, booleans and lists of them are TOML's too."""
    return json.dumps(value)


def config_text(sections, sessions=()):
    """`{section: {key: value}}` and a list of sessions as the text of a configuration file."""
    lines = []
    for name, keys in sections.items():
        lines += [f"[{name}]"] + [f"{key} = {toml(value)}" for key, value in keys.items()]
    for session in sessions:
        lines.append("[[session]]")
        for key, value in session.items():
            if isinstance(value, dict):
                value = "{ " + ", ".join(f"{k} = {toml(v)}" for k, v in value.items()) + " }"
                lines.append(f"{key} = {value}")
            else:
                lines.append(f"{key} = {toml(value)}")
    return "\n".join(lines) + "\n"


class Server:
    """A server of our own. `with Server(folder, sections, sessions) as server:`"""

    def __init__(self, folder, sections=None, sessions=(), binary=BINARY, env=None):
        self.folder = Path(folder)
        self.binary = Path(binary)
        if not self.binary.exists():
            raise SystemExit(f"{self.binary} is missing: `make build` first")
        all_sections = {
            "server": {"port": 0},
            "rtmp": {"port": 0},
            "sessions": {"demo": False, "private_addresses": True},
            "avatars": {"folder": str(self.folder / "avatars")},
        }
        for name, keys in (sections or {}).items():
            all_sections.setdefault(name, {}).update(keys)
        self.config = self.folder / "lipstream.toml"
        self.config.write_text(config_text(all_sections, sessions))
        self.log = self.folder / "server.log"
        self.env = {**os.environ, "RUST_BACKTRACE": "1", **(env or {})}
        self.process = None
        self.http = self.rtmp = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        banner = self.folder / "banner.txt"
        with self.log.open("ab") as log, banner.open("wb") as out:
            self.process = subprocess.Popen(
                [self.binary, "serve", self.config], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=log,
                env=self.env,
            )
        end = time.monotonic() + START
        while True:
            text = banner.read_text(errors="replace")
            if "Speak" in text or "WebRTC" in text:
                break
            if self.process.poll() is not None:
                raise SystemExit(f"the server ended with {self.process.returncode}:\n{text}{self.log.read_text()[-2000:]}")
            if time.monotonic() > end:
                raise SystemExit(f"the server said nothing within {START} s:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.05)
        self.banner = text
        address = re.search(r"Page\s+(http://\S+?)/?\s", text)
        self.http = address.group(1)
        rtmp = re.search(r"publish (rtmp://[^/\s]+/[^/\s]+)/", text)
        self.rtmp = rtmp.group(1) if rtmp else None
        parts = urllib.parse.urlsplit(self.http)
        self.host, self.port = parts.hostname, parts.port

    def stop(self):
        """Returns the exit status, -9 when it had to be killed."""
        if self.process is None or self.process.poll() is not None:
            return self.process and self.process.returncode
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def alive(self):
        return self.process.poll() is None

    def exchange(self, method, path, body=None, kind="application/json", timeout=30):
        """The answer's headers and body; `Refused` where the status is 400 or more."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            headers = {"Content-Type": kind} if body is not None else {}
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise Refused(answer.status, data[:500].decode(errors="replace"))
        return answer.headers, data

    def request(self, *arguments, **options):
        """The answer's body alone."""
        return self.exchange(*arguments, **options)[1]

    def api(self, method, path, value=None):
        body = None if value is None else json.dumps(value).encode()
        data = self.request(method, "/api/v1" + path, body)
        return json.loads(data) if data else None

    def status(self, session):
        return self.api("GET", f"/sessions/{session}")

    def wait(self, session, condition, seconds=30):
        """The first status for which `condition` holds."""
        end = time.monotonic() + seconds
        while True:
            status = self.status(session)
            if condition(status):
                return status
            if time.monotonic() > end:
                raise SystemExit(f"session {session} did not get there within {seconds} s: {json.dumps(status)}")
            time.sleep(0.1)

    def speak(self, session, wav):
        return self.request("POST", f"/api/v1/sessions/{session}/speak", wav, "audio/wav")

    def metrics(self):
        """`{name{labels}: value}` of /metrics."""
        values = {}
        for line in self.request("GET", "/metrics").decode().splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                values[name] = float(value)
        return values

    def usage(self):
        """CPU seconds, resident bytes, threads and open files of the process, from proc(5)."""
        base = Path(f"/proc/{self.process.pid}")
        fields = (base / "stat").read_text().rpartition(")")[2].split()
        status = dict(line.split(":", 1) for line in (base / "status").read_text().splitlines() if ":" in line)
        return {
            "cpu": (int(fields[11]) + int(fields[12])) / TICKS,
            "rss": int(status["VmRSS"].split()[0]) * 1024,
            "threads": int(fields[17]),
            "fds": len(os.listdir(base / "fd")),
        }

    def panics(self):
        return [line for line in self.log.read_text(errors="replace").splitlines() if PANIC.search(line)]
