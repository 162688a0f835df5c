#!/usr/bin/env python3
"""Runs every test and ends with one line that adds up the counts of all of them.

Most programs of tests wait for nothing but the processor. They run one after the other with a low priority, from when the
first of them is built, and beside them what waits for other programs more than it computes. Pictures and sound that are held
against a clock need the machine alone: they come last.

Tests on footage that is not part of the project read LIPSTREAM_SHARED and say so when they skip.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parent.parent
# Programs that wait more than they compute, and bear to be disturbed.
WAITING = [
    "plugins interrupt", "plugins sessions", "plugins stress", "plugins synccheck",
    "lipstream agents", "lipstream cluster", "lipstream push", "lipstream rtmp", "lipstream serve", "lipstream voice",
]
# Those that hold live media against a clock.
LIVE = ["lipstream " + name for name in ("browser", "peers", "relay", "session", "synccheck", "webrtc")]
BUILD = ["cargo", "test", "--release", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]
# The training code is tested where its libraries are; building and running Lipstream needs none of them.
TRAINING = os.environ.get("PYTHON", "python3")
TRAINING_NEEDS = "import numpy, onnx, pytest, scipy, torch"
LOW = ["nice", "-n", "10"]


class Results:
    """Counts of all that has run, and the names of what failed."""

    def __init__(self):
        self.lock = threading.Lock()
        self.passed = self.failed = self.ignored = 0
        self.bad = []

    def run(self, name, command, folder=ROOT):
        """Runs a program of tests and prints what it says once it has ended, so that two of them are not mixed."""
        began = time.monotonic()
        with self.lock:
            print(f"     Begins {name}", flush=True)
        environment = {**os.environ, "CARGO_MANIFEST_DIR": str(folder)}
        # Not a pipe: a process that a test leaves behind would hold it open.
        with tempfile.TemporaryFile() as out:
            ended = subprocess.run(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False
            )
            out.seek(0)
            said = out.read().decode(errors="replace").strip()
        passed, failed, ignored = counts(said)
        with self.lock:
            self.passed, self.failed, self.ignored = self.passed + passed, self.failed + failed, self.ignored + ignored
            if ended.returncode:
                self.bad.append(f"{name} (exit code {ended.returncode})")
            print(f"     Running {name}\n{said}\n     {name}: {time.monotonic() - began:.1f} s\n", flush=True)


def counts(said):
    """Passed, failed and ignored tests, as libtest or pytest says them at the end."""
    found = re.findall(r"^test result: .* (\d+) passed; (\d+) failed; (\d+) ignored", said, re.M)
    if found:
        return [int(n) for n in found[-1]]
    # "1 failed, 20 passed, 2 skipped in 3.21s"
    last = dict((word, int(n)) for n, word in re.findall(r"(\d+) (passed|failed|error|skipped)", said.rpartition("\n")[2]))
    return last.get("passed", 0), last.get("failed", 0) + last.get("error", 0), last.get("skipped", 0)


def build(found):
    """Builds all tests and tells each program as soon as it is there: name, file, folder. False where it fails."""
    with subprocess.Popen(BUILD, cwd=ROOT, stdout=subprocess.PIPE, text=True) as cargo:
        for line in cargo.stdout:
            said = json.loads(line)
            if said.get("reason") == "compiler-artifact" and said["profile"]["test"] and said.get("executable"):
                folder = Path(said["manifest_path"]).parent
                found("lipstream" if folder == ROOT else folder.name, said["target"], said["executable"], folder)
    return cargo.returncode == 0


def main():
    results = Results()
    computing, apart = SimpleQueue(), {}

    def found(package, target, file, folder):
        name = f"{package} {target['name']}"
        if target["kind"] == ["test"] and name in WAITING + LIVE:
            apart[name] = (name, [file], folder)
        else:
            computing.put((name, [*LOW, file], folder))

    def compute():
        while job := computing.get():
            results.run(*job)

    if subprocess.run([TRAINING, "-c", TRAINING_NEEDS], capture_output=True, check=False).returncode == 0:
        computing.put(("training", [*LOW, TRAINING, "-m", "pytest", "-q", "engines/train/tests"]))
    else:
        print(f"training tests: skipped, {TRAINING} lacks numpy, onnx, pytest, scipy or torch (PYTHON names another)", flush=True)
    beside = threading.Thread(target=compute)
    beside.start()
    built = build(found)
    computing.put(None)
    for name in WAITING:
        if name in apart:
            results.run(*apart[name])
    beside.join()
    for name in LIVE:
        if name in apart:
            results.run(*apart[name])
    if not built:
        results.bad.append("the build")
    elif missing := set(WAITING + LIVE) - set(apart):
        results.bad.append(f"scripts/test.py, which names tests that are not there: {', '.join(sorted(missing))}")
    for name in results.bad:
        print(f"failed: {name}")
    word = "FAILED" if results.bad else "ok"
    print(f"test result: {word}. {results.passed} passed; {results.failed} failed; {results.ignored} ignored")
    return 1 if results.bad else 0


if __name__ == "__main__":
    sys.exit(main())
