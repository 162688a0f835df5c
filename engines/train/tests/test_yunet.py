import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

from common import compose, yunet


def test_decode_places_box_and_points_by_cell_and_stride():
    width, height = 64, 32
    outputs = {}
    for stride in yunet.STRIDES:
        n = (width // stride) * (height // stride)
        for kind, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            outputs[f"{kind}_{stride}"] = np.zeros((n, channels), np.float32)
    cell = 1 * (width // 16) + 2
    outputs["cls_16"][cell], outputs["obj_16"][cell] = 0.81, 1.0
    outputs["bbox_16"][cell] = [0.5, 0.25, np.log(1.5), 0.0]
    outputs["kps_16"][cell, :2] = [0.25, -0.5]
    boxes, points, scores = yunet.decode(outputs, width, 0.5)
    np.testing.assert_allclose(boxes, [[40 - 12, 20 - 8, 40 + 12, 20 + 8]], atol=1e-5)
    np.testing.assert_allclose(points[0, 0], [36, 8], atol=1e-5)
    np.testing.assert_allclose(scores, [0.9], atol=1e-6)


def test_suppression_keeps_the_best_of_an_overlap_and_the_other_face():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [30, 0, 40, 10]], float)
    assert list(yunet.suppress(boxes, np.array([0.6, 0.9, 0.7]))) == [1, 2]


def test_mirror_keeps_the_right_eye_on_the_left_of_the_picture():
    image = np.zeros((50, 100, 3), np.uint8)
    points = np.array([[[20, 10], [30, 10], [25, 15], [21, 20], [29, 20]]], float)
    _, boxes, flipped = compose.mirrored(image, np.array([[15, 5, 35, 25]], float), points)
    assert flipped[0, 0, 0] < flipped[0, 1, 0] and flipped[0, 3, 0] < flipped[0, 4, 0]
    np.testing.assert_allclose(boxes, [[65, 5, 85, 25]])
    np.testing.assert_allclose(flipped[0, 2], [75, 15])


def test_composed_faces_lie_under_their_boxes():
    image = np.full((120, 160, 3), 10, np.uint8)
    image[30:90, 60:100] = 250
    scene = image, np.array([[60, 30, 100, 90]], float), np.full((1, 5, 2), 80.0), np.array([0.9])
    canvas, keep = np.zeros((192, 320, 3), np.uint8), []
    compose.place(canvas, scene, 0.5, np.array([37.0, 21.0]), keep)
    boxes, points, sure = compose.faces(keep)
    x0, y0, x1, y1 = boxes[0].round().astype(int)
    assert sure[0] and canvas[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1].min() > 200
    assert canvas[y0 - 3 : y0 - 1, x0:x1].max() < 60
    np.testing.assert_allclose(points[0, 0], [77, 61])
    # Cut off by the canvas: no longer a face to be found, nor background.
    keep = []
    compose.place(canvas, scene, 1.0, np.array([-90.0, 0.0]), keep)
    assert not compose.faces(keep)[2].any()
