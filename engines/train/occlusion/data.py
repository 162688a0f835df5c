"""What the network learns on: aligned crops of every clip's faces, and patches of what is behind and beside them.

`CACHE/occlusion/<split>.npz`: images uint8 [n, 160, 160, 3] RGB, the aligned crop with `MARGIN` of its side around it;
points float32 [n, 111, 2] in the crop's unit coordinates; group [n] into names; patches uint8 [m, 96, 96, 3], pieces of the same clips without a face.
"""

import json

import cv2
import numpy as np

from common import mesh
from common.geometry import cv_matrix, transform, umeyama
from common.runs import clips, is_val
from common.teachers import Follower
from common.video import frames

PACKED, MARGIN = 160, 0.15
PATCH = 96

# Seconds of clips in which something is before the lower face, which nobody has labelled: they are looked at, not learned from.
COVERED = {"talking/train/free_lipreading_sample": (4.4, 5.4), "talking/train/gen_infinitetalk_dub12": (15.0, 21.0),
           "talking/val/gen_infinitetalk_dub1": (5.5, 100.0)}


def rate(relative):
    """Pictures a second, and of how many clips one is taken: GRID is short and alike."""
    name = str(relative)
    return (0.7, 4) if "grid_s1" in name else (2, 1) if "grid_other" in name else (2.5, 1)


def template(path):
    read = json.loads(path.read_text())
    return np.array(read["points"], float)


def to_packed():
    """From unit coordinates of the aligned crop to pixels of a packed picture."""
    scale = PACKED / (1 + 2 * MARGIN)
    return np.array([[scale, 0, MARGIN * scale], [0, scale, MARGIN * scale]])


def aligned(bgr, points, anchors):
    """The packed picture (RGB) around a face of 111 points in frame pixels, and the points in unit coordinates."""
    unit = umeyama(points[mesh.ANCHORS], anchors)
    place = to_packed()
    matrix = np.hstack([place[:, :2] @ unit[:, :2], (place[:, :2] @ unit[:, 2] + place[:, 2])[:, None]])
    source, shrunk = bgr, matrix.copy()
    for _ in range(max(0, int(np.floor(-np.log2(np.hypot(matrix[0, 0], matrix[0, 1])))))):
        source = cv2.resize(source, (source.shape[1] // 2, source.shape[0] // 2), interpolation=cv2.INTER_AREA)
        shrunk[:, :2] *= 2
    crop = cv2.warpAffine(source, cv_matrix(shrunk), (PACKED, PACKED), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return crop[:, :, ::-1], transform(unit, points)


def patch(bgr, points, rng):
    """A piece of the frame that no face is in, or None."""
    height, width = bgr.shape[:2]
    side = int(rng.integers(PATCH // 2, max(PATCH // 2 + 1, min(height, width) // 2)))
    low, high = points.min(0) - 0.15 * np.ptp(points, 0), points.max(0) + 0.15 * np.ptp(points, 0)
    for _ in range(8):
        x, y = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
        if x + side < low[0] or x > high[0] or y + side < low[1] or y > high[1]:
            return cv2.resize(bgr[y : y + side, x : x + side], (PATCH, PATCH), interpolation=cv2.INTER_AREA)[:, :, ::-1]
    return None


def pack(args):
    cv2.setNumThreads(1)
    anchors = template(args.template)
    for split in ("val", "train"):
        images, points, group, names, patches = [], [], [], [], []
        rng = np.random.default_rng(0 if split == "val" else 1)
        follower = Follower(args.data / "models")
        for index, relative in enumerate(clips(args.data)):
            every, one_of = rate(relative)
            if is_val(relative) != (split == "val") or index % one_of:
                continue
            name = "talking/grid_s1" if "grid_s1" in str(relative) else str(relative.with_suffix(""))
            names += [name] * (name not in names)
            first, last = COVERED.get(name, (0.0, 0.0))
            for k, bgr in enumerate(frames(args.data / relative, every)):
                if first <= k / every < last:
                    continue
                # Frames are far apart: the detector looks at each.
                follower.last, follower.wait = None, 0
                found, logit = follower(bgr)
                if found is None or logit < 3:
                    continue
                own = found[mesh.MESH].astype(np.float64)
                image, unit = aligned(bgr, own, anchors)
                images.append(image)
                points.append(unit)
                group.append(names.index(name))
                piece = patch(bgr, own, rng) if rng.random() < 0.5 else None
                if piece is not None:
                    patches.append(piece)
        out = args.cache / "occlusion" / f"{split}.npz"
        out.parent.mkdir(parents=True, exist_ok=True)
        np.savez(out, images=np.stack(images), points=np.stack(points).astype(np.float32), group=np.array(group), names=json.dumps(names),
                 patches=np.stack(patches))
        print(split, len(images), "pictures of", len(names), "people,", len(patches), "patches", flush=True)
