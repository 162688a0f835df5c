"""A picture for the network: a face, perhaps things before it, and what of it they cover."""

import cv2
import numpy as np

from common import augment, mesh
from common.geometry import cv_matrix, transform, umeyama

from . import occluders
from .data import to_packed

VIEW = 96
# The outline of what an engine pastes: the jaw, then over the cheeks and under the nose (engines/src/geometry/landmarks.rs).
OUTLINE = [*range(43, 58), 69, 90, 89, 91, 70]


def view(packed, points, rng, jitter):
    """The network's view of a packed picture, off as an alignment may be, and the points in its pixels."""
    place = to_packed()
    angle, size = rng.normal(0, 0.04 * jitter), float(np.exp(rng.normal(0, 0.05 * jitter)))
    shift = rng.normal(0, 0.025 * jitter, 2)
    c, s = np.cos(angle) * size, np.sin(angle) * size
    turn = np.array([[c, -s], [s, c]])
    # From unit coordinates of the aligned crop to those of the view, about the middle.
    unit = np.hstack([turn, (np.array([0.5, 0.5]) + shift - turn @ [0.5, 0.5])[:, None]])
    back = np.linalg.inv(place[:, :2])
    linear = unit[:, :2] @ back * VIEW
    matrix = np.hstack([linear, (unit[:, 2] * VIEW - linear @ place[:, 2])[:, None]])
    image = cv2.warpAffine(packed, cv_matrix(matrix), (VIEW, VIEW), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return image, transform(unit, points) * VIEW


def aside(packed, points, rng):
    """A head that is turned aside, about: one half of the face wider, the other narrower, aligned as that would be."""
    much = rng.uniform(0.3, 1.0) * rng.choice([-1, 1])
    side = packed.shape[1]
    place = to_packed()
    middle = transform(place, points[[94, 97]]).mean(0)[0]

    def moved(x):
        t = (x - middle) / (0.45 * side)
        return middle + (t + 0.5 * much * (np.clip(t, -1, 1) ** 2 - np.clip(np.abs(t) - 1, 0, None))) * 0.45 * side

    # Where each column comes from: the map rises, so it is turned round by looking up.
    grid = np.arange(-side, 2 * side, dtype=np.float64)
    back = np.interp(np.arange(side), np.maximum.accumulate(moved(grid)), grid).astype(np.float32)
    x, y = np.broadcast_to(back, (side, side)).copy(), np.repeat(np.arange(side, dtype=np.float32)[:, None], side, 1)
    image = cv2.remap(packed, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    at = transform(place, points)
    at[:, 0] = moved(at[:, 0])
    back = np.linalg.inv(place[:, :2])
    unit = (at - place[:, 2]) @ back.T
    again = umeyama(unit[mesh.ANCHORS], points[mesh.ANCHORS])
    linear = place[:, :2] @ again[:, :2] @ back
    matrix = np.hstack([linear, (place[:, :2] @ again[:, 2] + place[:, 2] - linear @ place[:, 2])[:, None]])
    return cv2.warpAffine(image, cv_matrix(matrix), (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), transform(again, unit)


def lower_face(points, grow=1.0):
    """Coverage of the lower face, 0..1 [VIEW, VIEW]."""
    outline = points[OUTLINE]
    middle = outline.mean(0)
    return occluders.filled(VIEW, lambda canvas, s: occluders.polygon(canvas, (outline - middle) * grow + middle, s))


def skin(image, points):
    """The colour of the cheeks."""
    at = np.clip(points[[69, 70, 73, 74]].astype(int), 0, VIEW - 1)
    return np.median(image[at[:, 1], at[:, 0]], 0).astype(np.float32)


def bearded(image, points, rng):
    """Stubble, a beard or a moustache: hair is face."""
    jaw, lips = points[43:58], points[:20]
    middle = lips.mean(0)
    cover = np.zeros((VIEW, VIEW), np.float32)
    if rng.random() < 0.75:
        high = rng.uniform(0.3, 0.9)
        outline = np.concatenate([jaw + (jaw - middle) * rng.uniform(0, 0.15), middle + (jaw - middle)[::-1] * [0.8, high * 0.3] * [1, rng.uniform(-1, 1)]])
        cover = occluders.filled(VIEW, lambda canvas, s: occluders.polygon(canvas, outline, s))
    if rng.random() < 0.7:
        a, b, top = points[0], points[10], points[81:84].mean(0)
        outline = np.array([a * 1.1 - middle * 0.1, (a + top) / 2, top - [0, 1], (b + top) / 2, b * 1.1 - middle * 0.1, *points[9:0:-1]])
        cover = np.maximum(cover, occluders.filled(VIEW, lambda canvas, s: occluders.polygon(canvas, outline, s)))
    cover = cv2.GaussianBlur(cover, (0, 0), rng.uniform(1.0, 4.0))
    mouth = occluders.filled(VIEW, lambda canvas, s: occluders.polygon(canvas, lips, s))
    cover *= 1 - cv2.GaussianBlur(mouth, (0, 0), 0.8)
    hair = rng.normal(0, 1, (VIEW, VIEW)).astype(np.float32)
    hair = cv2.GaussianBlur(hair, (0, 0), 0.5) + cv2.blur(hair, (1, int(rng.integers(2, 7)))) * 1.5
    tone = np.clip(rng.choice([rng.uniform(5, 60), rng.uniform(60, 220)]) * np.array([1, rng.uniform(0.75, 1), rng.uniform(0.5, 1)]), 0, 255)
    strength = rng.uniform(0.2, 0.95) * cover * np.clip(0.75 + 0.35 * hair, 0, 1)
    shown = tone + hair[..., None] * rng.uniform(4, 25)
    return np.clip(image + (shown - image) * strength[..., None], 0, 255).astype(np.uint8)


def opened(image, points, rng):
    """A mouth wide open: dark, with teeth and a tongue."""
    inner = points[20:40]
    middle, width = inner.mean(0), np.linalg.norm(points[20] - points[30])
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    tall = width * rng.uniform(0.15, 0.75)
    outline = middle + np.stack([np.cos(t) * width * rng.uniform(0.35, 0.5), np.sin(t) * tall * np.where(np.sin(t) > 0, 0.75, 0.35)], 1)
    fill = lambda shape: occluders.filled(VIEW, lambda canvas, s: occluders.polygon(canvas, shape, s))
    hole = fill(outline)
    lips = np.clip(fill((outline - middle) * 1.3 + middle) - hole, 0, 1)
    at = np.clip(points[15].astype(int), 0, VIEW - 1)
    red = image[at[1], at[0]].astype(np.float32)
    out = image + (red - image) * lips[..., None] * 0.8
    out = out + (np.array([rng.uniform(10, 70), rng.uniform(5, 30), rng.uniform(5, 30)]) - out) * hole[..., None]
    tone = np.full(3, rng.uniform(110, 240)) * [1, 0.98, rng.uniform(0.8, 1)]
    for side, chance in ((-1, 0.7), (1, 0.45)):
        if rng.random() < chance:
            line = middle[1] + side * tall * (0.35 if side < 0 else 0.75) * rng.uniform(0.3, 0.8)
            band = np.zeros((VIEW, VIEW), np.float32)
            first, last = (0, max(0, int(line))) if side < 0 else (min(VIEW, int(line)), VIEW)
            band[first:last] = 1
            teeth = band * hole * (0.9 + 0.1 * np.sign(np.sin(np.arange(VIEW) * 2 * np.pi / rng.uniform(4, 8))))
            out = out + (tone - out) * cv2.GaussianBlur(teeth.astype(np.float32), (0, 0), 0.5)[..., None]
    if rng.random() < 0.5:
        shape = middle + np.stack([np.cos(t) * width * 0.3, np.sin(t) * tall * 0.3 + tall * rng.uniform(0.2, 0.7)], 1)
        tongue = fill(shape) * (hole if rng.random() < 0.7 else 1)
        out = out + (np.array([rng.uniform(130, 220), rng.uniform(60, 120), rng.uniform(70, 130)]) - out) * tongue[..., None]
    return np.clip(out, 0, 255).astype(np.uint8)


def lit(image, rng):
    """Light from a side, or a shadow's edge across the face: it stays face."""
    y, x = np.mgrid[:VIEW, :VIEW].astype(np.float32) / VIEW - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle) - rng.uniform(-0.3, 0.3)
    soft = rng.uniform(0.02, 0.5)
    ramp = 1 / (1 + np.exp(-along / soft * 4))
    gain = 1 + (rng.uniform(0.25, 1.0) - 1) * ramp[..., None] * (1 + rng.normal(0, 0.08, 3))
    return np.clip(image * gain, 0, 255).astype(np.uint8)


def put(image, cover, kind, rng, hands, patches, tone, at):
    """One thing more in front of the picture; what it covers is added to `cover`."""
    alpha, colour = occluders.draw(kind, rng, VIEW, at, tone, hands, patches)
    if kind == "veil" and rng.random() < 0.25 or kind == "cup" and rng.random() < 0.15:
        alpha = alpha * rng.uniform(0.55, 0.95)
    blur = rng.random()
    if blur < 0.25:
        alpha = cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.4, 1.6))
    elif blur < 0.4:
        length = int(rng.integers(3, 10))
        kernel = np.zeros((length, length), np.float32)
        cv2.line(kernel, *[tuple(int(v) for v in rng.integers(0, length, 2)) for _ in range(2)], 1.0)
        alpha = cv2.filter2D(alpha, -1, kernel / max(kernel.sum(), 1))
        colour = cv2.filter2D(colour, -1, kernel / max(kernel.sum(), 1))
    if rng.random() < 0.4:
        # Its shadow falls on the face, which stays face.
        shift = np.float32([[1, 0, rng.normal(0, 4)], [0, 1, rng.normal(2, 4)]])
        shadow = cv2.warpAffine(cv2.GaussianBlur(alpha, (0, 0), rng.uniform(1.5, 5)), shift, (VIEW, VIEW))
        image = (image * (1 - rng.uniform(0.1, 0.6) * shadow[..., None])).astype(np.uint8)
    if rng.random() < 0.5:
        # Most of what is in a scene has the scene's light.
        gain = float(np.clip(image.mean() / max(float((colour * alpha[..., None]).sum() / max(alpha.sum() * 3, 1)), 10), 0.5, 1.6)) ** 0.5
        colour = np.clip(colour * gain, 0, 255)
    image = (image + (colour.astype(np.float32) - image) * alpha[..., None] + 0.5).clip(0, 255).astype(np.uint8)
    return image, 1 - (1 - cover) * (1 - alpha)


def place(points, rng):
    """Where a thing is likely to be: at the mouth, else anywhere over the lower face, else beyond its edge."""
    where = rng.random()
    if where < 0.4:
        return points[:20].mean(0) + rng.normal(0, 0.12, 2) * VIEW
    if where < 0.9:
        return np.array([rng.uniform(0.1, 0.9), rng.uniform(0.35, 1.0)]) * VIEW
    return rng.uniform(-0.1, 1.1, 2) * VIEW


def sample(packed, points, rng, hands, patches, jitter=1.0, kinds=None, clean=0.25, shares=occluders.SHARES):
    """(picture uint8 [VIEW, VIEW, 3], what is covered float [VIEW, VIEW], the lower face float [VIEW, VIEW])."""
    points = points.astype(np.float64)
    if rng.random() < 0.5:
        packed, points = cv2.flip(packed, 1), points[mesh.FLIP] * [-1, 1] + [1, 0]
    if rng.random() < 0.15:
        packed, points = aside(packed, points, rng)
    image, own = view(packed, points, rng, jitter)
    if rng.random() < 0.3:
        image, own = augment.bend(image, own / VIEW, rng)
        own = own * VIEW
    tone = skin(image, own)
    if rng.random() < 0.12:
        image = opened(image, own, rng)
    if rng.random() < 0.22:
        image = bearded(image, own, rng)
    if rng.random() < 0.2:
        image = lit(image, rng)
    cover = np.zeros((VIEW, VIEW), np.float32)
    if rng.random() >= clean:
        for _ in range(1 + (rng.random() < 0.25) + (rng.random() < 0.1)):
            kind = kinds[rng.integers(len(kinds))] if kinds else rng.choice(occluders.KINDS, p=shares)
            image, cover = put(image, cover, kind, rng, hands, patches, tone, place(own, rng))
    if rng.random() < 0.12:
        image = lit(image, rng)
    image = augment.degrade(augment.colour(image, rng), rng)
    return image, cover, lower_face(own)
