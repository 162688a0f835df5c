"""Random views of a face crop (uint8 RGB, [192, 192, 3], the face's box 1 / 2.2 of its side) and its points."""

import cv2
import numpy as np

from .geometry import CROP_SCALE, cv_matrix, square, transform
from .mesh import FLIP


def _box(points):
    low, high = points.min(0), points.max(0)
    return (low + high) / 2, float((high - low).max()) * CROP_SCALE


def _view(crop, points, centre, side, angle, pixels, border, value=(0, 0, 0)):
    matrix = square(centre, side, angle, pixels)
    image = cv2.warpAffine(crop, cv_matrix(matrix), (pixels, pixels), flags=cv2.INTER_LINEAR, borderMode=border, borderValue=value)
    return image, transform(matrix, points) / pixels


def plain(crop, points, pixels, rng, jitter):
    """The tracker's own crop with its centre and size off by normal deviates of `jitter` of the side (size: half of it)."""
    centre, side = _box(points)
    centre = centre + rng.normal(0, jitter / 2, 2) * side
    image, own = _view(crop, points, centre, side * float(np.exp(rng.normal(0, jitter))), 0.0, pixels, cv2.BORDER_CONSTANT)
    return image, own.astype(np.float32)


def face(crop, points, pixels, rng):
    """An augmented crop and its 111 points in unit coordinates."""
    centre, side = _box(points)
    if rng.random() < 0.5:
        crop = cv2.flip(crop, 1)
        width = crop.shape[1]
        points = points[FLIP] * [-1, 1] + [width, 0]
        centre = np.array([width - centre[0], centre[1]])
    reach = 20 if rng.random() < 0.85 else 45
    angle = np.deg2rad(rng.uniform(-reach, reach) if rng.random() < 0.6 else rng.normal(0, 5))
    centre = centre + rng.normal(0, 0.05, 2) * side
    side = side * float(np.exp(rng.uniform(np.log(0.8), np.log(1.25))))
    border = (cv2.BORDER_CONSTANT, cv2.BORDER_REFLECT_101, cv2.BORDER_REPLICATE)[rng.integers(3)]
    value = tuple(int(v) for v in rng.integers(0, 256, 3))
    image, own = _view(crop, points, centre, side, angle, pixels, border, value)
    if rng.random() < 0.25:
        # A slight squeeze: other head shapes, other lenses.
        f = float(rng.uniform(0.9, 1.1))
        m = np.array([[f, 0, (1 - f) * pixels / 2], [0, 1, 0]])
        image = cv2.warpAffine(image, m, (pixels, pixels), borderMode=cv2.BORDER_REPLICATE)
        own = (own - [0.5, 0]) * [f, 1] + [0.5, 0] + [(f - 1) * 0.5 / pixels, 0]
    if rng.random() < 0.6:
        image, own = bend(image, own, rng)
    image = colour(image, rng)
    if rng.random() < 0.3:
        image = occlude(image, rng)
    return degrade(image, rng), own.astype(np.float32)


def bend(image, points, rng, amplitude=0.02):
    """A smooth random warp, so that few people stand for many head and mouth shapes.

    The field is a sum of plane waves at most 1.5 periods long across the crop, its standard deviation at most `amplitude` of the side in x and in y.
    """
    waves = rng.uniform(-1.5, 1.5, (4, 2)) * 2 * np.pi
    phase = rng.uniform(0, 2 * np.pi, 4)
    size = rng.normal(0, 1, (4, 2)) * amplitude * rng.uniform(0.2, 1) / np.sqrt(2)
    n = image.shape[0]
    unit = (np.arange(n) + 0.5) / n
    field = np.zeros((n, n, 2))
    for wave, shift, strength in zip(waves, phase, size):
        # sin(a + b) by its parts: the wave is two outer products.
        a, b = unit * wave[0] + shift, unit * wave[1]
        field += (np.outer(np.cos(b), np.sin(a)) + np.outer(np.sin(b), np.cos(a)))[..., None] * strength
    grid = (np.stack(np.meshgrid(unit, unit), 2) + field).astype(np.float32) * n - 0.5
    image = cv2.remap(image, grid, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    # The new place q of a point p solves q + field(q) = p; the field is gentle, so a few rounds settle it.
    moved = points
    for _ in range(6):
        moved = points - np.sin(moved @ waves.T + phase) @ size
    return image, moved


def no_face(crop, points, background, pixels, rng):
    """A crop that is no face: background, a badly placed crop, or a plain texture."""
    kind = rng.random()
    if kind < 0.5:
        image = background[rng.integers(len(background))]
        image = image[:, ::-1] if rng.random() < 0.5 else image
        if image.shape[0] != pixels:
            image = cv2.resize(image, (pixels, pixels))
        image = np.ascontiguousarray(image)
    elif kind < 0.9:
        centre, side = _box(points)
        direction = rng.uniform(0, 2 * np.pi)
        far = rng.uniform(0.5, 0.9) * side
        off = np.array([np.cos(direction), np.sin(direction)]) * far
        factor = float(np.exp(rng.uniform(np.log(0.6), np.log(1.3))))
        if rng.random() < 0.3:
            off, factor = off * 0.2, float(rng.choice([rng.uniform(0.25, 0.4), rng.uniform(2.6, 4.0)]))
        image, _ = _view(crop, points, centre + off, side * factor, rng.uniform(-0.5, 0.5), pixels, cv2.BORDER_REPLICATE)
    else:
        small = int(rng.integers(1, 17))
        image = cv2.resize(rng.integers(0, 256, (small, small, 3), np.uint8), (pixels, pixels), interpolation=cv2.INTER_LINEAR)
    return degrade(colour(image, rng), rng)


def colour(image, rng):
    """Gain, offset and gamma, each partly a channel's own; now and then grey."""
    x = np.arange(256, dtype=np.float32)[:, None] / 255
    gain = float(np.exp(rng.normal(0, 0.2))) * np.exp(rng.normal(0, 0.07, 3))
    gamma = np.exp(rng.normal(0, 0.2))
    table = np.clip((x**gamma - 0.5) * float(np.exp(rng.normal(0, 0.15))) + 0.5, 0, 1) * gain + rng.normal(0, 0.05)
    image = cv2.LUT(image, (np.clip(table, 0, 1) * 255).astype(np.uint8).reshape(256, 1, 3))
    if rng.random() < 0.12:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None], 3, 2)
    return image


def occlude(image, rng):
    """A hand, a microphone, a mask: one or two turned rectangles or ellipses of one colour or of the picture's own texture."""
    image, n = image.copy(), image.shape[0]
    for _ in range(rng.integers(1, 3)):
        mask = np.zeros((n, n), np.uint8)
        centre = tuple(int(v) for v in rng.uniform(0, n, 2))
        size = tuple(int(v) for v in rng.uniform(0.06, 0.28, 2) * n)
        if rng.random() < 0.5:
            cv2.ellipse(mask, centre, size, float(rng.uniform(0, 180)), 0, 360, 255, -1)
        else:
            corners = cv2.boxPoints((centre, (2 * size[0], 2 * size[1]), float(rng.uniform(0, 90))))
            cv2.fillPoly(mask, [corners.astype(np.int32)], 255)
        other = np.roll(image, tuple(int(v) for v in rng.integers(0, n, 2)), (0, 1))
        if rng.random() < 0.6:
            other = np.broadcast_to(rng.integers(0, 256, 3).astype(np.uint8), image.shape)
        image[mask > 0] = other[mask > 0]
    return image


def degrade(image, rng):
    """What cameras and codecs do: low resolution, blur along a line or all round, noise, block compression."""
    if rng.random() < 0.3:
        height, width = image.shape[:2]
        f = rng.uniform(0.3, 0.9)
        small = cv2.resize(image, (int(width * f), int(height * f)), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.2:
        if rng.random() < 0.5:
            image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 2.0)))
        else:
            length = int(rng.integers(3, 8))
            kernel = np.zeros((length, length), np.float32)
            a, half = rng.uniform(0, np.pi), (length - 1) / 2
            for t in np.linspace(-half, half, 3 * length):
                kernel[int(round(half + t * np.sin(a))), int(round(half + t * np.cos(a)))] = 1
            image = cv2.filter2D(image, -1, kernel / kernel.sum())
    if rng.random() < 0.25:
        noise = rng.normal(0, rng.uniform(2, 14), image.shape[:2] + ((3,) if rng.random() < 0.5 else (1,)))
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.25:
        image = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(12, 70))])[1], cv2.IMREAD_COLOR)
    return image
