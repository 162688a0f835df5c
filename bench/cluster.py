#!/usr/bin/env python3
"""Three nodes in three network namespaces: 12 sessions are placed, one node is killed, another is cut off for 10 s.

    sudo bench/cluster.py [--sessions 12] [--load 50] [--json OUT]

Needs root (`ip netns`), nats-server and `make build`. Prints where the sessions are, how long those of the killed node were
away (until a frame of theirs is made elsewhere), the lowest rate of the others in any second meanwhile, and whether after the partition
each session is on one node only. It fails where a session is away for more than 5 s or another falls below 24 frames a second.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEY = "the-operator-of-the-bench"
NODES = ("a", "b", "c")
NET = "10.177.17"


def sh(line, check=True):
    return subprocess.run(line.split(), check=check, capture_output=True, text=True)


class Net:
    """A bridge, and a namespace a node behind it."""

    def __enter__(self):
        self.__exit__()
        sh("ip link add lsbench type bridge")
        sh(f"ip addr add {NET}.1/24 dev lsbench")
        sh("ip link set lsbench up")
        for number, node in enumerate(NODES, 2):
            sh(f"ip netns add lsbench-{node}")
            sh(f"ip link add lsb-{node} type veth peer name eth0 netns lsbench-{node}")
            sh(f"ip link set lsb-{node} master lsbench up")
            sh(f"ip -n lsbench-{node} addr add {NET}.{number}/24 dev eth0")
            sh(f"ip -n lsbench-{node} link set eth0 up")
            sh(f"ip -n lsbench-{node} link set lo up")
        return self

    def __exit__(self, *_):
        for node in NODES:
            sh(f"ip netns del lsbench-{node}", check=False)
        sh("ip link del lsbench", check=False)

    def cut(self, node, off):
        sh(f"ip link set lsb-{node} {'down' if off else 'up'}")


class Node:
    def __init__(self, name, number, folder, load):
        self.name, self.url = name, f"http://{NET}.{number}:8080"
        environment = dict(
            os.environ,
            LIPSTREAM_SERVER_BIND=f"{NET}.{number}",
            LIPSTREAM_RTMP_BIND=f"{NET}.{number}",
            LIPSTREAM_AUTH_KEYS=KEY,
            LIPSTREAM_CLUSTER_NODE=name,
            LIPSTREAM_SESSIONS_DEMO="false",
            LIPSTREAM_SESSIONS_LOAD=str(load),
            XDG_CACHE_HOME=str(folder / "cache"),
            XDG_DATA_HOME=str(folder / name),
        )
        log = open(folder / f"{name}.log", "w")
        line = ["ip", "netns", "exec", f"lsbench-{name}", str(ROOT / "target/release/lipstream"), "serve"]
        line += ["--cluster", f"nats://{NET}.1:4222"]
        self.process = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=log, stderr=log)

    def ask(self, method, path, body=None, timeout=10):
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/api/v1{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            text = answer.read()
            return json.loads(text) if text else None

    def sessions(self):
        return {s["id"]: s for s in self.ask("GET", "/sessions", timeout=5)}


def until(what, look, patience=120):
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            if found := look():
                return found
        except (OSError, urllib.error.URLError):
            pass
        time.sleep(0.1)
    sys.exit(f"{what}: not within {patience} s")


def watch(node, seconds, dead=()):
    """Rates of sessions in each second by the frames that they count, and when those of `dead` made frames again."""
    began, before, lowest, back = time.monotonic(), {}, {}, {}
    while time.monotonic() - began < seconds:
        now, all_of = time.monotonic(), node.sessions()
        for name, session in all_of.items():
            if name in dead:
                if session["frames"] > 0 and session["node"] != dead[name]:
                    back.setdefault(name, now - began)
                continue
            if name in before:
                then, frames = before[name]
                if now - then < 1:
                    continue
                lowest[name] = min(lowest.get(name, 1e9), (session["frames"] - frames) / (now - then))
            before[name] = now, session["frames"]
        time.sleep(0.05)
    return lowest, back


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=12)
    parser.add_argument("--load", type=float, default=50, help="part of the cores that each node counts with")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    failures = []
    with tempfile.TemporaryDirectory() as folder, Net() as net:
        folder = Path(folder)
        nats = subprocess.Popen(
            ["nats-server", "-a", f"{NET}.1", "-p", "4222", "-js", "-sd", str(folder / "nats")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        nodes = {}
        try:
            time.sleep(0.5)
            for number, name in enumerate(NODES, 2):
                nodes[name] = Node(name, number, folder, args.load)
            a, c = nodes["a"], nodes["c"]
            measured = lambda: [n["measured"] for n in a.ask("GET", "/cluster")] == [True] * len(NODES)
            until("all nodes are there", measured)
            # Two engines: sessions go where theirs is loaded, and the first of the second one to an empty node.
            for number in range(args.sessions):
                engine = "compact-words" if number < args.sessions * 2 // 3 else "compact"
                spec = {"id": f"s{number}", "graph": "avatar", "avatar": "demo", "engine": engine, "always_on": True}
                c.ask("POST", "/sessions", spec, timeout=60)
            running = lambda: sum(s["phase"] == "running" for s in a.sessions().values()) == args.sessions
            until("all sessions run", running)
            time.sleep(3)
            placed = {name: sorted(i for i, s in a.sessions().items() if s["node"] == name) for name in NODES}
            print("placed:", {name: len(ids) for name, ids in placed.items()})
            quiet, _ = watch(a, 10)
            print(f"before: lowest rate of any session in a second {min(quiet.values()):.1f} fps")
            victim = "b"
            dead = {name: victim for name in placed[victim]}
            # The program itself: `ip netns exec` has become it.
            nodes[victim].process.send_signal(signal.SIGKILL)
            others, back = watch(a, 12, dead)
            away = [back.get(name, float("inf")) for name in dead]
            print(f"killed {victim} with {len(dead)} sessions: back after {min(away, default=0):.1f} to {max(away, default=0):.1f} s")
            print(f"others: lowest rate in a second {min(others.values(), default=0):.1f} fps")
            if max(away, default=0) > 5:
                failures.append("a session was away for more than 5 s")
            if min(others.values(), default=25) < 24:
                failures.append("another session fell below 24 fps")
            lost = "c"
            before = sorted(a.sessions())
            net.cut(lost, True)
            time.sleep(10)
            net.cut(lost, False)
            alive = lambda: len(a.ask("GET", "/cluster")) == 2
            until("the node that was cut off is heard", alive)
            time.sleep(5)
            at = {name: nodes[name].sessions() for name in ("a", lost)}
            held = [(s["id"], s["node"]) for s in at["a"].values()]
            whole = sorted(i for i, _ in held) == before and {i: s["node"] for i, s in at["a"].items()} == {
                i: s["node"] for i, s in at[lost].items()
            }
            print("partition of 10 s:", "healed, each session on one node" if whole else f"not healed: {held}")
            if not whole:
                failures.append("the partition has not healed")
            if args.json:
                args.json.write_text(
                    json.dumps(
                        {
                            "sessions": args.sessions,
                            "placed": {name: len(ids) for name, ids in placed.items()},
                            "lowest_fps_before": min(quiet.values()),
                            "killed": len(dead),
                            "away_s": away,
                            "lowest_fps_of_others": min(others.values(), default=None),
                            "healed": whole,
                        },
                        indent=1,
                    )
                )
        finally:
            for node in nodes.values():
                node.process.kill()
            nats.kill()
            for process in [nats, *(node.process for node in nodes.values())]:
                process.wait()
    sys.exit("; ".join(failures) or 0)


if __name__ == "__main__":
    main()
