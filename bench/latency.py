#!/usr/bin/env python3
"""How long things take, measured from outside through the whole graph.

    bench/latency.py [--trials 10] [--json OUT]

    audio in -> lips out      a loud vowel by the WebSocket; the first frame whose mouth is not that of the avatar's own video
    interrupt -> at rest      in the middle of speech; the first frame from which on the mouth is the own video's again
    relay                     a flash through a relay, against the same flash through a plain RTMP server (nginx), if installed
    first frame               from connecting to the first key frame, by RTMP, of a session that runs, and of one that is idle
    publisher restart         from killing and starting it again until its picture arrives; the longest pause of the player

Each number holds RTMP over loopback and, where lips are looked at, ffmpeg's decoding; the frame's 40 ms are in it as well:
what comes just after a frame waits for the next one. What the server measures inside its graph is printed beside it.
"""

import argparse
import atexit
import json
import math
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from live import clips
from live.browser import view
from live.mouth import CROP, SIZE, Own
from live.player import QUICK, Player
from live.publisher import Publisher
from live.rtmp import Reader
from live.server import ROOT, Server
from live.stats import percentile, table
from live.websocket import Socket

RATE = 24000
LIPS_MS, INTERRUPT_MS, FIRST_FRAME_MS, RESTART_MS = 300, 200, 500, 2000


def vowel(seconds=0.6):
    """A loud "ah": harmonics of 120 Hz under the formants 700, 1200 and 2600 Hz."""
    formants = [(700, 130, 1.0), (1200, 150, 0.6), (2600, 250, 0.25)]
    tones = []
    for n in range(1, 34):
        level = sum(gain / (1 + ((120 * n - f) / width) ** 2) for f, width, gain in formants)
        tones.append((2 * math.pi * 120 * n / RATE, level))
    samples = [sum(level * math.sin(w * t) for w, level in tones) for t in range(int(RATE * seconds))]
    peak = max(map(abs, samples))
    return struct.pack(f"<{len(samples)}h", *(int(24000 * s / peak) for s in samples))


def idle(server, session, rest=1.5):
    """Waits until nothing is said and the mouth has been at rest for a while."""
    server.wait(session, lambda s: not s["speaking"] and s["speech_queued_ms"] == 0)
    time.sleep(rest)


class Bench:
    def __init__(self, folder, trials):
        self.folder, self.trials = folder, trials
        self.rows, self.out, self.broken = [], {}, []

    def note(self, name, values, bound=None, more=""):
        """`values` in milliseconds; the median is what the bound is for."""
        values = [v for v in values if v is not None]
        if not values:
            self.broken.append(f"{name}: nothing was measured")
            self.rows.append([name, "nothing measured", more])
            return
        median = statistics.median(values)
        self.out[name] = {"median": median, "p90": percentile(values, 0.9), "worst": max(values), "all": values}
        limit = f"bound {bound} ms" if bound else ""
        self.rows.append([name, f"median {median:.0f} ms", f"p90 {percentile(values, 0.9):.0f}", f"worst {max(values):.0f}",
                          f"of {len(values)}", limit, more])
        if bound and median > bound:
            self.broken.append(f"{name}: {median:.0f} ms, more than {bound}")

    def lips(self, server):
        own = Own()
        url = f"{server.rtmp}/avatar/synced"
        player, reader = Player(url, crop=CROP, size=SIZE, keep=True), Reader(url)
        if not player.first_frame.wait(15):
            sys.exit(f"no frame of the avatar came: {player.errors[-3:]}")
        peer = Socket(server.host, server.port, "/api/v1/sessions/avatar/audio")
        idle(server, "avatar", 4)
        quiet = [d for _, d in own.differences(player, max(0, len(player.frames) - 75))]
        rest = statistics.fmean(quiet)
        moves = max(max(quiet) * 1.3, rest + 1.5)
        graph = server.status("avatar")["latency_ms"]
        began, half = [], []
        sound = vowel()
        for _ in range(self.trials):
            idle(server, "avatar")
            first = len(player.frames)
            start = time.monotonic()
            peer.send({"type": "speak_start", "rate": RATE})
            peer.send(sound)
            peer.send({"type": "speak_end"})
            time.sleep(1.5)
            frames = [(at, d) for at, d in own.differences(player, first) if at > start]
            open_ = max((d for at, d in frames if at < start + 1), default=0)
            for level, out in ((moves, began), (rest + (open_ - rest) / 2, half)):
                moved = next((at for at, d in frames if d > max(level, moves)), None)
                out.append(moved and (moved - start) * 1e3)
        # The same frame at a player that decodes, and at one that only reads.
        read = {round(pts * 1e3): at for pts, at, _ in reader.frames}
        decoding = [(at - read[round(pts * 1e3)]) * 1e3 for pts, at, _ in player.frames if round(pts * 1e3) in read]
        decoding = statistics.median(decoding) if decoding else math.nan
        self.out["decoding_ms"], self.out["graph_ms"] = decoding, graph
        self.note("audio in -> lips begin", began, LIPS_MS, f"in the graph {graph:.0f} ms; ffmpeg's decoding takes {decoding:.0f} ms of it")
        self.note("audio in -> lips half open", half, LIPS_MS, "the same")
        self.interruptions(server, own, player, peer, rest, decoding)
        peer.close()
        player.stop()
        reader.stop()

    def interruptions(self, server, own, player, peer, rest, decoding):
        speech = clips.pcm(clips.wav(seconds=5, rate=RATE))
        seen, told, left = [], [], []
        for trial in range(self.trials):
            idle(server, "avatar")
            peer.send({"type": "speak_start", "rate": RATE})
            peer.send(speech)
            peer.send({"type": "speak_end"})
            time.sleep(1)
            first = len(player.frames)
            time.sleep(1 + 0.037 * trial)
            start = time.monotonic()
            answer = server.api("POST", "/sessions/avatar/interrupt")
            left.append(server.status("avatar")["speech_queued_ms"])
            told.append(answer["ms"])
            time.sleep(1.2)
            frames = own.differences(player, first)
            # A fifth of how far it is from its own video while it speaks; a closed mouth of ours is a bit off, too.
            spoken = statistics.fmean([d for at, d in frames if at < start] or [rest])
            limit = rest + 0.2 * (spoken - rest)
            # The first frame after which all are at rest.
            at_rest = len(frames)
            while at_rest and frames[at_rest - 1][1] <= limit:
                at_rest -= 1
            if at_rest < len(frames) and spoken > rest + 3:
                seen.append(max(0.0, (frames[at_rest][0] - start) * 1e3 - decoding))
        self.note("interrupt -> mouth at rest, seen", seen, None, f"without the {decoding:.0f} ms of decoding; a frame more than the server's")
        self.note("interrupt -> answer of the server", told, INTERRUPT_MS, f"speech left in the queue {max(left):.0f} ms")
        if max(left) > 0:
            self.broken.append(f"interrupt: {max(left):.0f} ms of speech were left in the queue")

    def first_frames(self, server):
        warm, alone, cold = [], [], []
        other = Reader(f"{server.rtmp}/avatar/synced")
        other.first_frame()
        for _ in range(self.trials):
            reader = Reader(f"{server.rtmp}/avatar/synced")
            warm.append(reader.first_frame())
            reader.stop()
            time.sleep(0.3)
        other.stop()
        time.sleep(2)
        for _ in range(self.trials):
            reader = Reader(f"{server.rtmp}/avatar/synced")
            alone.append(reader.first_frame())
            reader.stop()
            time.sleep(1)
        why = ""
        for _ in range(min(3, self.trials)):
            server.wait("sleeper", lambda s: s["phase"] == "idle")
            reader = Reader(f"{server.rtmp}/sleeper/synced", 20)
            cold.append(reader.first_frame(20))
            why = reader.failure or server.status("sleeper")["reason"] or ""
            reader.stop()
        seen = view(server, ["avatar"], 1, 4)
        if seen is None:
            self.rows.append(["first frame by WHEP", "not measured: no Chromium"])
        else:
            first = seen[0].get("first_ms") if seen else None
            self.note("first frame by WHEP", [first], None, "in Chromium: its start of a connection, DTLS and decoder are in it")
        ms = lambda values: [v and v * 1e3 for v in values]
        self.note("first frame, others watch", ms(warm), FIRST_FRAME_MS, "RTMP, from connecting to the first key frame")
        self.note("first frame, nobody watches", ms(alone), FIRST_FRAME_MS, "the graph runs, its encoder stands still")
        self.note("first frame, session idle", ms(cold), None, f"the graph is built {why}")

    def relay(self, server, clip):
        plain = self.nginx()
        urls = [f"{server.rtmp}/relay"] + ([plain + "/camera"] if plain else [])
        publisher = Publisher(urls, clip, self.folder / "publisher.log")
        publisher.start()
        server.wait("relay", lambda s: s["publishing"])
        through = Player(f"{server.rtmp}/relay/synced")
        beside = Player(plain + "/camera", options=QUICK) if plain else None
        through.first_frame.wait(20)
        time.sleep(max(10, self.trials))
        status = server.status("relay")
        offsets = [offset for _, _, offset in through.offsets()]
        if beside:
            flashes = [at for _, at in beside.flashes()]
            added = []
            for _, at in through.flashes():
                before = [f for f in flashes if 0 <= at - f < 0.9]
                if before:
                    added.append((at - before[-1]) * 1e3)
            self.note("relay, more than a plain RTMP server", added, None,
                      f"of it held back for the source's jitter {status['source_delay_ms']:.0f} ms, in the graph {status['latency_ms']:.0f} ms")
            beside.stop()
        else:
            self.rows.append(["relay", "not measured: nginx with its RTMP module is not installed"])
        if offsets:
            self.out["relay A/V offset"] = offsets
            self.rows.append(["relay, A/V offset", f"median {statistics.median(offsets):+.1f} ms", f"worst {max(offsets, key=abs):+.1f}",
                              f"of {len(offsets)}"])
        came, pauses = [], []
        for _ in range(max(2, self.trials // 3)):
            publisher.kill()
            time.sleep(1.3)
            began = time.monotonic()
            publisher.start()
            time.sleep(6)
            # The clip starts with a flash, and nothing else flashed while the last picture was held.
            flash = next((at for _, at in through.flashes() if at > began), None)
            came.append(flash and (flash - began) * 1e3)
            times = [at for _, at, _ in through.frames if began - 2 < at < began + 6]
            pauses.append(max((b - a for a, b in zip(times, times[1:])), default=6) * 1e3)
        self.note("publisher restart -> its picture", came, RESTART_MS, "with ffmpeg's own start")
        self.note("longest pause of the player meanwhile", pauses, RESTART_MS)
        if not through.running():
            self.broken.append("the player ended when the publisher restarted")
        through.stop()
        publisher.kill()
        self.stop_nginx()

    def nginx(self):
        """A plain RTMP server to compare with; its URL, or None."""
        config = ROOT / "contrib/nginx/rtmp.conf"
        self.plain = None
        if not shutil.which("nginx") or not Path("/usr/lib/nginx/modules/ngx_rtmp_module.so").exists():
            return None
        folder = self.folder / "nginx"
        folder.mkdir()
        self.plain = subprocess.Popen(["nginx", "-p", folder, "-c", config, "-g", "daemon off;"],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        atexit.register(self.stop_nginx)
        time.sleep(0.5)
        if self.plain.poll() is not None:
            return None
        return "rtmp://127.0.0.1:1936/live"

    def stop_nginx(self):
        if self.plain and self.plain.poll() is None:
            self.plain.send_signal(signal.SIGTERM)
            self.plain.wait(5)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--only", default="lips,first,relay", help="parts, with commas: lips, first, relay")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lipstream-latency-") as temporary:
        folder = Path(temporary)
        clip = clips.marked(folder / "main.mov", seconds=16, video=clips.DEMO_VIDEO) if "relay" in args.only else None
        sessions = [{"id": "avatar", "graph": "avatar", "avatar": "demo", "always_on": True},
                    {"id": "sleeper", "graph": "avatar", "avatar": "demo", "idle_seconds": 1},
                    {"id": "relay", "graph": "relay"}]
        with Server(folder, {"sessions": {"load": 1.0}, "server": {"cors_origins": ["*"]}}, sessions) as server:
            bench = Bench(folder, args.trials)
            if "lips" in args.only:
                bench.lips(server)
            if "first" in args.only:
                bench.first_frames(server)
            if "relay" in args.only:
                bench.relay(server, clip)
            panics = server.panics()
    bench.broken += [f"panic: {line}" for line in panics[:3]]
    print(table(bench.rows))
    print("\n" + ("\n".join(f"BROKEN {text}" for text in bench.broken) if bench.broken else "all bounds hold"))
    if args.json:
        args.json.write_text(json.dumps({**bench.out, "broken": bench.broken}, indent=1) + "\n")
    sys.exit(1 if bench.broken else 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
