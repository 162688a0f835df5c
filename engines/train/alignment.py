#!/usr/bin/env python3
"""How far the three points by which LatentSync's engine aligns a face are from the published ones, in pixels of its crop.

    alignment.py --data DATA --cache CACHE --lipstream BIN [--json FILE]

The published program (bytedance/LatentSync) has two sets of points, and one template for both. Its first release takes MediaPipe's mesh: the means of five points of
either brow and of nine of the nose. Releases 1.5 and 1.6 take InsightFace's 106 points, of which there are no free weights: five of either brow's upper edge, and four
of the nose. Its face detector says which of the 68 points of iBUG's layout these five and the bridge's are, so OpenSeeFace, which finds 66 of the 68, stands for
InsightFace here; the nose's wings are the outer ends of its base there. Both teachers look at the frames that the engine's own tracker has seen.

Of five frames in the first five seconds of each clip: how far each point is, after the similarity that the published points make, and how far the crop moves over the part of the face that is
painted. `raw` are the means of our own points; `shared` moves them by what the engine moves them by, one offset for both sets that is the same for a mirrored face, here the mean over the
other clips in eight parts; `constant` has an offset for each set and point, and `fitted` a mapping from all 111 points: they tell what a better mapping could bring. `offset` is what all clips give, in units of the
template: engines/src/geometry/three_point.rs has it.
"""

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np

from common import mesh, tracked
from common.runs import clips, data_argument
from common.teachers import Follower, session
from common.video import frames

FPS, SECONDS, FRAMES, PARTS = 25, 5, 5, 8
# engines/src/geometry/three_point.rs at 256 pixels.
TEMPLATE = np.array([[17, 20], [58, 20], [37.5, 40]]) * 2.8
WIDTH, HEIGHT = 210, 280
# Mesh points from which the engine starts; those of the first release.
OURS = [[105], [334], [195, 4, 48, 278]]
FIRST = [[71, 63, 105, 66, 107], [336, 296, 334, 293, 301], [168, 197, 5, 4, 75, 97, 2, 326, 305]]
# The later releases' in the layout of 68.
LATER = [range(17, 22), range(22, 27), [29, 30, 31, 35]]
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


class SixtySix:
    """OpenSeeFace's landmarks: 66 maps of 28 x 28 and offsets from their peaks to either side, as logits over 16."""

    def __init__(self, path):
        self.session = session(path)
        self.input = self.session.get_inputs()[0].name

    def __call__(self, bgr, low, high):
        """Points [66, 2] of the face whose landmarks lie between the corners `low` and `high`, in pixels."""
        margin = (high - low) * [0.1, 0.125]
        low, size = low - margin, high - low + 2 * margin
        scale = 223 / size
        matrix = np.array([[scale[0], 0, -low[0] * scale[0]], [0, scale[1], -low[1] * scale[1]]])
        crop = cv2.warpAffine(bgr, matrix, (224, 224), flags=cv2.INTER_AREA)[:, :, ::-1] / 255
        blob = ((crop - MEAN) / STD).astype(np.float32).transpose(2, 0, 1)[None]
        maps = self.session.run(None, {self.input: blob})[0].reshape(3, 66, 28 * 28)
        peak = maps[0].argmax(1)
        offset = np.clip(np.take_along_axis(maps[1:], np.broadcast_to(peak[:, None], (2, 66, 1)), 2)[..., 0], 1e-7, 1 - 1e-7)
        offset = np.log(offset / (1 - offset)) / 16
        place = np.stack([peak // 28, peak % 28]) / 27 + offset
        return place[::-1].T * 223 / scale + low


def means(points, groups):
    return np.stack([points[list(group)].mean(0) for group in groups])


def fit(points):
    """The program's similarity from three points of a frame to the template, without its smoothing: [2, 3]."""
    def normalised(p):
        spread = np.sqrt(((p - p.mean(0)) ** 2).sum() / 5)
        return (p - p.mean(0)) / spread, spread

    (a, from_), (b, to) = normalised(points), normalised(TEMPLATE)
    u, _, vt = np.linalg.svd(b.T @ a)
    turn = u @ np.diag([1, np.linalg.det(u @ vt)]) @ vt * (to / from_)
    return np.hstack([turn, (TEMPLATE.mean(0) - turn @ points.mean(0))[:, None]])


def apply(matrix, points):
    return points @ matrix[:, :2].T + matrix[:, 2]


def seen(data, cache, relative, follower, sixty_six):
    """Of frames of a clip: the tracker's points [n, 111, 2], those of the first release [n, 3, 2], those of the later ones."""
    points, found = tracked.read(cache / "points" / relative.with_suffix(".csv"))
    wanted = np.linspace(0, min(len(points) - 1, SECONDS * FPS), FRAMES + 2).astype(int)[1:-1]
    out = []
    for k, bgr in enumerate(frames(data / relative, FPS)):
        if k > wanted[-1]:
            break
        if k not in wanted or not found[k]:
            continue
        follower.last, follower.wait = None, 0
        teacher, _ = follower(bgr)
        if teacher is None:
            continue
        # Without the forehead, which the 68 have not.
        face = np.delete(teacher[mesh.MESH], np.s_[98:103], 0)
        found66 = sixty_six(bgr, face.min(0), face.max(0))
        found66 = sixty_six(bgr, found66.min(0), found66.max(0))
        # Ours have the first pixel's centre at (0.5, 0.5), as the mesh has.
        out.append((points[k], means(teacher, FIRST), means(found66 + 0.5, LATER)))
    return out


def crop_apart(ours, theirs):
    """Mean distance in pixels of the crop over its lower two thirds, where the network paints."""
    grid = np.stack(np.meshgrid(np.linspace(0.15, 0.85, 8) * WIDTH, np.linspace(0.35, 0.9, 8) * HEIGHT), -1).reshape(-1, 2)
    back = np.linalg.inv(np.vstack([fit(theirs), [0, 0, 1]]))[:2]
    return np.linalg.norm(apply(fit(ours), apply(back, grid)) - grid, axis=1).mean()


def summary(ours, theirs):
    """Of three points each of n frames."""
    maps = [fit(t) for t in theirs]
    off = np.stack([apply(m, o) - apply(m, t) for m, o, t in zip(maps, ours, theirs)])
    crops = np.array([crop_apart(o, t) for o, t in zip(ours, theirs)])
    points = {name: {"mean": np.round(off[:, i].mean(0), 2).tolist(), "rms": round(float(np.sqrt((off[:, i] ** 2).sum(1).mean())), 2)}
              for i, name in enumerate(("brow left in the picture", "brow right in it", "nose"))}
    return {"points": points, "crop": {"median": round(float(np.median(crops)), 2), "of ten nine below": round(float(np.quantile(crops, 0.9)), 2)}}


def fold(clip):
    """Frames that are measured and those that are fitted on, a pair a part of the clips."""
    for part in range(PARTS):
        test = clip % PARTS == part
        yield np.flatnonzero(test), np.flatnonzero(~test)


def in_crop(points, *sets):
    """Each of `sets` [n, k, 2] where the similarities of `points` [n, 3, 2] bring them, so that faces of all sizes count alike."""
    maps = [fit(p) for p in points]
    return [np.stack([apply(m, p) for m, p in zip(maps, each)]) for each in sets]


def in_frame(points, moved):
    """The inverse."""
    back = [np.linalg.inv(np.vstack([fit(p), [0, 0, 1]]))[:2] for p in points]
    return np.stack([apply(m, p) for m, p in zip(back, moved)])


def shared_offset(ours, theirs):
    """From our points to the published ones in pixels of the crop [3, 2]: the mean over frames and over sets, of faces and their mirror images."""
    offset = np.mean([np.subtract(*in_crop(ours, t, ours)).mean(0) for t in theirs], 0)
    return (offset + offset[[1, 0, 2]] * [-1, 1]) / 2


def moved_by(ours, offset):
    return in_frame(ours, in_crop(ours, ours)[0] + offset)


def left(points, ours, theirs, clip):
    """Three points as two mappings that were fitted on other clips place them: a constant offset, and all 111 points."""
    moved = {"constant": np.empty_like(ours), "fitted": np.empty_like(ours)}
    own, wanted, base = in_crop(ours, points, theirs, ours)
    flat, target = own.reshape(len(own), -1), (wanted - base).reshape(len(own), -1)
    for test, rest in fold(clip):
        centre, offset = flat[rest].mean(0), target[rest].mean(0)
        x = flat[rest] - centre
        # Ridge regression: the deviation of a point is some pixels, and 222 numbers are more than a clip can tell apart.
        weights = np.linalg.solve(x.T @ x + 0.05 * len(x) * np.eye(x.shape[1]) * x.var(), x.T @ (target[rest] - offset))
        for name, change in (("constant", np.broadcast_to(offset, (len(test), 6))), ("fitted", offset + (flat[test] - centre) @ weights)):
            moved[name][test] = in_frame(ours[test], base[test] + change.reshape(-1, 3, 2))
    return moved


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data_argument(parser)
    parser.add_argument("--lipstream", type=Path, required=True, help="the program whose tracker is asked")
    parser.add_argument("--clips", nargs="+", default=["free_", "val/gen_", "val/grid_other", "faces", "avatars"], help="parts of the clips' paths")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    sixty_six = SixtySix(args.data / "models/openseeface_lm0.onnx")
    rows, clip = [], []
    wanted = [c for c in clips(args.data) if any(part in str(c) for part in args.clips)]
    for failed in tracked.write(args.data, args.cache, args.lipstream, wanted):
        print(*failed)
    follower = Follower(args.data / "models")
    for number, relative in enumerate(wanted):
        if not (args.cache / "points" / relative.with_suffix(".csv")).exists():
            continue
        found = seen(args.data, args.cache, relative, follower, sixty_six)
        print(f"{relative}: {len(found)} frames", file=sys.stderr, flush=True)
        rows += found
        clip += [number] * len(found)
    points, first, later = (np.stack(column).astype(np.float64) for column in zip(*rows))
    clip = np.array(clip)
    ours = np.stack([means(p, [[list(mesh.MESH).index(m) for m in group] for group in OURS]) for p in points])
    offset = shared_offset(ours, (first, later))
    report = {"frames": len(rows), "clips": len(set(clip)), "offset": np.round(offset / 2.8, 2).tolist()}
    shared = np.empty_like(ours)
    for test, rest in fold(clip):
        shared[test] = moved_by(ours[test], shared_offset(ours[rest], (first[rest], later[rest])))
    for name, theirs in (("first release, MediaPipe", first), ("1.5 and 1.6, OpenSeeFace for InsightFace", later)):
        report[name] = {"raw": summary(ours, theirs), "shared": summary(shared, theirs)}
        report[name] |= {way: summary(moved, theirs) for way, moved in left(points, ours, theirs, clip).items()}
    report["the two from each other"] = summary(first, later)
    text = json.dumps(report, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
