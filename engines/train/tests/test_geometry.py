import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")

from common import augment, mesh
from common.geometry import cv_matrix, invert, square, transform, umeyama, upright


def test_umeyama_recovers_a_similarity_and_never_reflects():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(7, 2))
    angle, scale, shift = 0.6, 2.5, np.array([4.0, -3.0])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    target = source @ (scale * rotation).T + shift
    np.testing.assert_allclose(transform(umeyama(source, target), source), target, atol=1e-9)
    mirrored = umeyama(source, source * [-1, 1])
    assert np.linalg.det(mirrored[:, :2]) > 0


def test_invert_returns():
    matrix = square((30, 40), 20, 0.3, 128)
    points = np.random.default_rng(1).uniform(0, 60, (5, 2))
    np.testing.assert_allclose(transform(invert(matrix), transform(matrix, points)), points, atol=1e-9)


def test_square_puts_its_pixels_where_it_says():
    image = np.zeros((64, 64), np.uint8)
    image[20, 40] = 255
    matrix = square((40.5, 20.5), 16, 0.0, 64)
    crop = cv2.warpAffine(image, cv_matrix(matrix), (64, 64))
    y, x = np.mgrid[:64, :64] + 0.5
    centre = np.array([(crop * x).sum(), (crop * y).sum()]) / crop.sum()
    np.testing.assert_allclose(centre, transform(matrix, np.array([40.5, 20.5])), atol=0.05)


def face():
    rng = np.random.default_rng(2)
    points = rng.uniform(60, 130, (mesh.P, 2))
    points[mesh.OUTER_EYES[0]], points[mesh.OUTER_EYES[1]] = (70, 80), (120, 80)
    return points


def test_upright_does_not_depend_on_the_roll():
    points = face()
    centre, side, angle = upright(points)
    turn = np.deg2rad(25)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    turned = upright(points @ rotation.T)
    np.testing.assert_allclose(turned[0], rotation @ centre, atol=1e-9)
    assert abs(turned[1] - side) < 1e-9 and abs(turned[2] - angle - turn) < 1e-9


def test_augmented_points_stay_on_their_pixels():
    # A bright dot under one point must still lie under it after every turn, squeeze and mirror.
    points = face()
    hits = 0
    for seed in range(40):
        k = seed % mesh.P
        # The mirror sends point k to FLIP[k]'s place in the list, so both name the same dot.
        crop = np.zeros((192, 192, 3), np.uint8)
        cv2.circle(crop, tuple(int(v) for v in points[k]), 4, (255, 255, 255), -1)
        image, own = augment.face(crop, points, 128, np.random.default_rng(seed))
        assert own.shape == (mesh.P, 2) and image.shape == (128, 128, 3)
        candidates = [own[k], own[mesh.FLIP[k]]]
        grey = cv2.GaussianBlur(image.astype(np.float32).mean(2), (0, 0), 2)
        y, x = np.unravel_index(grey.argmax(), grey.shape)
        hits += min(np.linalg.norm(c * 128 - [x, y]) for c in candidates) < 5
    # Occlusion may cover or outshine some of them.
    assert hits >= 25


def test_bent_points_stay_on_their_pixels():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        point = rng.uniform(0.2, 0.8, 2)
        y, x = (np.mgrid[:128, :128] + 0.5) / 128
        blob = np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * 0.02**2))
        image = np.repeat((255 * blob).astype(np.uint8)[..., None], 3, 2)
        bent, moved = augment.bend(image, point[None], rng, amplitude=0.03)
        weight = bent[..., 0].astype(float)
        centre = [(weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()]
        np.testing.assert_allclose(moved[0], centre, atol=0.6 / 128)
