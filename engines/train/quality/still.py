"""`evaluate.py still`: how much the place of a mouth jitters on a head that does not move.

One frame of a video is shown for six seconds at a height of 720, under noise of a camera and H.264. The landmarks that `lipstream`
smooths put the mouth where it is pasted; what moves there is jitter.
"""

import json
import tempfile
from pathlib import Path

import numpy as np

from common import mesh
from common.geometry import invert, transform, umeyama
from quality.media import run as call

# Middle of the mouth in the unit aligned crop.
MOUTH = (0.5, 0.75)
# Frames after which the tracker's filter has come to rest.
SETTLED = 10


def still(video, second, noise, out):
    """`second` of the video for six seconds, with noise of ±`noise` codes that changes from frame to frame, and silence."""
    picture = out.with_suffix(".png")
    call("ffmpeg", "-nostdin", "-v", "error", "-y", "-ss", second, "-i", video, "-frames:v", 1, picture)
    call("ffmpeg", "-nostdin", "-v", "error", "-y", "-loop", 1, "-framerate", 25, "-i", picture, "-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono",
         "-t", 6, "-vf", f"scale=-2:720,noise=alls={noise}:allf=t", "-c:v", "libx264", "-preset", "veryfast", "-crf", 23, "-pix_fmt", "yuv420p", out)
    return out


def jitter(points, template):
    """Figures of landmarks [n, 111, 2]: root mean square step from frame to frame, and what is faster than the head: the second
    difference over sqrt(6), the deviation of white noise that has it. Pixels."""
    places = np.array([transform(invert(umeyama(p[mesh.ANCHORS], template)), np.array(MOUTH)) for p in points[SETTLED:]])
    size = lambda v: float(np.sqrt((v**2).sum(1).mean()))
    return {"step": size(np.diff(places, axis=0)), "fast": size(np.diff(places, 2, axis=0)) / 6**0.5,
            "eyes": float(np.linalg.norm(np.diff(points[:, mesh.OUTER_EYES], axis=1), axis=-1).mean())}


def run(points, videos, second, noises):
    template = np.array(json.loads((Path(__file__).parents[2] / "models/tracker/template.json").read_text())["points"])
    print(f"{'video':34}{'noise':>6}{'eyes px':>9}{'step px':>9}{'fast px':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for video in videos:
            for noise in noises:
                path = still(video, second, noise, Path(folder) / f"{video.stem}-{noise}.mp4")
                row = jitter(points(path), template) | {"video": video.stem, "noise": noise}
                print(f"{row['video'][:33]:34}{noise:6}{row['eyes']:9.0f}{row['step']:9.3f}{row['fast']:9.3f}", flush=True)
