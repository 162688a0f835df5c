"""YuNet's output layout: at each stride one prior per cell, row by row.

score = sqrt(cls * obj); box centre = (column + dx, row + dy) * stride, size = exp(dw, dh) * stride;
key points = (column + kx, row + ky) * stride in the order right eye, left eye, nose tip, right and left mouth corner
(the person's right, so the left of the picture). W. Wu, H. Peng, S. Yu, "YuNet: A Tiny Millisecond-level Face Detector" (2023).
"""

import numpy as np

STRIDES = (8, 16, 32)


def decode(outputs, width, threshold):
    """Boxes [n, 4] (x0, y0, x1, y1), key points [n, 5, 2] and scores [n] above `threshold`, of one picture.

    `outputs` maps `cls_8` ... `kps_32` to arrays [cells, channels]; `width` is the input's width in pixels.
    """
    boxes, points, scores = [], [], []
    for stride in STRIDES:
        cls, obj = outputs[f"cls_{stride}"][:, 0], outputs[f"obj_{stride}"][:, 0]
        score = np.sqrt(np.clip(cls, 0, 1) * np.clip(obj, 0, 1))
        at = np.where(score > threshold)[0]
        cell = np.stack([at % (width // stride), at // (width // stride)], 1)
        box = outputs[f"bbox_{stride}"][at]
        centre, size = (cell + box[:, :2]) * stride, np.exp(np.minimum(box[:, 2:], 12)) * stride
        boxes.append(np.hstack([centre - size / 2, centre + size / 2]))
        points.append((outputs[f"kps_{stride}"][at].reshape(-1, 5, 2) + cell[:, None]) * stride)
        scores.append(score[at])
    return np.concatenate(boxes), np.concatenate(points), np.concatenate(scores)


def iou(a, b):
    """Intersection over union of boxes [n, 4] and [m, 4] as [n, m]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.clip(high - low, 0, None).prod(2)
    area = lambda x: (x[:, 2:] - x[:, :2]).prod(1)
    return inter / np.maximum(area(a)[:, None] + area(b)[None] - inter, 1e-9)


def suppress(boxes, scores, overlap=0.3):
    """Greedy non-maximum suppression; the indices kept, best first."""
    order, keep = np.argsort(-scores), []
    while len(order):
        first, order = order[0], order[1:]
        keep.append(int(first))
        order = order[iou(boxes[first : first + 1], boxes[order])[0] < overlap]
    return np.array(keep, int)
