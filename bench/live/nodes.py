"""Nodes of a cluster in network namespaces of their own, with a NATS server and an S3 server that all reach. Needs root."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
import uuid

from .server import BINARY, PANIC, ROOT

KEY = "the-operator-of-the-bench"
NET = "10.177.17"
# What others reach: the NATS server and the S3 server.
HUB = f"{NET}.1"
NATS_PORT, S3_PORT = 4222, 9000
BUCKET = "bench"
MOTO = ROOT / ".lipstream/moto/bin/python"


class Failed(Exception):
    """What did not come about."""


def sh(line, check=True):
    done = subprocess.run(line.split(), capture_output=True, text=True)
    if check and done.returncode:
        raise Failed(f"{line}: {done.stderr.strip()}")


def until(what, look, patience=180, step=0.1):
    """What `look` gives once it gives something; what it meets on the way is no answer."""
    end, met = time.monotonic() + patience, None
    while time.monotonic() < end:
        try:
            if found := look():
                return found
            met = None
        except (OSError, ValueError) as error:
            met = error
        time.sleep(step)
    raise Failed(f"{what}: not within {patience} s" + (f" ({met})" if met else ""))


class Net:
    """A bridge, and a namespace behind it for each of `names`; the n-th has the address NET.(n + 2)."""

    def __init__(self, names):
        self.names = names

    def __enter__(self):
        if os.geteuid() != 0:
            raise SystemExit("network namespaces need root: run this with sudo")
        self.__exit__()
        sh("ip link add lsbench type bridge")
        sh(f"ip addr add {HUB}/24 dev lsbench")
        sh("ip link set lsbench up")
        for number, name in enumerate(self.names, 2):
            sh(f"ip netns add lsbench-{name}")
            sh(f"ip link add lsb-{name} type veth peer name eth0 netns lsbench-{name}")
            sh(f"ip link set lsb-{name} master lsbench up")
            sh(f"ip -n lsbench-{name} addr add {NET}.{number}/24 dev eth0")
            sh(f"ip -n lsbench-{name} link set eth0 up")
            sh(f"ip -n lsbench-{name} link set lo up")
        return self

    def __exit__(self, *_):
        for name in self.names:
            sh(f"ip netns del lsbench-{name}", check=False)
        sh("ip link del lsbench", check=False)

    def cut(self, name, off):
        sh(f"ip link set lsb-{name} {'down' if off else 'up'}")


class Process:
    """A program that ends with the bench."""

    def __init__(self, line, log, env=None):
        self.log = log
        with open(log, "ab") as out:
            self.process = subprocess.Popen(line, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def alive(self):
        return self.process.poll() is None

    def end(self, number=signal.SIGKILL, patience=60):
        """Signals it and waits; one that does not heed is killed."""
        if self.alive():
            self.process.send_signal(number)
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Nats(Process):
    def __init__(self, folder):
        program = shutil.which("nats-server") or "/usr/sbin/nats-server"
        line = [program, "-a", HUB, "-p", str(NATS_PORT), "-js", "-sd", str(folder / "nats")]
        super().__init__(line, folder / "nats.log")


class Objects(Process):
    """An S3 server, moto, with an empty bucket."""

    url = f"http://{HUB}:{S3_PORT}"

    def __init__(self, folder):
        if not MOTO.exists():
            raise SystemExit(f"{MOTO} is missing: LIPSTREAM_SETUP_TESTS=1 make setup installs it")
        super().__init__([str(MOTO), "-m", "moto.server", "-H", HUB, "-p", str(S3_PORT)], folder / "s3.log")
        until("the S3 server listens", lambda: self.ask("PUT", f"/{BUCKET}") is not None, 30)

    def ask(self, method, path):
        with urllib.request.urlopen(urllib.request.Request(self.url + path, method=method), timeout=10) as answer:
            return answer.read()

    def names(self, prefix=""):
        text = self.ask("GET", f"/{BUCKET}?list-type=2&prefix={prefix}").decode()
        return [rest.split("</Key>")[0] for rest in text.split("<Key>")[1:]]


class Node(Process):
    """`lipstream serve`; in a namespace and a cluster where it has a `name`, else alone at the hub."""

    def __init__(self, folder, name=None, number=1, settings=None):
        self.name, self.folder = name, folder / (name or "alone")
        self.address = f"{NET}.{number}"
        self.url = f"http://{self.address}:8080"
        environment = {
            **os.environ,
            "LIPSTREAM_SERVER_BIND": self.address,
            "LIPSTREAM_RTMP_BIND": self.address,
            "LIPSTREAM_AUTH_KEYS": KEY,
            "LIPSTREAM_SESSIONS_DEMO": "false",
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_DATA_HOME": str(self.folder),
            "RUST_BACKTRACE": "1",
            **(settings or {}),
        }
        line = [str(BINARY), "serve"]
        if name:
            environment |= {
                "LIPSTREAM_CLUSTER_NODE": name,
                "LIPSTREAM_STORAGE_URL": f"s3://{BUCKET}/lipstream",
                "LIPSTREAM_STORAGE_ENDPOINT": Objects.url,
                "LIPSTREAM_STORAGE_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_EC2_METADATA_DISABLED": "true",
            }
            # `ip netns exec` becomes the program itself.
            line = ["ip", "netns", "exec", f"lsbench-{name}", *line, "--cluster", f"nats://{HUB}:{NATS_PORT}"]
        super().__init__(line, folder / f"{name or 'alone'}.log", environment)

    def request(self, method, path, data=None, kind="application/json", timeout=15):
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": kind}
        request = urllib.request.Request(f"{self.url}/api/v1{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise OSError(f"{method} {path} at {self.name}: {error.code} {error.read()[:300].decode(errors='replace')}") from None

    def ask(self, method, path, body=None, timeout=15):
        text = self.request(method, path, json.dumps(body).encode() if body is not None else None, timeout=timeout)
        return json.loads(text) if text else None

    def inside(self, path, timeout=5):
        """The same from inside its namespace, whatever the link to it does."""
        line = ["ip", "netns", "exec", f"lsbench-{self.name}", "python3", "-c",
                "import sys, urllib.request as u; sys.stdout.buffer.write(u.urlopen(u.Request(sys.argv[1], headers="
                "{'Authorization': 'Bearer ' + sys.argv[2]}), timeout=float(sys.argv[3])).read())",
                f"{self.url}/api/v1{path}", KEY, str(timeout)]
        done = subprocess.run(line, capture_output=True, timeout=timeout + 10)
        if done.returncode:
            raise OSError(done.stderr.decode(errors="replace").strip()[-300:])
        return json.loads(done.stdout)

    def sessions(self):
        return self.ask("GET", "/sessions", timeout=5)

    def hand_in(self, fields, files):
        """Hands a render in; its number."""
        boundary = uuid.uuid4().hex
        parts = [(f'name="{name}"', value.encode()) for name, value in fields.items()]
        parts += [(f'name="{name}"; filename="{file.name}"', file.read_bytes()) for name, file in files.items()]
        body = b"".join(b"--%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (boundary.encode(), head.encode(), value)
                        for head, value in parts) + b"--%b--\r\n" % boundary.encode()
        answer = self.request("POST", "/renders", body, f"multipart/form-data; boundary={boundary}", timeout=120)
        return json.loads(answer)["id"]

    def renders_now(self):
        """Whether it has a render, or a part of one, in the making."""
        folder = self.folder / "lipstream/renders"
        return folder.is_dir() and any(folder.iterdir())

    def panics(self):
        return [line for line in self.log.read_text(errors="replace").splitlines() if PANIC.search(line)]
