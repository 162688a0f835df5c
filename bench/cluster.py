#!/usr/bin/env python3
"""Three nodes in three network namespaces, with a real NATS server and an S3 server: nodes are killed and cut off.

    sudo bench/cluster.py [--quick] [--only sessions,partition,render] [--json OUT]

    sessions    12 sessions of two engines are placed; a node is killed (-9). How long its sessions are away (until a frame of theirs
                is made elsewhere), and the lowest rate of the others in any two seconds meanwhile
    partition   a node is cut off for 10 s: it goes on meanwhile, and afterwards each session is on one node
    render      180 s are split over two nodes, one of which is killed when a third is made. Each frame carries its number: none is
                missing or comes twice; sound and times are those of a render on one machine, and there is one object in the storage

The exit status is 1 where a session is away for more than 5 s, another falls below 24 frames a second, the partition does not heal, or
the render is not whole. A machine that other programs keep busy breaks the first two: `before` says how fast sessions were
when nothing had happened yet.

Needs root (`ip netns`), ffmpeg, `make build`, and of LIPSTREAM_SETUP_TESTS=1 make setup nats-server and moto.
"""

import argparse
import json
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

from live import numbered
from live.nodes import Failed, Nats, Net, Node, Objects, until
from live.server import BINARY

NODES = ("a", "b", "c")
AWAY = 5.0
LEAST_FPS = 24.0
# Rates are counted over so many seconds: a frame more or less at the moment of looking is half a frame a second.
WINDOW = 2.0
CUT_OFF = 10
# Renders are encoded without loss: what differs was drawn differently.
LOSSLESS = '{"crf": 0}'
MIXED = ("compact-words", "compact")


class Watch:
    """Looks at all sessions through one node, again and again: `(when, {session: (node, frames)})`."""

    def __init__(self, node):
        self.node, self.looks, self.ended = node, [], threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.ended.wait(0.1):
            asked = time.monotonic()
            try:
                seen = {s["id"]: (s["node"], s["frames"]) for s in self.node.sessions()}
            except (OSError, ValueError):
                continue
            answered = time.monotonic()
            # A slow answer says little about when its frames were counted.
            if answered - asked < 0.5:
                self.looks.append(((asked + answered) / 2, seen))

    def stop(self):
        self.ended.set()
        self.thread.join(10)

    def lowest(self, begin, end, names):
        """The lowest rate of each session in any window between two moments, while it stays on its node."""
        looks = [look for look in self.looks if begin <= look[0] <= end]
        rates = {}
        for first, (at, seen) in enumerate(looks):
            later = next((look for look in looks[first + 1:] if look[0] - at >= WINDOW), None)
            if later is None:
                break
            for name in names:
                (node, frames), (node_later, frames_later) = seen.get(name, (None, 0)), later[1].get(name, (None, 0))
                if node and node == node_later:
                    rates.setdefault(name, []).append((frames_later - frames) / (later[0] - at))
        return {name: min(found) for name, found in rates.items()}

    def back(self, begin, dead):
        """Seconds until each session of `dead` had made a frame on another node; None: never."""
        def first(name):
            return next((at - begin for at, seen in self.looks if at > begin and seen.get(name, (dead[name], 0))[0] != dead[name]
                         and seen[name][1] > 0), None)
        return {name: first(name) for name in dead}


class Bench:
    def __init__(self, folder, net, args):
        self.folder, self.net, self.args = folder, net, args
        self.nodes, self.all = {}, []
        self.report, self.broken = {}, []

    def node(self, name, **settings):
        settings = {"LIPSTREAM_SESSIONS_LOAD": str(self.args.load), **settings}
        node = Node(self.folder, name, NODES.index(name) + 2, settings)
        self.nodes[name] = node
        self.all.append(node)
        return node

    def gather(self):
        for name in NODES:
            if name not in self.nodes or not self.nodes[name].alive():
                self.node(name)
        a = self.nodes["a"]
        until("all nodes are there and know what engines cost", lambda: [n["measured"] for n in a.ask("GET", "/cluster")] == [True] * len(NODES))

    def say(self, text):
        print(text, flush=True)

    def fail(self, text):
        self.broken.append(text)
        self.say(f"BROKEN {text}")

    def place(self):
        """The sessions, from where there are none; which node has which."""
        a, c, count = self.nodes["a"], self.nodes["c"], self.args.sessions
        have = {s["id"] for s in a.sessions()}
        # Two engines: sessions go where theirs is loaded, and the first of the second one to an empty node.
        for number in range(count):
            spec = {"id": f"s{number}", "graph": "avatar", "avatar": "demo", "engine": MIXED[number >= count * 2 // 3], "always_on": True}
            if spec["id"] not in have:
                c.ask("POST", "/sessions", spec, timeout=60)
        until("all sessions run", lambda: sum(s["phase"] == "running" and s["frames"] > 0 for s in a.sessions()) == count)
        return {s["id"]: s["node"] for s in a.sessions()}

    def sessions(self):
        at, a = self.place(), self.nodes["a"]
        placed = {name: sorted(i for i, node in at.items() if node == name) for name in NODES}
        self.say(f"placed: {json.dumps({name: len(ids) for name, ids in placed.items()})}")
        # The first frames of a session come late.
        time.sleep(3)
        watch = Watch(a)
        time.sleep(3 if self.args.quick else 12)
        # Not the one that is asked.
        victim = max(("b", "c"), key=lambda name: len(placed[name]))
        before = watch.lowest(0, time.monotonic(), at)
        dead = {name: victim for name in placed[victim]}
        killed = time.monotonic()
        self.nodes[victim].end(signal.SIGKILL)
        time.sleep(8 if self.args.quick else 15)
        watch.stop()
        back = watch.back(killed, dead)
        others = watch.lowest(killed, killed + 15, [name for name in at if name not in dead])
        self.report["sessions"] = {
            "placed": {name: len(ids) for name, ids in placed.items()}, "killed": victim, "looks": len(watch.looks),
            "fps_before": before, "away_s": back, "fps_of_others": others,
        }
        slowest, lowest = max((b if b is not None else 1e9 for b in back.values()), default=0), min(others.values(), default=0)
        self.say(f"before: lowest rate of any session in {WINDOW:.0f} s {min(before.values(), default=0):.1f} fps")
        self.say(f"killed {victim} with {len(dead)} sessions: away for "
                 f"{', '.join('ever' if b is None else f'{b:.1f}' for b in sorted(back.values(), key=lambda b: b or 1e9))} s")
        self.say(f"others: lowest rate in {WINDOW:.0f} s {lowest:.1f} fps")
        if not dead:
            self.fail(f"node {victim} had no session")
        if slowest > AWAY:
            self.fail(f"a session was away for more than {AWAY:.0f} s")
        if others and lowest < LEAST_FPS:
            self.fail(f"another session fell below {LEAST_FPS:.0f} fps")

    def partition(self):
        self.gather()
        self.place()
        a = self.nodes["a"]
        listed = lambda: [(s["id"], s["node"]) for s in a.sessions()]
        held = lambda: {s["node"] for s in a.sessions()}
        lost = "c" if "c" in held() else "b"
        self.say(f"cutting off {lost}, which has {sum(node == lost for _, node in listed())} sessions")
        names = sorted(name for name, _ in listed())
        self.net.cut(lost, True)
        cut = time.monotonic()
        time.sleep(CUT_OFF / 2)
        try:
            # Others do not answer it: what it lists is its own.
            alone = {s["id"]: s["frames"] for s in self.nodes[lost].inside("/sessions")}
            time.sleep(2)
            later = {s["id"]: s["frames"] for s in self.nodes[lost].inside("/sessions")}
            went_on = sum(later.get(name, 0) > frames for name, frames in alone.items())
        except OSError as error:
            alone, went_on = {}, 0
            self.fail(f"the node that was cut off does not answer itself: {error}")
        time.sleep(max(0.0, cut + CUT_OFF - time.monotonic()))
        self.net.cut(lost, False)
        mended = time.monotonic()
        until("the node that was cut off is heard", lambda: len(a.ask("GET", "/cluster")) == len(NODES))

        def whole():
            views = [sorted((s["id"], s["node"]) for s in self.nodes[name].sessions()) for name in ("a", lost)]
            return views[0] == views[1] and [name for name, _ in views[0]] == names and views[0]

        try:
            settled = until("each session is on one node", whole, 60)
            # Each node's own count: two nodes that have one session are seen here.
            counts = {n["name"]: n["sessions"] for n in a.ask("GET", "/cluster")}
            took = time.monotonic() - mended
            self.say(f"partition of {CUT_OFF} s: {went_on} of {len(alone)} sessions went on in it; healed {took:.1f} s after it: {json.dumps(counts)}")
            self.report["partition"] = {"went_on": went_on, "alone": len(alone), "healed_s": took, "sessions": dict(settled), "counts": counts}
            if alone and went_on < len(alone):
                self.fail("sessions of the node that was cut off stood still")
        except Failed as failure:
            self.report["partition"] = {"healed_s": None, "listed": listed()}
            self.fail(f"the partition has not healed: {failure}")

    def render(self):
        seconds, split = self.args.seconds, self.args.split
        for node in self.nodes.values():
            node.end(signal.SIGKILL)
        self.nodes.clear()
        self.say(f"preparing {seconds} s of numbered frames")
        video, speech = numbered.numbered(self.folder / "numbered.mp4", seconds + 2), numbered.speech(self.folder / "speech.flac", seconds)
        settings = {"LIPSTREAM_RENDERS_SPLIT_SECONDS": str(split)}
        for name in ("a", "b"):
            self.node(name, **settings)
        a, b = self.nodes["a"], self.nodes["b"]
        until("both nodes are there", lambda: len([n for n in a.ask("GET", "/cluster") if n["name"] in ("a", "b")]) == 2)
        files, began = {"video": video, "audio": speech}, time.monotonic()
        job = a.hand_in({"options": LOSSLESS}, files)
        status = lambda node=a: node.ask("GET", f"/renders/{job}")
        until("both nodes render", lambda: a.renders_now() and b.renders_now(), 600)
        until("a third is made, and the node that will be killed renders", lambda: status()["progress"] > 0.33 and b.renders_now(), 3600)
        at = status()["progress"]
        self.say(f"killing b, which renders, at {at * 100:.0f} %")
        b.end(signal.SIGKILL)

        def over():
            now = status()
            return now if now["state"] in ("done", "failed", "cancelled") else None

        done = until("it is rendered", over, 7200, 1.0)
        took = time.monotonic() - began
        self.report["render"] = report = {"seconds": seconds, "split_seconds": split, "killed_at": at, "took_s": took, "state": done["state"]}
        if done["state"] != "done":
            return self.fail(f"the render has {done['state']}: {done.get('error')}")
        joined, whole = self.folder / "joined.mp4", self.folder / "whole.mp4"
        joined.write_bytes(a.request("GET", f"/renders/{job}/result", timeout=120))
        # The inputs and the parts are removed after it is done.
        objects = lambda: [name.rsplit("/", 1)[-1] for name in self.objects.names("lipstream/renders/")]
        try:
            until("one object is left", lambda: len(objects()) == 1, 30)
        except Failed:
            pass
        report["objects"] = left = objects()
        if len(left) != 1 or not left[0].startswith("result-"):
            self.fail(f"the storage has {left}, not one result")
        a.end(signal.SIGTERM)
        self.say("the same on one machine in one piece")
        alone = Node(self.folder)
        self.all.append(alone)
        until("it answers", lambda: alone.ask("GET", "/renders") is not None)
        began = time.monotonic()
        job = alone.hand_in({"options": LOSSLESS}, files)
        until("it is rendered", lambda: alone.ask("GET", f"/renders/{job}")["state"] in ("done", "failed"), 7200, 1.0)
        report["alone_took_s"] = time.monotonic() - began
        whole.write_bytes(alone.request("GET", f"/renders/{job}/result", timeout=120))
        alone.end(signal.SIGTERM)
        figures, broken = numbered.compare(whole, joined, round(seconds * numbered.FPS))
        report.update(figures)
        self.say(json.dumps(report, indent=1))
        for text in broken:
            self.fail(text)
        if self.args.keep:
            self.say(f"kept: {whole}, {joined}")

    def run(self):
        nats = Nats(self.folder)
        self.objects = Objects(self.folder)
        try:
            for name in self.args.only:
                began = time.monotonic()
                try:
                    if name != "render":
                        self.gather()
                    getattr(self, name)()
                except Failed as failure:
                    self.fail(f"{name}: {failure}")
                except Exception as error:
                    traceback.print_exc()
                    self.fail(f"{name}: {error!r}")
                self.say(f"{name}: {time.monotonic() - began:.0f} s")
            panics = [line for node in self.all for line in node.panics()]
            if panics:
                self.fail(f"{len(panics)} panics, the first: {panics[0]}")
        finally:
            for process in [*self.all, self.objects, nats]:
                process.end(signal.SIGKILL)
        self.report["broken"] = self.broken
        return self.report


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, help="12, or 4 with --quick")
    parser.add_argument("--seconds", type=int, help="length of the render: 180, or 24 with --quick")
    parser.add_argument("--split", type=int, help="length of its parts: 60, or 8 with --quick")
    parser.add_argument("--load", type=float, default=50, help="part of the cores that each node counts with")
    parser.add_argument("--quick", action="store_true", help="fewer sessions, a short render: whether it works at all")
    parser.add_argument("--only", default="sessions,partition,render", type=lambda text: text.split(","))
    parser.add_argument("--json", type=Path, help="write the report there")
    parser.add_argument("--keep", type=Path, help="folder for logs and videos; else a temporary one")
    args = parser.parse_args()
    if unknown := set(args.only) - {"sessions", "partition", "render"}:
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}")
    args.sessions = args.sessions or (4 if args.quick else 12)
    args.seconds = args.seconds or (24 if args.quick else 180)
    args.split = args.split or (8 if args.quick else 60)
    if not BINARY.exists():
        parser.error(f"{BINARY} is missing: `make build` first")
    with tempfile.TemporaryDirectory(prefix="lipstream-cluster-") as temporary, Net(NODES) as net:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        report = Bench(folder.resolve(), net, args).run()
        if args.json:
            args.json.write_text(json.dumps(report, indent=1) + "\n")
    print("\n".join(f"BROKEN {text}" for text in report["broken"]) or "all bounds hold")
    sys.exit(1 if report["broken"] else 0)


if __name__ == "__main__":
    # So that nodes and namespaces end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
