"""A video whose frames carry their number, and what became of them in another file."""

import re
import subprocess

from .clips import DEMO_SPEECH, DEMO_VIDEO, FPS, ffmpeg

# The number is at the top of the picture: a white cell, fourteen binary digits, a black cell.
CELLS = 16
STRIP = 1 / 12
# The mouth of the demo avatar, as parts of the picture: width, height, left, top.
MOUTH = "iw*0.14:ih*0.16:iw*0.44:ih*0.47"


def numbered(out, seconds, size=(640, 360)):
    """The demo avatar forward and backward for so long, each frame with its number."""
    bits = range(CELLS - 2)
    cell = "drawbox=x=iw*{at}/{cells}:y=0:w=iw/{cells}:h=ih*{strip}:t=fill:color={color}{when}"
    boxes = [f"drawbox=x=0:y=0:w=iw:h=ih*{STRIP}:t=fill:color=black",
             cell.format(at=0, cells=CELLS, strip=STRIP, color="white", when="")]
    boxes += [cell.format(at=bit + 1, cells=CELLS, strip=STRIP, color="white",
                          when=f":enable='gte(mod(n,{2 ** (bit + 1)}),{2 ** bit})'") for bit in bits]
    width, height = size
    filters = (f"[0:v]scale={width}:{height},fps={FPS},split[a][b];[b]reverse[r];[a][r]concat,loop=-1:400:0,"
               f"setpts=N/{FPS}/TB,{','.join(boxes)}[v]")
    ffmpeg("-i", DEMO_VIDEO, "-filter_complex", filters, "-map", "[v]", "-frames:v", round(seconds * FPS), "-c:v", "libx264",
           "-preset", "veryfast", "-crf", 16, "-pix_fmt", "yuv420p", "-an", out)
    return out


def speech(out, seconds):
    """The demo's speech, again and again for so long."""
    ffmpeg("-stream_loop", "-1", "-i", DEMO_SPEECH, "-t", seconds, out)
    return out


def numbers(file):
    """The number of each frame of a file, None where it cannot be read."""
    line = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(file), "-vf",
            f"crop=iw:ih*{STRIP}*0.6:0:ih*{STRIP}*0.2,format=gray,scale={CELLS}:1:flags=area", "-fps_mode", "passthrough",
            "-f", "rawvideo", "-"]
    data = subprocess.run(line, capture_output=True, check=True).stdout
    rows = [data[at:at + CELLS] for at in range(0, len(data) - CELLS + 1, CELLS)]

    def number(row):
        clear = row[0] > 150 and row[-1] < 100 and all(level > 150 or level < 100 for level in row)
        return sum(1 << bit for bit in range(CELLS - 2) if row[bit + 1] > 128) if clear else None

    return [number(row) for row in rows]


def packets(file, kind):
    """Times of the packets of a stream in order of time, and a sum of what is in them."""
    line = ["ffprobe", "-v", "error", "-select_streams", kind, "-show_entries", "packet=pts_time", "-of", "csv=p=0", str(file)]
    times = subprocess.run(line, capture_output=True, check=True, text=True).stdout.split()
    line = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(file), "-map", f"0:{kind}", "-c", "copy", "-f", "md5", "-"]
    total = subprocess.run(line, capture_output=True, check=True, text=True).stdout.strip()
    return sorted(float(time.strip(",")) for time in times), total


def differences(one, other, region="iw:ih:0:0"):
    """Mean absolute difference of brightness, 0..255, of each frame."""
    crop = f"crop={region}:exact=1,format=gray,setpts=N/{FPS}/TB"
    filters = f"[0:v]{crop}[a];[1:v]{crop}[b];[a][b]blend=all_mode=difference,signalstats,metadata=print:file=-:key=lavfi.signalstats.YAVG"
    line = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(one), "-i", str(other), "-filter_complex", filters, "-f", "null", "-"]
    text = subprocess.run(line, capture_output=True, check=True, text=True).stdout
    return [float(value) for value in re.findall(r"YAVG=([\d.]+)", text)]


def compare(whole, joined, frames):
    """What a render in parts has that one in one piece has not, as figures and as words."""
    (sound_times, sound), (joined_sound_times, joined_sound) = packets(whole, "a"), packets(joined, "a")
    times, joined_times = packets(whole, "v")[0], packets(joined, "v")[0]
    found = numbers(joined)
    wrong = [(at, number) for at, number in enumerate(found) if number != at]
    everywhere, mouth = differences(whole, joined), differences(whole, joined, MOUTH)
    figures = {
        "frames": len(found),
        "frames_of_another_number": len(wrong),
        "sound_bit_equal": sound == joined_sound and sound_times == joined_sound_times,
        "times_equal": times == joined_times,
        "difference_mean": sum(everywhere) / max(1, len(everywhere)),
        "difference_worst": max(everywhere, default=None),
        "mouth_difference_mean": sum(mouth) / max(1, len(mouth)),
        "mouth_difference_worst": max(mouth, default=None),
        "mouth_difference_worst_at": mouth.index(max(mouth)) if mouth else None,
    }
    broken = []
    if len(found) != frames:
        broken.append(f"the render in parts has {len(found)} frames, not {frames}")
    if wrong:
        broken.append(f"frames are repeated, missing or in another place: {wrong[:5]}")
    if not figures["sound_bit_equal"]:
        broken.append("the sound is not that of the render in one piece")
    if not figures["times_equal"]:
        broken.append("frames are at other times than those of the render in one piece")
    return figures, broken
