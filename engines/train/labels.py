#!/usr/bin/env python3
"""Label every clip with the teachers' mesh, and cut the face crops and the scenes that the tracker learns from.

    labels.py clips --data DATA --cache CACHE     one .npz a clip under CACHE/labels, /crops and /scenes
    labels.py template --data DATA --cache CACHE --out engines/models/tracker/template.json

`CACHE/labels/<clip>.npz`: points float32 [frames, 468, 2] (pixels, x right, y down; the last known points where not found),
found bool [frames], score float32 [frames] (logit of the face), fps (always 25), size (w, h).
Frame k is what the clip shows at k / 25 seconds.
`CACHE/crops/<clip>.npz`: crops uint8 [n, 192, 192, 3] RGB, upright, side 2.2 x the larger side of the points' bounding box;
points float32 [n, 111, 2] in crop pixels; frame [n].
`CACHE/scenes/<clip>.npz`: whole frames as JPEG, longest side at most 640, for the detector.
A clip that has its files is skipped, so a broken run goes on where it stopped.
"""

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from common import mesh
from common.geometry import cv_matrix, square, transform, umeyama, upright
from common.runs import clips, data_argument
from common.teachers import Follower
from common.video import frames

FPS = 25
CROP_PIXELS, CROP_MARGIN = 192, 2.2
SCENE_PIXELS = 640


def crop_step(relative):
    name = str(relative)
    return 20 if "grid_s1" in name else 5 if "grid_other" in name else 3


def save(path, **arrays):
    """Write beside and rename, so that nobody reads half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.stem + ".partial.npz")
    np.savez(partial, **arrays)
    partial.rename(path)


def cut(bgr, points):
    """(crop RGB, the 111 points in its pixels)."""
    own = points[mesh.MESH].astype(np.float64)
    centre, side, angle = upright(own)
    side *= CROP_MARGIN
    matrix = square(centre, side, angle, CROP_PIXELS)
    halvings = max(0, int(np.floor(np.log2(side / CROP_PIXELS))))
    source, shrunk = bgr, np.array(matrix)
    for _ in range(halvings):
        source = cv2.resize(source, (source.shape[1] // 2, source.shape[0] // 2), interpolation=cv2.INTER_AREA)
        shrunk[:, :2] *= 2
    crop = cv2.warpAffine(source, cv_matrix(shrunk), (CROP_PIXELS, CROP_PIXELS), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return crop[:, :, ::-1], transform(matrix, own)


def label(data, cache, relative):
    stem = relative.with_suffix(".npz")
    done = cache / "labels" / stem
    if done.exists():
        return relative, None
    follower, step = Follower(data / "models"), crop_step(relative)
    points, found, score, crops, crop_points, crop_frames, scenes, scene_frames = [], [], [], [], [], [], [], []
    size = (0, 0)
    for k, bgr in enumerate(frames(data / relative, FPS)):
        size = bgr.shape[1], bgr.shape[0]
        p, logit = follower(bgr)
        found.append(p is not None)
        score.append(logit)
        points.append(p if p is not None else points[-1] if points else np.zeros((468, 2)))
        if k % step == 0 and p is not None:
            crop, own = cut(bgr, p)
            crops.append(crop)
            crop_points.append(own)
            crop_frames.append(k)
        if k % (step * (5 if step < 20 else 2)) == 0:
            scale = min(1, SCENE_PIXELS / max(size))
            small = cv2.resize(bgr, (round(size[0] * scale), round(size[1] * scale)), interpolation=cv2.INTER_AREA)
            scenes.append(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 92])[1])
            scene_frames.append(k)
    ends = np.cumsum([len(s) for s in scenes])
    save(cache / "scenes" / stem, jpeg=np.concatenate(scenes).ravel(), ends=ends, frame=np.array(scene_frames))
    if crops:
        save(cache / "crops" / stem, crops=np.stack(crops), points=np.stack(crop_points).astype(np.float32), frame=np.array(crop_frames))
    save(done, points=np.stack(points).astype(np.float32), found=np.array(found), score=np.array(score, np.float32),
         fps=np.float32(FPS), size=np.array(size))
    return relative, (len(found), float(np.mean(found)))


def run_clips(args):
    cv2.setNumThreads(1)
    todo = clips(args.data)
    with ProcessPoolExecutor(args.processes, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        jobs = [pool.submit(label, args.data, args.cache, relative) for relative in todo]
        for job in jobs:
            relative, result = job.result()
            if result:
                print(f"{relative}: {result[0]} frames, {result[1]:.3f} with a face", flush=True)


def run_template(args):
    """The mean over clips (GRID s1 counts as one) of the anchor points in the frame in which the outer eyes are 0.513 apart at y = 0.13."""
    votes = {}
    for relative in clips(args.data):
        path = args.cache / "labels" / relative.with_suffix(".npz")
        if not path.exists():
            continue
        z = np.load(path)
        # A clip is one person; all of GRID s1 is one man and has one vote.
        person = "grid_s1" if "grid_s1" in str(relative) else str(relative)
        frame = z["points"][z["found"]][:: 25][:, mesh.MESH]
        if len(frame):
            votes.setdefault(person, []).append(np.median([normal(p) for p in frame], 0))
    mean = np.mean([np.median(v, 0) for v in votes.values()], 0)
    mirrored = mean[mesh.FLIP] * [-1, 1] + [1, 0]
    mean = (mean + mirrored) / 2
    out = {"anchors": mesh.ANCHORS, "points": [[round(float(v), 6) for v in mean[k]] for k in mesh.ANCHORS]}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(out, indent=1) + "\n")
    print(len(votes), "clips", out)


def normal(points):
    """Points in the crop in which the outer eye corners lie at (0.5 -+ 0.2565, 0.13)."""
    a, b = mesh.OUTER_EYES
    matrix = umeyama(points[[a, b]], np.array([[0.5 - 0.513 / 2, 0.13], [0.5 + 0.513 / 2, 0.13]]))
    return transform(matrix, points)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(required=True)
    one = sub.add_parser("clips")
    data_argument(one)
    one.add_argument("--processes", type=int, default=os.cpu_count())
    one.set_defaults(run=run_clips)
    two = sub.add_parser("template")
    data_argument(two)
    two.add_argument("--out", type=Path, required=True)
    two.set_defaults(run=run_template)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
