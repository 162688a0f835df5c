"""A publisher: ffmpeg sends a clip in real time by RTMP, again and again."""

import os
import signal
import subprocess
import time


class Publisher:
    def __init__(self, url, clip, log):
        self.url, self.clip, self.log = url, clip, log
        # `url` is a list for ffmpeg's tee: the same packets to several servers.
        self.tee = False
        self.process = None
        self.starts = []

    def start(self, clip=None, rate=1.0, sound=True, loop=True):
        """`rate` is the speed of the publisher's clock. An FLV is sent as it is."""
        clip = clip or self.clip
        command = ["nice", "-n", "5", "ffmpeg", "-nostdin", "-v", "error", "-readrate", f"{rate:.6f}"]
        command += ["-stream_loop", "-1"] if loop else []
        command += ["-i", str(clip), "-c:v", "copy"]
        if str(clip).endswith(".flv"):
            command += ["-c:a", "copy"]
        else:
            command += ["-c:a", "aac", "-b:a", "128k"] if sound else ["-an"]
        if self.tee:
            command += ["-map", "0", "-flags", "+global_header", "-f", "tee", self.url]
        else:
            command += ["-flvflags", "no_duration_filesize", "-f", "flv", self.url]
        self.starts.append(time.monotonic())
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        # `nice` has become ffmpeg: it is the same process.
        if self.running():
            os.kill(self.process.pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        if self.process:
            self.process.wait()

    def restart(self, **options):
        self.kill()
        self.start(**options)

    def stall(self, seconds):
        self.signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.signal(signal.SIGCONT)
