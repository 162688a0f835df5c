"""Training scenes for the detector: faces of every size at every place, several in one picture, or none.

A scene is (picture uint8 BGR [h, w, 3], boxes [n, 4], key points [n, 5, 2], scores [n]); boxes whose score is below SURE are neither
faces nor background.
"""

import cv2
import numpy as np

from .augment import colour, degrade

SURE = 0.6
# The mirrored picture swaps the eyes and the mouth corners.
MIRROR = [1, 0, 2, 4, 3]


def mirrored(image, boxes, points):
    width = image.shape[1]
    boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
    points = points[:, MIRROR] * [-1, 1] + [width, 0]
    return cv2.flip(image, 1), boxes, points


def rotated(image, boxes, points, angle):
    """The picture turned about its middle; a box stays upright and keeps its size about its turned centre."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    image = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    centre = (boxes[:, 2:] + boxes[:, :2]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    return image, np.hstack([centre - half, centre + half]), points @ matrix[:, :2].T + matrix[:, 2]


def place(canvas, scene, scale, offset, keep):
    """Draw the scene, scaled, with its origin at `offset` of the canvas; append its faces to `keep`."""
    image, boxes, points, scores = scene
    height, width = canvas.shape[:2]
    x0, y0 = max(0, int(np.floor(offset[0]))), max(0, int(np.floor(offset[1])))
    x1 = min(width, int(np.ceil(offset[0] + image.shape[1] * scale)))
    y1 = min(height, int(np.ceil(offset[1] + image.shape[0] * scale)))
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    # The part of the scene that is seen, shrunk by area first so that small faces do not alias.
    s0 = np.floor((np.array([x0, y0]) - offset) / scale).clip(0).astype(int)
    s1 = np.ceil((np.array([x1, y1]) - offset) / scale).astype(int)
    part = image[s0[1] : s1[1], s0[0] : s1[0]]
    size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
    part = cv2.resize(part, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    corner = np.round(offset + s0 * scale).astype(int)
    a, b = np.maximum(corner, 0), np.minimum(corner + size, [width, height])
    if (b - a).min() < 1:
        return
    canvas[a[1] : b[1], a[0] : b[0]] = part[a[1] - corner[1] : b[1] - corner[1], a[0] - corner[0] : b[0] - corner[0]]
    for box, point, score in zip(boxes * scale + np.tile(offset, 2), points * scale + offset, scores):
        keep.append((box, point, score, (*a, *b)))


def faces(keep, smallest=12.0):
    """(boxes, key points, sure [n]) of what is left to see: a face that is mostly cut off or tiny is not sure."""
    boxes, points, sure = [], [], []
    for box, point, score, window in keep:
        low, high = np.maximum(box[:2], window[:2]), np.minimum(box[2:], window[2:])
        seen = np.clip(high - low, 0, None).prod() / max((box[2:] - box[:2]).prod(), 1e-6)
        if seen < 0.1:
            continue
        boxes.append(box)
        points.append(point)
        sure.append(score >= SURE and seen > 0.6 and box[3] - box[1] >= smallest)
    if not boxes:
        return np.zeros((0, 4)), np.zeros((0, 5, 2)), np.zeros(0, bool)
    return np.array(boxes), np.array(points), np.array(sure)


def erase(scene, patches, rng):
    """The scene with a patch of background over every face, down to the unsure ones."""
    image, boxes, _, _ = scene
    image = image.copy()
    for x0, y0, x1, y1 in boxes:
        grow = 0.35 * max(x1 - x0, y1 - y0)
        x0, y0 = max(0, int(x0 - grow)), max(0, int(y0 - 1.3 * grow))
        x1, y1 = min(image.shape[1], int(x1 + grow)), min(image.shape[0], int(y1 + grow))
        if x1 - x0 > 1 and y1 - y0 > 1:
            image[y0:y1, x0:x1] = cv2.resize(patches[rng.integers(len(patches))], (x1 - x0, y1 - y0))
    return image, np.zeros((0, 4)), np.zeros((0, 5, 2)), np.zeros(0)


def fill(canvas, patches, rng):
    """What lies behind the scenes: black (the letterbox) most, a colour, or background."""
    kind = rng.random()
    if kind < 0.45:
        canvas[:] = 0
    elif kind < 0.65:
        canvas[:] = rng.integers(0, 256, 3)
    else:
        patch = patches[rng.integers(len(patches))]
        canvas[:] = cv2.resize(patch, (canvas.shape[1], canvas.shape[0]))


def cell(canvas, draw, patches, rng, smallest, largest, keep):
    """One scene on a canvas (or a mosaic's cell): fitted as the tracker letterboxes it, or at a drawn face size and place."""
    scene = draw()
    if rng.random() < 0.12:
        scene = erase(scene, patches, rng)
    image, boxes, points, scores = scene
    if rng.random() < 0.5:
        image, boxes, points = mirrored(image, boxes, points)
    if rng.random() < 0.25:
        image, boxes, points = rotated(image, boxes, points, float(rng.uniform(-25, 25)))
    scene = image, boxes, points, scores
    height, width = canvas.shape[:2]
    fit = min(width / image.shape[1], height / image.shape[0])
    if not len(boxes) or rng.random() < 0.3:
        zoom = 1.0 if rng.random() < 0.6 else float(np.exp(rng.uniform(-0.7, 0.7)))
        offset = np.zeros(2) if zoom == 1.0 else rng.uniform(-0.3, 0.3, 2) * [width, height]
        place(canvas, scene, fit * zoom, offset, keep)
        return
    k = rng.integers(len(boxes))
    wanted = float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))
    scale = float(np.clip(wanted / (boxes[k, 3] - boxes[k, 1]), 0.02, 4))
    centre = (boxes[k, :2] + boxes[k, 2:]) / 2 * scale
    margin = min(wanted * 0.35, min(height, width) * 0.45)
    target = np.array([rng.uniform(margin, width - margin), rng.uniform(margin, height - margin)])
    place(canvas, scene, scale, target - centre, keep)


def compose(width, height, draw, patches, rng):
    """(picture uint8 BGR [height, width, 3], boxes, key points, sure). `draw()` gives a scene; `patches` hold no face."""
    canvas, keep = np.zeros((height, width, 3), np.uint8), []
    fill(canvas, patches, rng)
    kind = rng.random()
    if kind < 0.5:
        cell(canvas, draw, patches, rng, 16, 200, keep)
    elif kind < 0.85:
        columns, rows = int(rng.integers(2, 5)), int(rng.integers(1, 4))
        xs = np.linspace(0, width, columns + 1).astype(int)
        ys = np.linspace(0, height, rows + 1).astype(int)
        for c in range(columns):
            for r in range(rows):
                if rng.random() < 0.15:
                    continue
                own, part = [], canvas[ys[r] : ys[r + 1], xs[c] : xs[c + 1]]
                cell(part, draw, patches, rng, 14, max(20, 0.8 * min(part.shape[:2])), own)
                shift = np.array([xs[c], ys[r]])
                keep += [(b + np.tile(shift, 2), p + shift, s, tuple(np.array(w) + np.tile(shift, 2))) for b, p, s, w in own]
    elif kind < 0.95:
        place(canvas, erase(draw(), patches, rng), float(rng.uniform(0.3, 1.2)), rng.uniform(-0.4, 0.1, 2) * [width, height], keep)
    else:
        for _ in range(int(rng.integers(1, 12))):
            patch = patches[rng.integers(len(patches))]
            w, h = int(rng.integers(16, width)), int(rng.integers(16, height))
            x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            canvas[y : y + h, x : x + w] = cv2.resize(patch, (w, h))
    return degrade(colour(canvas, rng), rng), *faces(keep)
