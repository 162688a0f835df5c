"""The published networks whose output is the label: YuNet finds a face, MediaPipe's mesh follows it."""

import cv2
import numpy as np
import onnxruntime as ort

from . import yunet
from .geometry import CROP_SCALE, cv_matrix, invert, square, transform, upright

MESH_PIXELS = 192
MESH_EYES = (33, 263)


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Detector:
    """A network of YuNet's layout, at any size whose sides are multiples of 32 where the file allows it."""

    def __init__(self, path):
        self.session = session(path)
        self.input = self.session.get_inputs()[0].name
        self.names = [o.name for o in self.session.get_outputs()]

    def __call__(self, bgr, width, height, threshold=0.6):
        """Letterbox the picture top-left into width x height; boxes, key points (pixels of the picture), scores."""
        h, w = bgr.shape[:2]
        scale = min(width / w, height / h)
        padded = np.zeros((height, width, 3), np.uint8)
        nw, nh = max(1, round(w * scale)), max(1, round(h * scale))
        padded[:nh, :nw] = cv2.resize(bgr, (nw, nh), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        blob = padded.astype(np.float32).transpose(2, 0, 1)[None]
        outputs = {n: o[0] for n, o in zip(self.names, self.session.run(None, {self.input: blob}))}
        boxes, points, scores = yunet.decode(outputs, width, threshold)
        keep = yunet.suppress(boxes, scores)
        back = np.array([w / nw, h / nh])
        return boxes[keep] * np.tile(back, 2), points[keep] * back, scores[keep]


class Mesh:
    def __init__(self, path):
        self.session = session(path)
        self.input = self.session.get_inputs()[0].name

    def __call__(self, bgr, centre, side, angle):
        """468 points in frame pixels and the logit of "this is a face", from the square given."""
        matrix = square(centre, side, angle, MESH_PIXELS)
        flags = cv2.INTER_LINEAR if side < 2 * MESH_PIXELS else cv2.INTER_AREA
        if side >= 2 * MESH_PIXELS:
            # warpAffine has no area filter: halve the frame's part first, or thin lip lines alias.
            half = cv2.resize(bgr, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            shrunk = np.array(matrix)
            shrunk[:, :2] *= 2
            crop = cv2.warpAffine(half, cv_matrix(shrunk), (MESH_PIXELS, MESH_PIXELS), flags=cv2.INTER_LINEAR)
        else:
            crop = cv2.warpAffine(bgr, cv_matrix(matrix), (MESH_PIXELS, MESH_PIXELS), flags=flags)
        blob = crop[:, :, ::-1].astype(np.float32).transpose(2, 0, 1)[None] / 255
        outputs = self.session.run(None, {self.input: blob})
        points = next(o for o in outputs if o.size == 1404).reshape(468, 3)[:, :2]
        logit = next(o for o in outputs if o.size == 1).item()
        return transform(invert(matrix), points), logit


class Follower:
    """Detector on the first frame and after a loss; in between the mesh follows its own last points."""

    def __init__(self, models):
        self.detector = Detector(models / "yunet_n_dynamic.onnx")
        self.mesh = Mesh(models / "facemesh_468.onnx")
        self.last = None
        self.wait = 0

    def _detect(self, bgr):
        """The square around the largest face, or None."""
        h, w = bgr.shape[:2]
        scale = 640 / max(h, w)
        boxes, points, _ = self.detector(bgr, -(-round(w * scale) // 32) * 32, -(-round(h * scale) // 32) * 32)
        if not len(boxes):
            return None
        k = points[np.argmax((boxes[:, 2:] - boxes[:, :2]).prod(1))]
        eyes, mouth, eye = (k[0] + k[1]) / 2, (k[3] + k[4]) / 2, k[1] - k[0]
        side = 3.6 * max(np.linalg.norm(eye), np.linalg.norm(mouth - eyes))
        return eyes * 0.55 + mouth * 0.45, side, float(np.arctan2(eye[1], eye[0]))

    def __call__(self, bgr):
        """(468 points in pixels or None, logit of the face)."""
        if self.last is not None:
            points, logit = self._refine(bgr, self.last)
            if logit > 0:
                self.last = points
                return points, logit
            self.last = None
            self.wait = 0
        if self.wait:
            # No face a moment ago: the detector looks again every fifth frame only.
            self.wait -= 1
            return None, -10.0
        found = self._detect(bgr)
        if found is None:
            self.wait = 4
            return None, -10.0
        points, logit = self.mesh(bgr, *found)
        if logit > 0:
            points, logit = self._refine(bgr, points)
        if logit > 0:
            self.last = points
            return points, logit
        self.wait = 4
        return None, logit

    def _refine(self, bgr, points):
        centre, side, angle = upright(points, MESH_EYES)
        return self.mesh(bgr, centre, side * CROP_SCALE, angle)
