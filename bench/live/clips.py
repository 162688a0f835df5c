"""Clips with a marker each second: a white box in the top left corner, and a beep that starts with it.

The beep is above 8 kHz, which a front-end at 16 kHz does not hear, so that the lips follow the speech alone. A clip's
length is a multiple of 16 s, in which 25 frames a second and AAC's 1024 samples at 48 kHz come out even, so that it loops
without a seam. It holds H.264 without B-frames, which publishers copy, and PCM, which they encode.
"""

import os
import subprocess
from pathlib import Path

from .server import ROOT

FPS = 25
RATE = 48000
# Part of the width and of the height that the box takes.
BOX = 1 / 8
# Seconds: the box is shown for three frames, the beep rises and falls in a sine's half period.
FLASH = 0.119
BEEP = 0.060
BEEP_HZ = 9000
BEEP_LEVEL = 0.35
# Keeps speech out of the band of the beep.
SPEECH = ",".join(["lowpass=f=6000"] * 4)

DEMO_VIDEO = ROOT / "demo/avatar.mp4"
DEMO_SPEECH = ROOT / "demo/speech.flac"
# A real person who talks, in footage that is not part of the project.
PERSON = "data/talking/val/free_infinitetalk_phone.mp4"


def person():
    """The footage of a talking person, or None."""
    base = os.environ.get("LIPSTREAM_SHARED")
    path = Path(base) / PERSON if base else None
    return path if path and path.exists() else None


def ffmpeg(*arguments):
    """Runs ffmpeg at a low priority; an error ends the bench with what it said."""
    done = subprocess.run(["nice", "-n", "10", "ffmpeg", "-nostdin", "-v", "error", "-y", *map(str, arguments)],
                          capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"ffmpeg {' '.join(map(str, arguments))}: {done.stderr.strip()[-2000:]}")


def box():
    area = f"drawbox=x=0:y=0:w=iw*{BOX}:h=ih*{BOX}:t=fill"
    return f"{area}:color=black,{area}:color=white:enable='lt(mod(t,1),{FLASH})'"


def beep():
    wave = f"{BEEP_LEVEL}*sin(2*PI*{BEEP_HZ}*t)*sin(PI*mod(t,1)/{BEEP})^2"
    return f"aevalsrc=exprs='if(lt(mod(t,1),{BEEP}),{wave},0)':s={RATE}"


def marked(out, size=(1280, 720), seconds=32, video=None, speech=None, face=True, sound=True, fps=FPS, rate=RATE, frames="null",
           bframes=0):
    """Writes a marked clip. `video` with its own sound when `speech` is None; without `face` a pattern is shown.

    `frames` is a filter behind the one that makes the frame rate."""
    assert seconds % 16 == 0, "a loop without a seam takes a multiple of 16 s"
    video = video or person() or DEMO_VIDEO
    if speech is None and video == DEMO_VIDEO:
        speech = DEMO_SPEECH
    width, height = size
    fit = (f"scale={width}:{height}:force_original_aspect_ratio=decrease,"
           f"pad={width}:{height}:(ow-iw)/2:(oh-ih)/2,setsar=1,fps={fps},{frames}")
    if face:
        inputs = ["-stream_loop", "-1", "-i", video]
        picture = f"[0:v]{fit},{box()}[v]"
    else:
        inputs = ["-f", "lavfi", "-i", f"testsrc2=s={width}x{height}:r={FPS}"]
        picture = f"[0:v]{box()}[v]"
    if not sound:
        voice = f"anullsrc=r={RATE}:cl=mono[a]"
    elif face and speech is None:
        voice = f"[0:a]aresample={RATE},pan=mono|c0=c0,{SPEECH}[s];{beep()}[b];[s][b]amix=normalize=0[a]"
    else:
        inputs += ["-stream_loop", "-1", "-i", speech or DEMO_SPEECH]
        voice = f"[1:a]aresample={RATE},pan=mono|c0=c0,{SPEECH}[s];{beep()}[b];[s][b]amix=normalize=0[a]"
    ffmpeg(*inputs, "-filter_complex", f"{picture};{voice}", "-map", "[v]", "-map", "[a]", "-t", seconds,
           "-c:v", "libx264", "-preset", "veryfast", *(() if bframes else ("-tune", "zerolatency")),
           "-x264-params", "sliced-threads=0", "-bf", bframes, "-g", 2 * FPS, "-fps_mode", "passthrough", "-b:v", "2500k", "-pix_fmt", "yuv420p", "-threads", 1,
           "-c:a", "pcm_s16le", "-ac", 2, "-ar", rate, out)
    return Path(out)


def tags(flv):
    """The tags of an FLV file: type, milliseconds, payload (FLV 10.1, annex E)."""
    data = Path(flv).read_bytes()
    at = int.from_bytes(data[5:9], "big") + 4
    while at + 11 <= len(data):
        size = int.from_bytes(data[at + 1:at + 4], "big")
        time = int.from_bytes(data[at + 4:at + 7], "big") | data[at + 7] << 24
        yield data[at], time, data[at + 11:at + 11 + size]
        at += 11 + size + 4


def change(out, clips, seconds=4):
    """An FLV whose picture changes its size: `seconds` of each clip, one after the other, each with its own headers."""
    parts, began = [], 0
    for number, clip in enumerate(clips):
        piece = Path(out).with_suffix(f".{number}.flv")
        ffmpeg("-i", clip, "-t", seconds, "-c:v", "copy", "-c:a", "aac", "-b:a", "128k", piece)
        for kind, time, payload in tags(piece):
            # The description of the stream stands for the first part alone.
            if kind == 18 and number:
                continue
            time += began
            head = bytes([kind]) + len(payload).to_bytes(3, "big")
            head += (time & 0xFFFFFF).to_bytes(3, "big") + bytes([time >> 24, 0, 0, 0])
            parts.append(head + payload + (11 + len(payload)).to_bytes(4, "big"))
        began += int(seconds * 1000)
        piece.unlink()
    Path(out).write_bytes(b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00" + b"".join(parts))
    return Path(out)


def wav(speech=DEMO_SPEECH, seconds=None, rate=48000, filters="anull"):
    """Speech as the bytes of a WAV file, mono 16 bit."""
    import tempfile
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        limit = ["-t", seconds] if seconds else []
        ffmpeg("-i", speech, *limit, "-af", filters, "-ac", 1, "-ar", rate, "-c:a", "pcm_s16le", file.name)
        return Path(file.name).read_bytes()


def pcm(wav_bytes):
    """The samples of a WAV file that `wav` wrote, as bytes."""
    at = wav_bytes.index(b"data") + 8
    return wav_bytes[at:]
