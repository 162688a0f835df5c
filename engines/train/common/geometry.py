"""Similarities and the squares that the networks look at. Points are [n, 2] pixels, x right, y down."""

import numpy as np

from .mesh import OUTER_EYES

CROP_SCALE = 1.5


def umeyama(source, target):
    """The least-squares similarity without reflection from `source` to `target` [n, 2], as a [2, 3] matrix.

    S. Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 13 (1991).
    """
    source, target = np.asarray(source, float), np.asarray(target, float)
    ms, mt = source.mean(0), target.mean(0)
    a, b = source - ms, target - mt
    u, d, vt = np.linalg.svd(b.T @ a)
    sign = np.array([1.0, np.sign(np.linalg.det(u @ vt)) or 1.0])
    rotation = (u * sign) @ vt
    scale = (d * sign).sum() / (a**2).sum()
    linear = scale * rotation
    return np.hstack([linear, (mt - linear @ ms)[:, None]])


def transform(matrix, points):
    """Apply a [2, 3] matrix to [..., 2] points."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def invert(matrix):
    linear = np.linalg.inv(matrix[:, :2])
    return np.hstack([linear, -(linear @ matrix[:, 2])[:, None]])


def square(centre, side, angle, pixels):
    """The [2, 3] matrix from frame pixels to a `pixels` wide crop of the square at `centre`, turned by `angle` (radians).

    Coordinates are continuous: pixel k of the crop covers [k, k + 1). See `cv_matrix` for OpenCV's convention.
    """
    z = pixels / side
    c, s = np.cos(angle) * z, np.sin(angle) * z
    linear = np.array([[c, s], [-s, c]])
    return np.hstack([linear, (pixels / 2 - linear @ np.asarray(centre, float))[:, None]])


def cv_matrix(matrix):
    """The same map for cv2.warpAffine, whose integer coordinates are pixel centres."""
    out = np.array(matrix, float)
    out[:, 2] += out[:, :2] @ [0.5, 0.5] - 0.5
    return out


def upright(points, eyes=OUTER_EYES):
    """Centre, larger bounding-box side and angle of the face, in the frame in which the outer eye corners are level."""
    eye = points[eyes[1]] - points[eyes[0]]
    angle = float(np.arctan2(eye[1], eye[0]))
    c, s = np.cos(angle), np.sin(angle)
    turned = points @ np.array([[c, -s], [s, c]])
    low, high = turned.min(0), turned.max(0)
    return ((low + high) / 2) @ np.array([[c, s], [-s, c]]), float((high - low).max()), angle
