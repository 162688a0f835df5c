"""What the server takes and counts, once a second."""

import threading
import time

from .server import Refused


class Sampler:
    def __init__(self, server, period=1.0):
        self.server, self.period = server, period
        # (at, {cpu, rss, threads, fds}) and the last /metrics.
        self.samples, self.metrics, self.unanswered = [], {}, 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.ended.wait(self.period):
            try:
                self.samples.append((time.monotonic(), self.server.usage()))
            except (OSError, KeyError, ValueError, IndexError):
                return
            try:
                self.metrics = self.server.metrics()
            except (OSError, Refused, ValueError):
                self.unanswered += 1

    def stop(self):
        self.ended.set()
        self.thread.join(10)

    def between(self, start, end):
        return [(at, usage) for at, usage in self.samples if start <= at <= end]

    def cpu(self, start, end):
        """Cores taken between two moments."""
        part = self.between(start, end)
        if len(part) < 2:
            return float("nan")
        return (part[-1][1]["cpu"] - part[0][1]["cpu"]) / (part[-1][0] - part[0][0])
