"""The person: MakeHuman's base mesh shaped by its targets, posed by expression units, with eyes, teeth and tongue.

Everything is in decimetres in the rest pose's frame; `Character.pose` moves the head, the torso follows a little.
"""
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from makehuman import load_fitted, load_obj, load_target

SHAPE = {
    "macrodetails/caucasian-female-young": 0.72,
    "macrodetails/asian-female-young": 0.16,
    "macrodetails/african-female-young": 0.12,
    "macrodetails/universal-female-young-averagemuscle-averageweight": 1.0,
    "head/head-oval": 0.3,
    "head/head-invertedtriangular": 0.5,
    "head/head-fat-incr": 0.12,
    "head/head-scale-vert-decr": 0.15,
    "forehead/forehead-scale-vert-decr": 0.25,
    "chin/chin-width-decr": 0.35,
    "chin/chin-height-decr": 0.12,
    "neck/neck-scale-horiz-decr": 0.45,
    "neck/neck-scale-depth-decr": 0.25,
    "nose/nose-scale-horiz-decr": 0.3,
    "nose/nose-width2-decr": 0.2,
    "nose/nose-point-up": 0.15,
    "mouth/mouth-upperlip-volume-incr": 0.45,
    "mouth/mouth-lowerlip-volume-incr": 0.15,
    "mouth/mouth-upperlip-height-incr": 0.2,
    "mouth/mouth-scale-horiz-decr": 0.05,
    "mouth/mouth-angles-up": 0.12,
    **{f"eyes/{s}-eye-scale-incr": 0.75 for s in "lr"},
    **{f"eyes/{s}-eye-height2-incr": 0.45 for s in "lr"},
    **{f"eyes/{s}-eye-bag-decr": 0.4 for s in "lr"},
    **{f"cheek/{s}-cheek-volume-incr": 0.15 for s in "lr"},
    **{f"cheek/{s}-cheek-bones-incr": 0.2 for s in "lr"},
    **{f"ears/{s}-ear-wing-decr": 0.45 for s in "lr"},
    **{f"ears/{s}-ear-scale-decr": 0.35 for s in "lr"},
    **{f"ears/{s}-ear-lobe-decr": 1.0 for s in "lr"},
}
CLOSED = {"mouth-open": -0.06, "mouth-compression": 0.10, "mouth-corner-puller": 0.17,
          "eyebrows-left-up": 0.18, "eyebrows-right-up": 0.18}  # the base mesh's lips rest a little apart
ARM_ANGLE = np.radians(33)  # from the base mesh's spread arms towards hanging ones
SKIN_FLOOR = 3.2  # nothing below this height is seen


def rotation(axis, angle):
    """Rotation matrix about coordinate axis 0, 1 or 2, counter-clockwise, radians."""
    c, s = np.cos(angle), np.sin(angle)
    m = np.eye(3)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    m[i, i], m[i, j], m[j, i], m[j, j] = c, -s, s, c
    return m


def smoothstep(low, high, x):
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def rigid(source, target):
    """Least-squares rotation and translation that take points `source` to `target` (Kabsch)."""
    a, b = source.mean(0), target.mean(0)
    u, _, vt = np.linalg.svd((source - a).T @ (target - b))
    d = np.diag([1, 1, np.sign(np.linalg.det(vt.T @ u.T))])
    r = vt.T @ d @ u.T
    return r, b - r @ a


@dataclass
class Pose:
    """One frame. Angles in radians; `units` are weights of expression targets."""

    units: dict = field(default_factory=dict)
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    gaze: tuple = (0.0, 0.0)  # yaw, pitch of both eyes relative to the head
    breath: float = 0.0  # 0 out, 1 in
    sway: tuple = (0.0, 0.0)  # torso offset x, z


class Character:
    def __init__(self, assets):
        self.assets = Path(assets)
        self.base = load_obj(self.assets / "base.obj")
        count = len(self.base.vertices)
        rest = self.base.vertices.copy()
        for name, weight in SHAPE.items():
            rest += weight * self.target(name)
        self.units = {}
        folder = self.assets / "targets/expression/units/caucasian"
        for path in sorted(folder.glob("*.target.gz")):
            self.units[path.name.removesuffix(".target.gz")] = load_target(path, count)
        self.rest = rest
        group = lambda name: np.unique(self.base.faces[self.base.groups == name])
        self.group = group
        self.neck = rest[group("joint-neck")].mean(0)
        self.shoulders = {s: rest[group(f"joint-{s}-shoulder")].mean(0) for s in "lr"}
        self.eyes = {}
        for side in "lr":
            ring = rest[group(f"helper-{side}-eye")]
            a = np.c_[2 * ring, np.ones(len(ring))]
            solution = np.linalg.lstsq(a, (ring**2).sum(1), rcond=None)[0]
            centre = solution[:3]
            self.eyes[side] = (centre, float(np.sqrt(solution[3] + centre @ centre)))
        for side, sign in (("l", 1), ("r", -1)):
            joint = self.shoulders[side]
            turned = (rest - joint) @ rotation(2, -sign * ARM_ANGLE).T + joint
            along = sign * (rest[:, 0] - joint[0]) - 0.35 * (rest[:, 1] - joint[1])
            w = smoothstep(-0.45, 0.65, along)[:, None]
            rest = rest * (1 - w) + turned * w
        self.rest = rest
        body = self.base.faces[self.base.groups == "body"]
        self.body = body[rest[body][:, :, 1].mean(1) > SKIN_FLOOR]
        self.closed = self.apply(rest, CLOSED)
        self.teeth = load_fitted(self.assets / "teeth/teeth_base/teeth_base.mhclo")
        self.tongue = load_fitted(self.assets / "tongue/tongue01/tongue01.mhclo")
        self.teeth_rest = self.teeth.fit(rest)
        self.tongue_rest = self.tongue.fit(rest)

    def target(self, name):
        return load_target(self.assets / "targets" / f"{name}.target.gz", len(self.base.vertices))

    def apply(self, vertices, units):
        out = vertices.copy()
        for name, weight in units.items():
            if weight:
                out += weight * self.units[name]
        return out

    def face(self, pose):
        """Base vertices of the expression, the head still."""
        return self.apply(self.closed, pose.units)

    def jaw(self, face):
        """Rotation and translation of the lower jaw against rest."""
        lower = self.group("helper-lower-teeth")
        return rigid(self.rest[lower], face[lower])

    def head_weight(self, points):
        """How far rest points [n, 3] follow the head's turning, 0..1."""
        height = points[:, 1] + 0.35 * (points[:, 2] - self.neck[2])
        return smoothstep(self.neck[1] - 0.25, self.neck[1] + 0.75, height)

    def move(self, points, pose, weight=None):
        """Breathing, sway and turning of rest points [n, 3]; `weight`: their weight on the head."""
        w = (self.head_weight(points) if weight is None else weight).reshape(-1, 1)
        chest = np.exp(-(((points - [0, 4.2, 1.0]) / [1.6, 0.9, 1.2]) ** 2).sum(1))[:, None]
        out = points + pose.breath * (chest * (1 - w) * [0, 0.008, 0.05] + [0, 0.014, 0])
        # Blending the matrix with the identity is exact enough for the few degrees used here.
        turn = rotation(1, pose.yaw) @ rotation(0, pose.pitch) @ rotation(2, pose.roll)
        local = out - self.neck
        return local * (1 - w) + (local @ turn.T) * w + self.neck + np.array([pose.sway[0], 0, pose.sway[1]])

    def head_matrix(self, pose):
        """The same for points of full head weight: rotation [3, 3] and translation [3]."""
        turn = rotation(1, pose.yaw) @ rotation(0, pose.pitch) @ rotation(2, pose.roll)
        lift = np.array([0, 0.014 * pose.breath, 0])
        return turn, self.neck + turn @ (lift - self.neck) + [pose.sway[0], 0, pose.sway[1]]
