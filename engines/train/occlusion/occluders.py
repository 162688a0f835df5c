"""Things that get in front of a mouth: how much of each pixel they cover, float 0..1 [n, n], and their colours, uint8 RGB [n, n, 3].

Each is drawn for a view of `n` pixels at a place near `at` (pixels), with `skin` the face's own colour, for what is skin as well.
"""

import cv2
import numpy as np

KINDS = ("hand", "fist", "bar", "microphone", "cup", "phone", "blob", "veil", "strands", "rim", "food")
SHARES = np.array([0.24, 0.05, 0.1, 0.12, 0.08, 0.07, 0.14, 0.07, 0.06, 0.03, 0.04])
# What training draws: more of what is learned worst.
TRAINED = SHARES * [1, 1, 1.5, 1, 1, 0.8, 1, 1, 1.7, 1.7, 1.7]
TRAINED /= TRAINED.sum()


def filled(n, draw):
    """Coverage of what `draw(canvas, scale)` fills at twice the size: edges are soft."""
    canvas = np.zeros((2 * n, 2 * n), np.uint8)
    draw(canvas, 2.0)
    return cv2.resize(canvas, (n, n), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def polygon(canvas, points, scale, value=255):
    cv2.fillPoly(canvas, [np.round(np.asarray(points) * scale * 16).astype(np.int32)], value, cv2.LINE_8, 4)


def turned(points, angle, at):
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray(points) @ np.array([[c, s], [-s, c]]) + at


def texture(rng, n, patches, colour=None):
    """A surface: a gradient, noise, stripes, or a piece of a real picture; of about `colour` where one is given."""
    kind = rng.random()
    if kind < 0.4 and len(patches):
        piece = patches[rng.integers(len(patches))]
        side = int(rng.integers(24, piece.shape[0] + 1))
        x, y = rng.integers(0, piece.shape[0] - side + 1, 2)
        out = cv2.resize(piece[y : y + side, x : x + side], (n, n), interpolation=cv2.INTER_LINEAR).astype(np.float32)
        if rng.random() < 0.3:
            out = out - out.mean((0, 1)) + rng.uniform(20, 235, 3)
    else:
        base = rng.uniform(0, 255) + rng.normal(0, 35, 3) * (rng.random() < 0.75)
        if rng.random() < 0.2:
            base = np.full(3, rng.uniform(5, 45))
        out = np.broadcast_to(base.astype(np.float32), (n, n, 3)).copy()
        grain = rng.random()
        if grain < 0.35:
            side = int(rng.integers(2, 40))
            noise = rng.normal(0, rng.uniform(5, 45), (side, side, 1 if rng.random() < 0.7 else 3)).astype(np.float32)
            noise = cv2.resize(noise, (n, n), interpolation=cv2.INTER_LINEAR)
            out += noise if noise.ndim == 3 else noise[..., None]
        elif grain < 0.5:
            y, x = np.mgrid[:n, :n].astype(np.float32)
            angle, period = rng.uniform(0, np.pi), rng.uniform(3, 30)
            wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period)
            out += (np.sign(wave) if rng.random() < 0.5 else wave)[..., None] * rng.normal(0, 40, 3).astype(np.float32)
    if colour is not None:
        out = out * 0.25 + colour - out.mean((0, 1)) * 0.25
    return shaded(out, rng)


def shaded(colour, rng, amount=50):
    """With light that falls from a side."""
    n = colour.shape[0]
    y, x = np.mgrid[:n, :n].astype(np.float32) / n - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    return np.clip(colour + ((x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(-amount, amount) * 2)[..., None], 0, 255).astype(np.uint8)


def skin_of(skin, rng):
    """The colour of a hand: the face's own, somewhat darker or lighter, now and then somebody else's or a glove's."""
    if rng.random() < 0.15:
        return rng.uniform(10, 245, 3)
    tone = skin * float(np.exp(rng.normal(-0.05, 0.18))) + rng.normal(0, 5, 3)
    return np.clip(tone, 5, 250)


def hand(rng, n, at, skin, bank, patches):
    sprite = bank[rng.integers(len(bank))]
    side = sprite.shape[0]
    scale, angle = n / side * rng.uniform(0.9, 2.1), rng.uniform(-np.pi, np.pi)
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    # The middle of what is drawn, or one of its pixels, comes to the place.
    ys, xs = np.nonzero(sprite[:, :, 3] > 128)
    k = rng.integers(len(ys))
    anchor = np.array([xs[k], ys[k]]) * 0.6 + np.array([xs.mean(), ys.mean()]) * 0.4
    matrix = np.array([[c, -s, 0], [s, c, 0]])
    matrix[:, 2] = at - matrix[:, :2] @ anchor
    out = cv2.warpAffine(sprite, matrix, (n, n), flags=cv2.INTER_LINEAR)
    grey, alpha = out[:, :, :1].astype(np.float32), out[:, :, 3].astype(np.float32) / 255
    colour = skin_of(skin, rng)
    shade = grey / 140
    # Creases and knuckles are redder than skin in light.
    shown = colour * np.power(np.maximum(shade, 0.02), [0.85, 1.05, 1.1])
    grain = cv2.resize(rng.normal(0, rng.uniform(0, 7), (n // 2, n // 2)).astype(np.float32), (n, n))
    return alpha, np.clip(shown + grain[..., None], 0, 255).astype(np.uint8)


def fist(rng, n, at, skin, bank, patches):
    """Fingers or knuckles close by: a row of capsules of skin with dark lines between them."""
    count, width, length = int(rng.integers(1, 5)), n * rng.uniform(0.07, 0.13), n * rng.uniform(0.2, 0.7)
    angle, colour = rng.uniform(-np.pi, np.pi), skin_of(skin, rng)
    alpha, shown = np.zeros((n, n), np.float32), np.zeros((n, n, 3), np.float32)
    for k in range(count):
        long = length * rng.uniform(0.8, 1.1)
        ends = turned([[(k - (count - 1) / 2) * width * 0.97, 0], [(k - (count - 1) / 2) * width * 0.97, -long]], angle, at)
        y, x = np.mgrid[:n, :n].astype(np.float32)
        d = ends[1] - ends[0]
        t = np.clip(((x - ends[0, 0]) * d[0] + (y - ends[0, 1]) * d[1]) / (d @ d), 0, 1)
        away = np.hypot(x - ends[0, 0] - t * d[0], y - ends[0, 1] - t * d[1]) / (width / 2)
        one = np.clip((1 - away) * width / 2 + 0.5, 0, 1)
        light = np.sqrt(np.clip(1 - (away * 0.93) ** 2, 0.05, 1)) * rng.uniform(0.85, 1.1)
        shown = np.where(one[..., None] > 0, shown * (1 - one[..., None]) + colour * light[..., None] * one[..., None], shown)
        alpha = np.maximum(alpha, one)
    return alpha, np.clip(shown / np.maximum(alpha, 0.02)[..., None], 0, 255).astype(np.uint8)


def bar(rng, n, at, skin, bank, patches):
    """A pen, a spoon, a straw, a stand, a strap: long and straight or slightly bent, often beyond the picture."""
    half, length = n * rng.choice([rng.uniform(0.01, 0.03), rng.uniform(0.03, 0.1)]), n * rng.uniform(0.3, 1.6)
    x = np.linspace(-0.5, 0.5 if rng.random() < 0.5 else 0.0, 9) * length
    bent = rng.normal(0, 0.04) * length * (np.cos(x / length * np.pi) - 1)
    taper = np.linspace(1, rng.uniform(0.5, 1.5), 9)
    outline = np.concatenate([np.stack([x, bent - half * taper], 1), np.stack([x, bent + half * taper], 1)[::-1]])
    outline = turned(outline, rng.uniform(0, 2 * np.pi), at)
    return filled(n, lambda canvas, s: polygon(canvas, outline, s)), texture(rng, n, patches)


def microphone(rng, n, at, skin, bank, patches):
    """A ball or capsule with a grille and a handle, from below or a side, or the foam of a headset's."""
    radius = n * rng.uniform(0.05, 0.17)
    angle = rng.normal(np.pi / 2, 0.7)
    way = np.array([np.cos(angle), np.sin(angle)])
    side = np.array([-way[1], way[0]])
    long = rng.uniform(1.0, 1.8)
    handle, thin = n * rng.uniform(0.4, 1.2), radius * rng.uniform(0.35, 0.8)
    if rng.random() < 0.3:
        thin = max(0.6, radius * 0.12)

    def draw(canvas, s):
        cv2.ellipse(canvas, tuple(int(v * s * 16) for v in at), (int(radius * long * s * 16), int(radius * s * 16)), np.degrees(angle), 0, 360, 255, -1,
                    cv2.LINE_8, 4)

    def stick(canvas, s):
        polygon(canvas, [at + side * thin, at - side * thin, at + way * handle - side * thin, at + way * handle + side * thin], s)

    ball, stem = filled(n, draw), filled(n, stick)
    dark = rng.random() < 0.7
    base = np.full(3, rng.uniform(5, 70) if dark else rng.uniform(90, 220)) + rng.normal(0, 8, 3)
    if rng.random() < 0.15:
        base = rng.uniform(0, 255, 3)
    y, x = np.mgrid[:n, :n].astype(np.float32)
    period = rng.uniform(2.0, 5.0)
    mesh = np.sin((x + y) * 2 * np.pi / period) * np.sin((x - y) * 2 * np.pi / period)
    light = at + rng.normal(0, 0.5, 2) * radius - [0, radius * 0.4]
    gloss = np.exp(-((x - light[0]) ** 2 + (y - light[1]) ** 2) / (radius * rng.uniform(0.4, 0.9)) ** 2)
    head = base + (mesh * rng.uniform(0, 35))[..., None] + (gloss * rng.uniform(0, 110))[..., None]
    grip = np.full(3, rng.uniform(5, 60)) if rng.random() < 0.7 else rng.uniform(0, 255, 3)
    across = ((x - at[0]) * side[0] + (y - at[1]) * side[1]) / max(thin, 1)
    grip = grip + (np.exp(-((across - rng.uniform(-0.5, 0.5)) ** 2) * 6) * rng.uniform(0, 90))[..., None]
    colour = head * ball[..., None] + grip * (1 - ball[..., None])
    return np.maximum(ball, stem), np.clip(colour, 0, 255).astype(np.uint8)


def cup(rng, n, at, skin, bank, patches):
    """A cup, a glass or a bottle's neck: a tapered body, an ellipse for its rim; glass lets the face through."""
    wide, tall, taper = n * rng.uniform(0.12, 0.34), n * rng.uniform(0.3, 0.8), rng.uniform(0.65, 1.1)
    flat = rng.uniform(0.08, 0.35)
    t = np.linspace(0, np.pi, 12)
    rim = np.stack([np.cos(t) * wide, -np.sin(t) * wide * flat], 1)
    base = np.stack([-np.cos(t) * wide * taper, np.sin(t) * wide * taper * flat + tall], 1)
    outline = turned(np.concatenate([rim, base]), rng.normal(0, 0.35), at)
    alpha = filled(n, lambda canvas, s: polygon(canvas, outline, s))
    colour = texture(rng, n, patches).astype(np.float32)
    y, x = np.mgrid[:n, :n].astype(np.float32)
    across = (x - at[0]) / wide
    colour += (rng.uniform(-60, 20) * across**2 + rng.uniform(0, 60) * np.exp(-((across - rng.uniform(-0.6, 0.6)) ** 2) * 12))[..., None]
    inside = filled(n, lambda canvas, s: cv2.ellipse(canvas, tuple(int(v * s) for v in at), (int(wide * s), max(1, int(wide * flat * s))), 0, 0, 360, 255, -1))
    if rng.random() < 0.5:
        colour = colour * (1 - inside[..., None]) + (colour * rng.uniform(0.3, 1.2)) * inside[..., None]
    return alpha, np.clip(colour, 0, 255).astype(np.uint8)


def phone(rng, n, at, skin, bank, patches):
    """A rectangle with rounded corners: a phone, a card, a book, a sheet of paper."""
    wide, tall = n * rng.uniform(0.12, 0.45), n * rng.uniform(0.2, 0.6)
    radius, angle = min(wide, tall) * rng.uniform(0, 0.4), rng.uniform(0, np.pi)
    shear = np.array([[1, rng.normal(0, 0.2)], [rng.normal(0, 0.1), 1]])

    def rounded(w, h, r):
        t = np.linspace(0, np.pi / 2, 5)
        corner = np.stack([np.cos(t), np.sin(t)], 1) * r
        arcs = [turned(corner, q * np.pi / 2, centre) for q, centre in enumerate([(w - r, h - r), (r - w, h - r), (r - w, r - h), (w - r, r - h)])]
        return turned(np.concatenate(arcs) @ shear.T, angle, at)

    alpha = filled(n, lambda canvas, s: polygon(canvas, rounded(wide, tall, radius), s))
    colour = texture(rng, n, patches)
    if rng.random() < 0.5:
        screen = filled(n, lambda canvas, s: polygon(canvas, rounded(wide * 0.88, tall * 0.9, radius * 0.6), s))[..., None]
        colour = (colour * (1 - screen) + texture(rng, n, patches) * screen).astype(np.uint8)
    return alpha, colour


def contour(rng, radius, rough):
    """A closed curve: a circle whose radius is a random Fourier series."""
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    r = np.ones(64)
    for k in range(1, 7):
        r += rng.normal(0, rough / k) * np.cos(k * t + rng.uniform(0, 2 * np.pi))
    return np.stack([np.cos(t), np.sin(t)], 1) * (radius * np.clip(r, 0.25, 2.2))[:, None]


def blob(rng, n, at, skin, bank, patches):
    outline = contour(rng, n * rng.uniform(0.06, 0.32), rng.uniform(0.05, 0.45)) * [rng.uniform(0.6, 1.6), 1]
    outline = turned(outline, rng.uniform(0, np.pi), at)
    colour = texture(rng, n, patches, skin_of(skin, rng) if rng.random() < 0.3 else None)
    return filled(n, lambda canvas, s: polygon(canvas, outline, s)), colour


def veil(rng, n, at, skin, bank, patches):
    """Cloth from one edge of the picture on: a mask, a scarf, a collar, a sleeve, a sheet of paper before the chin."""
    x = np.linspace(-1.2, 1.2, 24) * n
    edge = sum(rng.normal(0, 0.06 / k) * n * np.cos(k * np.pi * x / n / 1.2 + rng.uniform(0, 6)) for k in range(1, 5)) + rng.normal(0, 0.15) * x**2 / n
    outline = np.concatenate([np.stack([x, edge], 1), [[1.2 * n, 2 * n], [-1.2 * n, 2 * n]]])
    angle = rng.normal(0, 0.25) if rng.random() < 0.7 else rng.uniform(0, 2 * np.pi)
    outline = turned(outline, angle, at)
    colour = texture(rng, n, patches).astype(np.float32)
    y, xx = np.mgrid[:n, :n].astype(np.float32)
    folds = np.sin((y * np.cos(angle) + xx * np.sin(angle)) * 2 * np.pi / rng.uniform(8, 30) + xx * rng.normal(0, 0.06))
    return filled(n, lambda canvas, s: polygon(canvas, outline, s)), np.clip(colour + (folds * rng.uniform(0, 25))[..., None], 0, 255).astype(np.uint8)


def strands(rng, n, at, skin, bank, patches):
    """Hair that has fallen into the face: a lock, or single strands."""
    thick = rng.random() < 0.6
    count = int(rng.integers(12, 60) if thick else rng.integers(1, 6))
    spread = n * (rng.uniform(0.03, 0.12) if thick else rng.uniform(0.02, 0.2))
    t = np.linspace(0, 1, 20)[:, None]
    start = np.array([rng.uniform(-0.2, 1.2) * n, -0.1 * n])
    end = np.array([start[0] + rng.normal(0, 0.3) * n, rng.uniform(0.6, 1.2) * n])
    bend = np.asarray(at, float)
    middle = (1 - t) ** 2 * start + 2 * t * (1 - t) * (2 * bend - (start + end) / 2) + t**2 * end
    base = np.clip(rng.choice([rng.uniform(5, 60), rng.uniform(60, 190)]) * np.array([1.0, rng.uniform(0.7, 1), rng.uniform(0.4, 1)]), 0, 255)
    canvas = np.zeros((2 * n, 2 * n, 4), np.uint8)
    for _ in range(count):
        line = middle + rng.normal(0, spread, 2) * np.linspace(0.5, 1.2, 20)[:, None] + rng.normal(0, 1) * np.sin(t * 6) * n * 0.01
        tone = np.clip(base * rng.uniform(0.6, 1.5), 0, 255)
        cv2.polylines(canvas, [np.round(line * 32).astype(np.int32)], False, (*map(float, tone), 255), int(rng.integers(1, 4)), cv2.LINE_AA, 4)
    canvas = cv2.resize(canvas, (n, n), interpolation=cv2.INTER_AREA).astype(np.float32)
    alpha = canvas[:, :, 3] / 255
    return alpha, np.clip(canvas[:, :, :3] / np.maximum(alpha, 0.05)[..., None], 0, 255).astype(np.uint8)


def rim(rng, n, at, skin, bank, patches):
    """The lower rims of glasses, or earphones' cables: thin closed or open curves."""
    size, width = n * rng.uniform(0.12, 0.24), max(1, int(n * rng.uniform(0.01, 0.035) * 2))
    colour = np.clip(np.full(3, rng.choice([rng.uniform(0, 60), rng.uniform(60, 230)])) + rng.normal(0, 15, 3), 0, 255)
    bridge = n * rng.uniform(0.4, 0.52)
    high = n * rng.uniform(0.05, 0.4)

    def draw(canvas, s):
        for side in (-0.5, 0.5):
            at = n / 2 + side * bridge
            cv2.ellipse(canvas, (int(at * s), int(high * s)), (int(size * s), int(size * rng.uniform(0.6, 1) * s)), 0, 0, 360, 255, width, cv2.LINE_AA)

    return filled(n, draw), np.broadcast_to(colour.astype(np.uint8), (n, n, 3)).copy()


def food(rng, n, at, skin, bank, patches):
    """A bite of something at the mouth, with a crumbly surface."""
    outline = turned(contour(rng, n * rng.uniform(0.05, 0.2), rng.uniform(0.05, 0.25)) * [rng.uniform(0.7, 2), 1], rng.uniform(0, np.pi), at)
    base = np.array([rng.uniform(90, 240), rng.uniform(40, 200), rng.uniform(10, 120)])
    grain = cv2.resize(rng.normal(0, 28, (n // 3, n // 3, 3)).astype(np.float32), (n, n), interpolation=cv2.INTER_LINEAR)
    return filled(n, lambda canvas, s: polygon(canvas, outline, s)), shaded(base + grain, rng)


def draw(kind, *arguments):
    return globals()[kind](*arguments)
