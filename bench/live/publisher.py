"""A publisher: ffmpeg sends a clip in real time by RTMP, again and again."""

import os
import signal
import subprocess
import time


class Publisher:
    def __init__(self, urls, clip, log):
        # Several get the same pictures at the same moment.
        self.urls = [urls] if isinstance(urls, str) else urls
        self.clip, self.log = clip, log
        self.process = None
        self.starts = []

    def start(self, clip=None, rate=1.0, sound=True, loop=True):
        """`rate` is the speed of the publisher's clock. An FLV is sent as it is."""
        clip = clip or self.clip
        command = ["nice", "-n", "5", "ffmpeg", "-nostdin", "-v", "error", "-readrate", f"{rate:.6f}"]
        command += ["-stream_loop", "-1"] if loop else []
        command += ["-i", str(clip)]
        if str(clip).endswith(".flv"):
            coding = ["-c:a", "copy"]
        else:
            coding = ["-c:a", "aac", "-b:a", "128k"] if sound else ["-an"]
        for url in self.urls:
            command += ["-c:v", "copy", *coding, "-flvflags", "no_duration_filesize", "-f", "flv", url]
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
