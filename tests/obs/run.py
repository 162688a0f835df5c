#!/usr/bin/env python3
"""OBS beside the server, as docs/obs.md has it: publishes, stops and starts anew at other rates and sizes, and plays.

    tests/obs/run.py OUT      needs obs-studio (29 or newer), xvfb and imagemagick of Debian; run by hand

Writes to OUT for each case `NAME.png` (OBS's window), `NAME.mkv` (what a player got) and `report.json`: the state of the
session (source, phase, 99th percentile of the interval, A/V offset in the graph) and the player's steps in ms. OBS draws
by software under Xvfb, which takes a core.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CASES = [
    # Name, canvas and output, frames a second as OBS's menu says it.
    ("720p30", (1280, 720), "30"),
    ("720p30-again", (1280, 720), "30"),
    ("720p29.97", (1280, 720), "29.97"),
    ("360p60", (640, 360), "60"),
    ("vertical", (720, 1280), "30"),
]
KEY = "not-so-secret"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def media_source(name, **settings):
    return {"id": "ffmpeg_source", "name": name, "settings": settings, "enabled": True, "volume": 1.0, "mixers": 255}


def scene(sources, size):
    """A collection with one scene of full-canvas sources."""
    items = [
        {"name": source["name"], "id": n + 1, "visible": True, "pos": {"x": 0, "y": 0}, "scale": {"x": 1, "y": 1},
         "align": 5, "bounds_type": 2, "bounds_align": 0, "bounds": {"x": size[0], "y": size[1]}}
        for n, source in enumerate(sources)
    ]
    holder = {"id": "scene", "name": "Scene", "settings": {"items": items, "id_counter": len(items)}, "enabled": True}
    return {"name": "S", "current_scene": "Scene", "current_program_scene": "Scene", "scene_order": [{"name": "Scene"}],
            "sources": [*sources, holder], "transitions": [], "groups": [], "quick_transitions": []}


class Obs:
    """One OBS under a display of its own."""

    def __init__(self, folder, display, sources, size, fps, publish=None):
        home, config = folder / "home", folder / "home/.config/obs-studio"
        profile = config / "basic/profiles/P"
        profile.mkdir(parents=True)
        (config / "basic/scenes").mkdir(parents=True)
        (config / "global.ini").write_text(
            "[General]\nFirstRun=true\nEnableAutoUpdates=false\nInfoIncrement=999\nLicenseAccepted=true\n"
            "[Basic]\nProfile=P\nProfileDir=P\nSceneCollection=S\nSceneCollectionFile=S\n"
        )
        (profile / "basic.ini").write_text(
            f"[General]\nName=P\n[Video]\nBaseCX={size[0]}\nBaseCY={size[1]}\nOutputCX={size[0]}\nOutputCY={size[1]}\n"
            f"FPSType=0\nFPSCommon={fps}\n[Output]\nMode=Advanced\n[AdvOut]\nEncoder=obs_x264\nAudioEncoder=ffmpeg_aac\n"
            "[Audio]\nSampleRate=48000\nChannelSetup=Stereo\n"
        )
        encoder = {"rate_control": "CBR", "bitrate": 2500, "keyint_sec": 1, "preset": "ultrafast", "tune": "zerolatency"}
        (profile / "streamEncoder.json").write_text(json.dumps(encoder))
        if publish:
            server, key = publish
            service = {"type": "rtmp_custom", "settings": {"server": server, "key": key, "use_auth": False}}
            (profile / "service.json").write_text(json.dumps(service))
        (config / "basic/scenes/S.json").write_text(json.dumps(scene(sources, size)))
        self.display = f":{display}"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.screen = subprocess.Popen(["Xvfb", self.display, "-screen", "0", "1280x800x24"], **quiet)
        time.sleep(1)
        environment = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "DISPLAY": self.display,
                       "LIBGL_ALWAYS_SOFTWARE": "1", "QT_QPA_PLATFORM": "xcb"}
        start = ["--startstreaming"] if publish else []
        self.log = open(folder / "obs.log", "w")
        self.obs = subprocess.Popen(["obs", "--multi", "--profile", "P", "--collection", "S", *start],
                                    env=environment, stdout=self.log, stderr=self.log)

    def screenshot(self, path):
        subprocess.run(["import", "-display", self.display, "-window", "root", str(path)], check=False)

    def close(self):
        for process in (self.obs, self.screen):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.log.close()


def state(url):
    with urllib.request.urlopen(f"{url}/api/v1/sessions/stage") as answer:
        return json.load(answer)


def until(what, seconds, ready):
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise SystemExit(f"{what}: not within {seconds} s")
        time.sleep(0.2)


def steps(path):
    """Median, 99th percentile and longest step between pictures, in ms, and how many there are."""
    probe = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "packet=pts_time", "-of", "csv=p=0", path]
    lines = subprocess.run(probe, capture_output=True, text=True, check=True).stdout.split()
    times = sorted(float(line.strip(",")) for line in lines)
    gaps = sorted(1e3 * (b - a) for a, b in zip(times, times[1:]))
    return {"pictures": len(times), "median": gaps[len(gaps) // 2], "p99": gaps[len(gaps) * 99 // 100], "longest": gaps[-1]}


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="obs-"))
    http, rtmp = free_port(), free_port()
    (work / "stage.toml").write_text(
        f'[server]\nport = {http}\n[rtmp]\nport = {rtmp}\n[sessions]\ndemo = false\n'
        f'[[session]]\nid = "stage"\ngraph = "relay"\nstream_key = "{KEY}"\nplay = "stage-synced"\n'
    )
    log = open(out / "server.log", "w")
    server = subprocess.Popen([ROOT / "target/release/lipstream", "serve", "-v", work / "stage.toml"], cwd=ROOT, stdout=log, stderr=log)
    url, report = f"http://127.0.0.1:{http}", {}
    try:
        until("the server", 60, lambda: subprocess.run(["curl", "-sf", "-o", "/dev/null", f"{url}/healthz"]).returncode == 0
              or subprocess.run(["curl", "-sf", "-o", "/dev/null", f"{url}/api/v1/sessions"]).returncode == 0)
        camera = [media_source("camera", local_file=str(ROOT / "demo/avatar.mp4"), looping=True),
                  media_source("voice", local_file=str(ROOT / "demo/speech.flac"), looping=True)]
        for number, (name, size, fps) in enumerate(CASES):
            folder = work / name
            folder.mkdir()
            began = time.monotonic()
            obs = Obs(folder, 90 + number, camera, size, fps, (f"rtmp://127.0.0.1:{rtmp}/live", f"stage?key={KEY}"))
            try:
                until(f"{name}: OBS publishes", 60, lambda: state(url)["publishing"])
                published = time.monotonic() - began
                played = out / f"{name}.mkv"
                player = ["ffmpeg", "-v", "error", "-y", "-i", f"rtmp://127.0.0.1:{rtmp}/live/stage-synced", "-t", "20", "-c", "copy", played]
                subprocess.run(player, check=True, timeout=90)
                obs.screenshot(out / f"{name}.png")
                now = state(url)
                kept = ["phase", "source", "width", "height", "fps", "interval_p99_ms", "av_offset_ms", "latency_ms",
                        "source_delay_ms", "frames_late", "frames_held", "frames_dropped", "samples_missing", "frames_untouched"]
                report[name] = {"published_s": round(published, 1), "player": steps(played), **{key: now[key] for key in kept}}
            finally:
                obs.close()
            until(f"{name}: OBS has gone", 20, lambda: not state(url)["publishing"])
            print(name, json.dumps(report[name]), flush=True)
        # A wrong key, and a second OBS that plays what the first publishes.
        folder = work / "play"
        (folder / "p").mkdir(parents=True)
        (folder / "q").mkdir()
        first = Obs(folder / "p", 97, camera, (640, 360), "30", (f"rtmp://127.0.0.1:{rtmp}/live", f"stage?key={KEY}"))
        until("OBS publishes again", 60, lambda: state(url)["publishing"])
        screen = [media_source("stage", is_local_file=False, input=f"rtmp://127.0.0.1:{rtmp}/live/stage-synced",
                               reconnect_delay_sec=1, buffering_mb=0)]
        second = Obs(folder / "q", 98, screen, (640, 360), "30")
        try:
            until("OBS plays", 60, lambda: state(url)["viewers"] > 0)
            time.sleep(10)
            second.screenshot(out / "playing.png")
            report["playing"] = {key: state(url)[key] for key in ["viewers", "interval_p99_ms", "av_offset_ms", "fps"]}
        finally:
            second.close()
            first.close()
        (folder / "r").mkdir()
        wrong = Obs(folder / "r", 99, camera, (640, 360), "30", (f"rtmp://127.0.0.1:{rtmp}/live", "stage?key=wrong-key-of-mine"))
        time.sleep(10)
        wrong.screenshot(out / "wrong-key.png")
        wrong.close()
    finally:
        server.terminate()
        server.wait(20)
        (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
