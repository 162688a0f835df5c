"""A soak: an avatar and a relay, a publisher, players, faults on a schedule, and what they left behind."""

import json
import statistics
import threading
import time
from pathlib import Path

from . import clips, faults
from .player import Player
from .publisher import Publisher
from .sampler import Sampler
from .server import Refused, Server
from .stats import line, percentile, table
from .websocket import Socket

DRIFT_MS_PER_HOUR = 10.0
MEMORY_MB_PER_MINUTE = 1.0
# A run must be this long before the slope of the memory says something.
MEMORY_MINUTES = 10
# Threads and files that may come and go by themselves: an HTTP request or the sampler in flight.
SLACK_THREADS = 2
SLACK_FDS = 4
# Markers so long after a fault of the source are left out: the server finds the source's clock again.
SETTLE = 5.0
COUNTERS = ["frames", "frames_held", "frames_late", "frames_dropped", "samples_missing", "restarts"]


class Stand:
    """A soak that runs: the server, its publisher, its players and what was noted."""

    def __init__(self, folder, minutes, names, size):
        self.folder, self.seconds, self.names = Path(folder), minutes * 60, names
        self.notes, self.log, self.broken = {}, [], []
        self.size = size
        self.stopping = threading.Event()
        self.said = {"http": 0, "websocket": 0, "failed": []}

    def prepare(self):
        """The clips, unless the folder has them from before."""
        print("preparing clips", flush=True)

        def clip(name, make, *arguments, **options):
            path = self.folder / name
            if not path.exists():
                part = path.with_stem(path.stem + "-part")
                make(part, *arguments, **options)
                part.rename(path)
            return path

        width, height = self.size
        half = (width // 4 * 2, height // 4 * 2)
        main = clip("main.mov", clips.marked, self.size)
        small = clip("small.mov", clips.marked, half, 16)
        self.clips = {
            "main": main,
            "silent": clip("silent.mov", clips.marked, self.size, 16, sound=False),
            "noface": clip("noface.mov", clips.marked, self.size, 16, face=False),
            "change": clip("change.flv", clips.change, [main, small]),
        }
        self.speech = clips.wav(seconds=6)
        self.samples = clips.pcm(clips.wav(seconds=6, rate=24000))

    def talk(self):
        """Lets the avatar speak: a file by HTTP, then the same by the WebSocket as a TTS would send it, a bit ahead."""
        while not self.stopping.is_set():
            try:
                self.server.speak("avatar", self.speech)
                self.said["http"] += 1
            except (Refused, OSError) as error:
                self.said["failed"].append(str(error))
            self.stopping.wait(8)
            if self.stopping.is_set():
                return
            try:
                peer = Socket(self.server.host, self.server.port, "/api/v1/sessions/avatar/audio")
                peer.send({"type": "speak_start", "rate": 24000})
                step = 24000 * 2 // 5
                for at in range(0, len(self.samples), step):
                    peer.send(self.samples[at:at + step])
                    if self.stopping.wait(0.15):
                        break
                peer.send({"type": "speak_end"})
                if self.said["websocket"] % 5 == 4:
                    self.stopping.wait(1)
                    peer.send({"type": "interrupt"})
                    flushed = peer.until("flushed", 5)
                    self.notes.setdefault("flushes_ms", []).append(flushed and flushed["ms"])
                peer.close()
                self.said["websocket"] += 1
            except (OSError, KeyError) as error:
                self.said["failed"].append(str(error))
            self.stopping.wait(3)

    def watch(self):
        """Starts players again that have ended: a stream that ends is counted."""
        while not self.stopping.wait(0.5):
            for name, players in self.players.items():
                if not players[-1].running():
                    self.log.append((time.monotonic(), time.monotonic(), f"player of {name} ended", False))
                    players.append(Player(f"{self.server.rtmp}/{name}/synced"))
                    time.sleep(1)

    def run(self):
        began = time.monotonic()
        sessions = [{"id": "avatar", "graph": "avatar", "avatar": "demo", "always_on": True},
                    {"id": "relay", "graph": "relay"}]
        # Nothing is refused for the load that the players make; the browser's page has an origin of its own.
        settings = {"sessions": {"load": 1.0, "idle_seconds": 5}, "server": {"cors_origins": ["*"]}}
        with Server(self.folder, settings, sessions) as server:
            self.server = server
            self.publisher = Publisher(f"{server.rtmp}/relay", self.clips["main"], self.folder / "publisher.log")
            self.publisher.start()
            server.wait("relay", lambda s: s["publishing"])
            self.players = {name: [Player(f"{server.rtmp}/{name}/synced")] for name in ("relay", "avatar")}
            sampler = Sampler(server)
            self.began = time.monotonic()
            helpers = [faults.background(self.talk), faults.background(self.watch)]
            try:
                self.schedule()
            finally:
                self.ended = time.monotonic()
                self.counters = {name: server.status(name) for name in self.players} if server.alive() else {}
                self.metrics = sampler.metrics
                self.stopping.set()
                sampler.stop()
                self.samples_of = sampler
                self.publisher.kill()
                for players in self.players.values():
                    for player in players:
                        player.stop()
                for helper in helpers:
                    helper.join(15)
            if not server.alive():
                self.broken.append(f"the server ended with {server.process.returncode}")
            self.exit = server.stop()
            if self.exit != 0:
                self.broken.append(f"the server ended with {self.exit}, not 0, when it was asked to end")
            self.panics = server.panics()
        print(f"took {time.monotonic() - began:.0f} s")

    def schedule(self):
        """Two rounds of faults, one after the other, evenly over the time between the warm-up and the last quiet part."""
        plan = [(fault, source) for fault, source in faults.PLAN if not self.names or fault.__name__ in self.names]
        first, plan = len(plan), 2 * plan
        warm = max(15.0, min(120.0, self.seconds * 0.15))
        quiet = max(10.0, min(60.0, self.seconds * 0.08))
        self.warm = self.again = self.began + warm
        step = (self.seconds - warm - quiet) / max(1, len(plan))
        self.sleep_until(self.warm)
        self.before = self.server.usage()
        for number, (fault, source) in enumerate(plan):
            self.sleep_until(self.warm + number * step)
            start = time.monotonic()
            if number == first:
                self.again = start
            print(f"{start - self.began:6.1f} s  {fault.__doc__}", flush=True)
            try:
                fault(self)
            except (Refused, OSError) as error:
                self.broken.append(f"{fault.__name__}: {error}")
            self.log.append((start, time.monotonic(), fault.__doc__, source))
            if not self.server.alive():
                return
        self.sleep_until(self.began + self.seconds)
        self.after = self.server.usage()

    def sleep_until(self, when):
        while (left := when - time.monotonic()) > 0 and self.server.alive():
            time.sleep(min(left, 1))

    def steady(self, at):
        return not any(source and start - 1 < at < end + SETTLE for start, end, _, source in self.log)

    def report(self):
        out = {"minutes": round((self.ended - self.began) / 60, 2), "sessions": {}, "faults": [], "notes": self.notes}
        rows = []
        for name, players in self.players.items():
            out["sessions"][name] = self.session(name, players, rows)
        sampler = self.samples_of
        memory = line([((at - self.began) / 60, usage["rss"] / 1e6) for at, usage in sampler.between(self.again, self.ended)])
        minutes = (self.ended - self.began) / 60
        if memory:
            out["memory_mb_per_minute"] = memory["slope"]
            out["memory_half"] = memory["half"]
            out["memory_mb"] = [(round(at - self.began), round(usage["rss"] / 1e6)) for at, usage in sampler.samples[::10]]
            rows.append(["memory", f"{memory['slope']:+.2f} MB/min ± {memory['half']:.2f}", f"mean {memory['mean']:.0f} MB",
                         f"over {memory['last'] - memory['first']:.1f} min",
                         "" if minutes >= MEMORY_MINUTES else f"judged from {MEMORY_MINUTES} min on"])
            if minutes >= MEMORY_MINUTES and memory["slope"] > MEMORY_MB_PER_MINUTE:
                self.broken.append(f"memory grows by {memory['slope']:.2f} MB a minute")
        if hasattr(self, "after"):
            for what, slack in (("threads", SLACK_THREADS), ("fds", SLACK_FDS)):
                before, after = self.before[what], self.after[what]
                out[what] = {"before": before, "after": after, "most": max(u[what] for _, u in sampler.samples)}
                rows.append([what, f"{before} before, {after} after", f"most {out[what]['most']}"])
                if after > before + slack:
                    self.broken.append(f"{what}: {before} before the faults, {after} after them")
        out["cores"] = sampler.cpu(self.warm, self.ended)
        rows.append(["server", f"{out['cores']:.2f} cores", f"/metrics not answered {sampler.unanswered} times",
                     f"{len(self.panics)} panics"])
        out["panics"] = self.panics[:20]
        if self.panics:
            self.broken.append(f"{len(self.panics)} panics, the first: {self.panics[0]}")
        out["said"] = self.said
        rows.append(["speech", f"{self.said['http']} by HTTP, {self.said['websocket']} by WebSocket",
                     f"{len(self.said['failed'])} failed", *self.said["failed"][:1]])
        for start, end, what, _ in self.log:
            out["faults"].append({"at": round(start - self.began, 1), "seconds": round(end - start, 1), "what": what})
        for left in self.notes.get("sessions", []):
            rows.append(["200 sessions", *(f"{value} {key}" for key, value in left.items())])
            if left["left"] or left["threads"] > SLACK_THREADS or left["fds"] > SLACK_FDS:
                self.broken.append(f"200 sessions left something behind: {left}")
        for key in ("viewers", "flushes_ms"):
            if key in self.notes:
                rows.append([key, json.dumps(self.notes[key])])
        return self.finish(out, rows)

    def finish(self, out, rows):
        """Prints what a run gave."""
        out["broken"] = self.broken
        print("\n" + table(rows))
        print("\n" + ("\n".join(f"BROKEN {text}" for text in self.broken) if self.broken else "all bounds hold"))
        return out

    def session(self, name, players, rows):
        out = {"players": len(players)}
        frames = sum(len(p.frames) for p in players)
        gaps = [gap for p in players for gap in p.video_gaps()]
        holes = [gap for p in players for gap in p.audio_gaps()]
        arrivals = [b[1] - a[1] for p in players for a, b in zip(p.frames, p.frames[1:])]
        out["gap_times"] = [(round(at - self.began, 1), round(b - a, 3)) for p in players
                            for (a, _, _), (b, at, _) in zip(p.frames, p.frames[1:]) if not 0 < b - a < 0.064]
        complete = min((p.completeness() for p in players if len(p.blocks) > 100), default=0.0)
        out.update(frames=frames, video_gaps=len(gaps), longest_video_gap=max((g for _, g in gaps), default=0),
                   audio_gaps=len(holes), longest_audio_gap=max((abs(g) for _, g in holes), default=0), audio_complete=complete,
                   arrival_p99_ms=percentile(arrivals, 0.99) * 1e3, longest_arrival_ms=max(arrivals, default=0) * 1e3,
                   decode_errors=[text for p in players for _, text in p.errors][:20])
        rows.append([name, f"{frames} frames", f"{len(gaps)} PTS gaps (longest {out['longest_video_gap'] * 1e3:.0f} ms)",
                     f"{len(holes)} audio gaps (longest {out['longest_audio_gap'] * 1e3:.0f} ms)",
                     f"audio {complete * 100:.2f} %", f"{len(players)} player(s)"])
        rows.append(["", "arrival", f"p99 {out['arrival_p99_ms']:.0f} ms", f"longest {out['longest_arrival_ms']:.0f} ms",
                     f"{sum(len(p.errors) for p in players)} decoder messages"])
        # A player's two streams against the clock of this machine: what a wrong clock would show first.
        longest = max(players, key=lambda p: len(p.frames))
        for what, items in (("picture", longest.frames), ("sound", longest.blocks)):
            rate = line([(item[1], item[0] - item[1]) for item in items if item[1] > self.warm])
            if rate:
                out[f"{what}_clock_ppm"] = rate["slope"] * 1e6
        if "picture_clock_ppm" in out and "sound_clock_ppm" in out:
            rows.append(["", "time stamps against this machine's clock", f"picture {out['picture_clock_ppm']:+.0f} ppm",
                         f"sound {out['sound_clock_ppm']:+.0f} ppm"])
        counters = self.counters.get(name, {})
        out["counters"] = {key: counters.get(key) for key in COUNTERS}
        rows.append(["", "server", *(f"{key} {value}" for key, value in out["counters"].items())])
        if name == "relay":
            self.drift(players, out, rows)
        if not frames:
            self.broken.append(f"{name}: no frame was played")
        return out

    def drift(self, players, out, rows):
        markers = [(at, offset) for p in players for _, at, offset in p.offsets() if at > self.warm]
        steady = [(at, offset) for at, offset in markers if self.steady(at)]
        fit = line([((at - self.began) / 3600, offset) for at, offset in steady])
        out["markers"] = {"all": len(markers), "steady": len(steady)}
        if fit is None:
            self.broken.append(f"relay: only {len(steady)} markers outside of faults")
            return
        worst = max(steady, key=lambda m: abs(m[1] - fit["mean"]))
        median = statistics.median(offset for _, offset in steady)
        out["offset_ms"] = {"mean": fit["mean"], "median": median, "spread": fit["spread"], "worst": worst[1],
                            "worst_at": worst[0] - self.began}
        out["drift_ms_per_hour"], out["drift_half"] = fit["slope"], fit["half"]
        out["offsets"] = [(round(at - self.began, 2), round(offset, 2), self.steady(at)) for at, offset in markers]
        rows.append(["", "A/V offset", f"mean {fit['mean']:+.1f} ms, median {median:+.1f}", f"spread {fit['spread']:.1f} ms",
                     f"farthest {worst[1]:+.1f} ms at {worst[0] - self.began:.0f} s", f"{fit['count']} markers"])
        rows.append(["", "A/V drift", f"{fit['slope']:+.1f} ms/h ± {fit['half']:.1f} (95 %)"])
        # A short run cannot tell 10 ms an hour from none: it fails where even the near end of the interval is too far.
        long = self.seconds >= 15 * 60
        if abs(fit["slope"]) - (0 if long else fit["half"]) > DRIFT_MS_PER_HOUR:
            self.broken.append(f"A/V drift of {fit['slope']:+.1f} ± {fit['half']:.1f} ms an hour")
        if abs(median) > 20:
            self.broken.append(f"A/V offset of {median:+.1f} ms, more than 20")

