"""A soak of two nodes of a cluster, one of which is restarted every few minutes: the one that has the avatar.

Each restart moves the avatar, the relay and what the avatar still has to say to the other node; publisher and players connect there.
Odd ones are kills (-9), even ones are asked for (SIGTERM), as a roll-out does it."""

import json
import shutil
import socket
import subprocess
import time

from .faults import background
from .player import Player
from .publisher import Publisher
from .server import ROOT, Refused, Server
from .stand import Stand

# Seconds in which sessions must be made elsewhere: the death of a node is noticed after 2.5, and an engine may have to be measured.
BACK = 20.0
# A node is away for so long.
AWAY = 15.0
# Memory of a node at the end of its life may be so many megabytes above that of its first.
GROWTH_MB = 60.0
SESSIONS = {"avatar": {"id": "avatar", "graph": "avatar", "avatar": "demo", "always_on": True}, "relay": {"id": "relay", "graph": "relay"}}


def nats(folder):
    """A NATS server with JetStream on a free port, and its address."""
    program = shutil.which("nats-server") or "/usr/sbin/nats-server"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(folder / "nats.log", "ab") as log:
        process = subprocess.Popen([program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder / "nats")],
                                   cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    return process, f"nats://127.0.0.1:{port}"


class PairStand(Stand):
    """The stand with two nodes in place of a server. `self.server` is the one that stays."""

    def __init__(self, folder, minutes, every, size):
        super().__init__(folder, minutes, [], size)
        self.every, self.restarts, self.lives, self.panics = every, [], {"a": [], "b": []}, []

    def node(self, name):
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        settings = {"sessions": {"load": 1.0, "idle_seconds": 5}, "cluster": {"url": [self.address], "node": name, "drain_seconds": 5}}
        server = Server(folder, settings, env={"XDG_CACHE_HOME": str(self.folder / "cache"), "XDG_DATA_HOME": str(folder)})
        server.start()
        return server

    def until(self, what, look, seconds=90):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if found := look():
                    return found
            except (Refused, OSError, KeyError):
                pass
            time.sleep(0.1)
        self.broken.append(f"{what}: not within {seconds:.0f} s")
        return None

    def both(self):
        """Both nodes are there, and know what engines cost."""
        return [n["measured"] for n in self.server.api("GET", "/cluster")] == [True, True]

    def run(self):
        natsd, self.address = nats(self.folder)
        self.nodes, helpers = {}, []
        self.players = {name: [] for name in SESSIONS}
        try:
            self.until("the NATS server listens", lambda: socket.create_connection(("127.0.0.1", int(self.address.rpartition(":")[2])), 1))
            self.nodes = {name: self.node(name) for name in ("a", "b")}
            self.server = self.nodes["a"]
            self.until("both nodes are there", self.both)
            for spec in SESSIONS.values():
                self.server.api("POST", "/sessions", spec)
            self.publisher = Publisher(f"{self.server.rtmp}/relay", self.clips["main"], self.folder / "publisher.log")
            self.publisher.start()
            self.server.wait("relay", lambda s: s["publishing"], 60)
            self.play()
            self.began = time.monotonic()
            self.warm = self.again = self.began + min(20.0, self.seconds * 0.1)
            helpers = [background(self.talk), background(self.watch)]
            self.schedule()
        finally:
            self.ended = time.monotonic()
            self.stopping.set()
            for name, node in self.nodes.items():
                self.note_life(name)
            self.counters = {}
            self.counters = {name: self.server.status(name) for name in SESSIONS} if self.nodes and self.server.alive() else {}
            if hasattr(self, "publisher"):
                self.publisher.kill()
            for players in self.players.values():
                for player in players:
                    player.stop()
            for helper in helpers:
                helper.join(15)
            for name, node in self.nodes.items():
                node.stop()
                self.panics += node.panics()
            natsd.kill()
            natsd.wait()

    def play(self):
        for name in SESSIONS:
            self.players[name].append(Player(f"{self.server.rtmp}/{name}/synced"))

    def watch(self):
        """Players that have ended begin again at the node that stays."""
        while not self.stopping.wait(0.5):
            for name, players in self.players.items():
                if players and not players[-1].running():
                    players.append(Player(f"{self.server.rtmp}/{name}/synced"))

    def note_life(self, name):
        node = self.nodes[name]
        if node.alive():
            usage = node.usage()
            self.lives[name].append({"at": round(time.monotonic() - self.began), "mb": round(usage["rss"] / 1e6, 1),
                                     "threads": usage["threads"], "fds": usage["fds"]})

    def kept_mb(self):
        return round(sum(f.stat().st_size for f in (self.folder / "nats").rglob("*") if f.is_file()) / 1e6, 2)

    def schedule(self):
        at, number = self.began + min(self.every, self.seconds / 3), 0
        while at + BACK + AWAY < self.began + self.seconds:
            self.rest_until(at)
            number += 1
            self.restart(killed=number % 2 == 1)
            at += self.every
        self.rest_until(self.began + self.seconds)
        at_end = {s["id"]: s["node"] for s in self.server.api("GET", "/sessions")}
        if sorted(at_end) != sorted(SESSIONS):
            self.broken.append(f"sessions at the end: {at_end}")

    def rest_until(self, when):
        while (left := when - time.monotonic()) > 0:
            time.sleep(min(left, 1))

    def restart(self, killed):
        owner = self.server.status("avatar")["node"]
        other = "b" if owner == "a" else "a"
        mine = {s["id"] for s in self.server.api("GET", "/sessions") if s["node"] == owner}
        self.note_life(owner)
        self.note_life(other)
        self.server, victim = self.nodes[other], self.nodes[owner]
        began = time.monotonic()
        print(f"{began - self.began:6.1f} s  node {owner}, which has {', '.join(sorted(mine))}, is {'killed' if killed else 'asked to end'}", flush=True)
        if killed:
            victim.process.kill()
            victim.process.wait()
        else:
            # It moves its sessions first.
            victim.process.terminate()
        self.publisher.urls = [f"{self.server.rtmp}/relay"]
        back = {}

        def all_back():
            for s in self.server.api("GET", "/sessions"):
                # The relay begins again with its publisher.
                if s["id"] not in back and s["node"] == other and s["phase"] == "running":
                    back[s["id"]] = round(time.monotonic() - began, 2)
            if not self.publisher.running() or victim.process.poll() is not None and "relay" not in back:
                self.publisher.restart()
                time.sleep(1)
            return set(back) >= mine

        self.until(f"restart {len(self.restarts) + 1}: the sessions of {owner} are made by {other}", all_back, BACK + 10)
        exit_code = None
        if not killed:
            try:
                exit_code = victim.process.wait(30)
            except subprocess.TimeoutExpired:
                self.broken.append(f"node {owner} was asked to end and has not within 30 s")
                victim.process.kill()
            if exit_code not in (0, None):
                self.broken.append(f"node {owner} ended with {exit_code}, not 0, when it was asked to end")
            self.publisher.restart()
        self.until("the relay is published to", lambda: self.server.status("relay")["publishing"], 30)
        late = {name: took for name, took in back.items() if took > BACK}
        if late:
            self.broken.append(f"sessions were away for more than {BACK:.0f} s: {late}")
        self.panics += victim.panics()
        victim.log.rename(victim.log.with_suffix(f".{len(self.restarts)}.log"))
        self.log.append((began, time.monotonic(), f"restart of {owner}", True))
        self.rest_until(began + AWAY)
        self.nodes[owner] = self.node(owner)
        self.until("both nodes are there", self.both)
        self.restarts.append({"at": round(began - self.began), "node": owner, "killed": killed, "away_s": back, "exit": exit_code,
                              "nats_mb": self.kept_mb()})

    def report(self):
        out = {"minutes": round((self.ended - self.began) / 60, 2), "restarts": self.restarts, "lives": self.lives, "sessions": {},
               "said": self.said, "notes": self.notes, "panics": self.panics[:20], "nats_mb": self.kept_mb()}
        rows = []
        for name, players in self.players.items():
            out["sessions"][name] = self.session(name, players, rows)
        for restart in self.restarts:
            rows.append([f"at {restart['at']} s", f"{restart['node']} {'killed' if restart['killed'] else 'ended by itself'}",
                         f"away {json.dumps(restart['away_s'])}", f"NATS keeps {restart['nats_mb']} MB"])
        for name, lives in self.lives.items():
            rows.append([f"node {name}", *(f"{life['mb']} MB at {life['at']} s" for life in lives[-6:])])
            ends = [life["mb"] for life in lives]
            # The first life has begun with less: an engine is loaded once.
            if len(ends) >= 4 and ends[-1] > max(ends[:2]) + GROWTH_MB:
                self.broken.append(f"node {name} has grown from {max(ends[:2])} to {ends[-1]} MB")
        rows.append(["speech", f"{self.said['http']} by HTTP, {self.said['websocket']} by WebSocket",
                     f"{len(self.said['failed'])} failed, as they do while a node dies", *self.said["failed"][:1]])
        if self.panics:
            self.broken.append(f"{len(self.panics)} panics, the first: {self.panics[0]}")
        if not self.restarts:
            self.broken.append("no node was restarted: give it more --minutes")
        if self.said["http"] + self.said["websocket"] == 0:
            self.broken.append("nothing was said")
        return self.finish(out, rows)
