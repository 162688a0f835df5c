"""A player: ffmpeg decodes a stream to small grey frames and sound, with the time stamp of each."""

import array
import os
import queue
import re
import signal
import subprocess
import threading
import time

from .clips import BEEP, BEEP_HZ, BOX, RATE

SIZE = (96, 54)
# Samples in which the level of the beep's band is measured: a millisecond.
BIN = RATE // 1000
# As little waiting as ffmpeg can do: no buffer at the input, no guessing of the frame rate, no reordering.
QUICK = ["-fflags", "nobuffer", "-flags", "low_delay", "-analyzeduration", "200000", "-fpsprobesize", "0"]
# `pts_time` has six digits, too few after a quarter of an hour: times are counted in units of the time base.
LINE = re.compile(rb"Parsed_(a?)showinfo_\d+ @ \w+\] n: *\d+ pts: *(\S+)(?:.*?rate:(\d+) nb_samples:(\d+))?")
BASE = re.compile(rb"Parsed_showinfo_\d+ @ \w+\] config in time_base: (\d+)/(\d+)")


class Player:
    """Plays until `stop`. Times are seconds: `pts` of the stream, `at` of time.monotonic() when it was read."""

    def __init__(self, url, crop=None, size=SIZE, sound=True, keep=False, options=QUICK):
        self.size = size
        self.keep = keep
        # Frames: (pts, at, level of the corner). Pictures beside them, where they are kept.
        self.frames, self.pictures = [], []
        # Blocks of sound: (pts, at, samples, index of their first bin).
        self.blocks, self.bins = [], array.array("H")
        self.errors = []
        self.started = time.monotonic()
        self.first_frame = threading.Event()
        times = queue.Queue(), queue.Queue()
        video, audio = os.pipe(), os.pipe()
        crop = f"crop={crop}," if crop else ""
        command = ["nice", "-n", "5", "ffmpeg", "-nostdin", "-hide_banner", "-nostats", "-threads", "1", *options, "-copyts",
                   "-i", url, "-map", "0:v:0", "-vf",
                   f"{crop}scale={size[0]}:{size[1]}:flags=area,format=gray,showinfo=checksum=0",
                   "-fps_mode", "passthrough", "-enc_time_base", "1:90000", "-flush_packets", "1",
                   "-f", "rawvideo", f"pipe:{video[1]}"]
        if sound:
            command += ["-map", "0:a:0", "-af",
                        f"pan=mono|c0=c0,bandpass=f={BEEP_HZ}:width_type=h:width=1500,"
                        f"aformat=sample_fmts=s16:sample_rates={RATE},ashowinfo",
                        "-flush_packets", "1", "-f", "s16le", f"pipe:{audio[1]}"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, pass_fds=(video[1], audio[1]))
        os.close(video[1])
        os.close(audio[1])
        work = [(self.read_log, times), (self.read_video, (os.fdopen(video[0], "rb"), times[0])),
                (self.read_audio, (os.fdopen(audio[0], "rb"), times[1]))]
        self.threads = [threading.Thread(target=f, args=a, daemon=True) for f, a in work]
        for thread in self.threads:
            thread.start()

    def read_log(self, video, audio):
        unit = None
        for line in self.process.stderr:
            if base := BASE.search(line):
                unit = int(base[1]) / int(base[2])
                continue
            found = LINE.search(line)
            if found is None:
                if b"rror" in line or b"nvalid" in line or b"orrupt" in line:
                    self.errors.append((time.monotonic(), line.decode(errors="replace").strip()))
                continue
            is_audio, pts, rate, samples = found.groups()
            pts = int(pts) if pts != b"NOPTS" else None
            if is_audio:
                # Decoded sound counts in samples.
                audio.put((pts / int(rate), int(samples)))
            else:
                video.put(pts * unit)
        video.put(False)
        audio.put(False)

    def read_video(self, pipe, times):
        width, height = self.size
        across, down = max(1, int(width * BOX)), max(1, int(height * BOX))
        # The middle of the box: its edges are blurred.
        left, right, top, bottom = across // 4, across - across // 4, down // 4, down - down // 4
        count = (right - left) * (bottom - top)
        while True:
            data = pipe.read(width * height)
            at = time.monotonic()
            if len(data) < width * height:
                return
            pts = times.get()
            if pts is False:
                return
            level = sum(sum(data[y * width + left:y * width + right]) for y in range(top, bottom)) / count
            self.frames.append((pts, at, level))
            if self.keep:
                self.pictures.append(data)
            self.first_frame.set()

    def read_audio(self, pipe, times):
        while True:
            told = times.get()
            if told is False:
                return
            pts, count = told
            data = pipe.read(2 * count)
            at = time.monotonic()
            if len(data) < 2 * count:
                return
            samples = array.array("h", data)
            self.blocks.append((pts, at, count, len(self.bins)))
            for first in range(0, count, BIN):
                part = samples[first:first + BIN]
                self.bins.append(min(65535, max(max(part), -min(part))))

    def running(self):
        return self.process.poll() is None

    def stop(self):
        if self.running():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for thread in self.threads:
            thread.join(5)
        return self

    def flashes(self):
        """(pts, at) of the first frame of each white box."""
        found, white = [], True
        for pts, at, level in self.frames:
            if level > 150 and not white:
                found.append((pts, at))
            # Between the two, what the encoder blurred says nothing.
            white = level > 150 if level > 150 or level < 90 else white
        return found

    def beeps(self, threshold=1500):
        """pts of the start of each beep: half a beep before the middle of its energy, which codecs do not move."""
        found, run, quiet = [], [], 0
        previous_end = None
        for pts, _, count, index in self.blocks:
            bins = (count + BIN - 1) // BIN
            if previous_end is not None and abs(pts - previous_end) > 0.05:
                run = []
            previous_end = pts + count / RATE
            for n in range(bins):
                level = self.bins[index + n]
                if level > threshold:
                    run.append((pts + (n + 0.5) * BIN / RATE, level))
                    quiet = 0
                elif run:
                    quiet += 1
                    if quiet > 30:
                        span = run[-1][0] - run[0][0]
                        if BEEP * 0.3 < span < BEEP * 2:
                            energy = sum(level * level for _, level in run)
                            middle = sum(t * level * level for t, level in run) / energy
                            found.append(middle - BEEP / 2)
                        run = []
        return found

    def offsets(self):
        """(pts, at, milliseconds) of every marker: how much later the picture is shown than the sound."""
        beeps, out, first = self.beeps(), [], 0
        for pts, at in self.flashes():
            while first < len(beeps) and beeps[first] < pts - 0.45:
                first += 1
            if first < len(beeps) and abs(beeps[first] - pts) < 0.45:
                out.append((pts, at, (pts - beeps[first]) * 1e3))
        return out

    def video_gaps(self, usual=1 / 25):
        """(pts, seconds) where two frames are more than one and a half frames apart, or go back."""
        pairs = zip(self.frames, self.frames[1:])
        return [(a[0], b[0] - a[0]) for a, b in pairs if not 0 < b[0] - a[0] < 1.6 * usual]

    def audio_gaps(self, slack=0.004):
        """(pts, seconds) where a block of sound does not start where the last one ended."""
        pairs = zip(self.blocks, self.blocks[1:])
        gaps = ((b[0], b[0] - a[0] - a[2] / RATE) for a, b in pairs)
        return [(pts, gap) for pts, gap in gaps if abs(gap) > slack]

    def completeness(self):
        """Samples that came for each that the time stamps span."""
        if len(self.blocks) < 2:
            return 0.0
        span = self.blocks[-1][0] - self.blocks[0][0] + self.blocks[-1][2] / RATE
        return sum(block[2] for block in self.blocks) / RATE / span if span > 0 else 0.0
