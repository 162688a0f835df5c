"""Hands: MakeHuman's base mesh (CC0) from the wrist on, its fingers bent at its own joints, shaded and drawn far to near.

The bending is linear blend skinning with weights by the distance to the bones, which is enough for a mask.
"""

from pathlib import Path

import cv2
import numpy as np

FINGERS = 5


def read(path):
    """Vertices [n, 3], quads of the body [m, 4] and the middle of each joint's cube by its name."""
    vertices, quads, joints, group = [], [], {}, ""
    for line in Path(path).read_text().splitlines():
        word, _, rest = line.partition(" ")
        if word == "v":
            vertices.append([float(v) for v in rest.split()])
        elif word == "g":
            group = rest.strip()
        elif word == "f":
            face = [int(v.split("/")[0]) - 1 for v in rest.split()]
            if group == "body":
                quads.append(face)
            elif group.startswith("joint-"):
                joints.setdefault(group[6:], set()).update(face)
    vertices = np.array(vertices)
    return vertices, np.array([q for q in quads if len(q) == 4]), {k: vertices[list(v)].mean(0) for k, v in joints.items()}


def rotation(axis, angle):
    """Rodrigues' formula."""
    x, y, z = axis / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


class Hand:
    def __init__(self, path):
        vertices, quads, joints = read(path)
        wrist, elbow = joints["l-hand"], joints["l-elbow"]
        along = (wrist - elbow) / np.linalg.norm(wrist - elbow)
        # The hand and a piece of the forearm, which shows in front of faces as well.
        reach = (vertices - wrist) @ along
        near = (reach > -0.6 * np.linalg.norm(wrist - elbow)) & (np.linalg.norm(vertices - wrist - along, axis=1) < 3.5)
        quads = quads[near[quads].all(1)]
        used, flat = np.unique(quads, return_inverse=True)
        self.vertices, self.quads = vertices[used], flat.reshape(quads.shape)
        self.bones = [[joints[f"l-finger-{f}-{j}"] for j in range(1, 5)] for f in range(1, FINGERS + 1)]
        self.wrist, self.along = wrist, along
        knuckles = self.bones[4][0] - self.bones[1][0]
        self.across = knuckles / np.linalg.norm(knuckles)
        self.palm = np.cross(self.along, self.across)
        self.weights = self._weights()

    def _weights(self):
        """[vertices, 1 + 15]: the palm, then three bones of each finger."""
        segments = [(self.wrist, self.bones[f][0]) for f in range(FINGERS)]
        distance = [np.min([self._distance(a, b) for a, b in segments] + [self._distance(self.wrist - 3 * self.along, self.wrist)], 0)]
        for finger in self.bones:
            distance += [self._distance(finger[j], finger[j + 1]) for j in range(3)]
        close = np.exp(-((np.stack(distance, 1) / 0.09) ** 2).clip(max=600) + (np.min(distance, 0) / 0.09)[:, None] ** 2)
        return close / close.sum(1, keepdims=True)

    def _distance(self, a, b):
        t = np.clip((self.vertices - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        return np.linalg.norm(self.vertices - a - t[:, None] * (b - a), axis=1)

    def pose(self, rng):
        """Vertices with the fingers bent and spread at random, alike but not the same."""
        curl = rng.choice([0.15, 0.5, 1.0]) * rng.uniform(0.2, 1.2)
        moved = [np.hstack([np.eye(3), np.zeros((3, 1))])]
        for f, finger in enumerate(self.bones):
            bend = np.clip(curl + rng.normal(0, 0.25), -0.1, 1.4) * (0.5 if f == 0 else 1)
            if f == 1 and rng.random() < 0.25:
                bend = rng.uniform(-0.1, 0.2)
            turn, shift = np.eye(3), np.zeros(3)
            for j in range(3):
                axis = self.across if f else self.along * 0.6 + self.palm * 0.6
                step = rotation(axis, -bend) if j else rotation(axis, -bend * 0.8) @ rotation(self.palm, rng.normal(0, 0.1))
                at = turn @ finger[j] + shift
                turn = turn @ step
                shift = at - turn @ finger[j]
                moved.append(np.hstack([turn, shift[:, None]]))
        homogeneous = np.hstack([self.vertices, np.ones((len(self.vertices), 1))])
        each = np.einsum("bij,vj->vbi", np.stack(moved), homogeneous)
        return (each * self.weights[:, :, None]).sum(1)

    def draw(self, rng, pixels):
        """RGBA uint8 [pixels, pixels, 4] of a grey hand: colour is for who pastes it."""
        points = self.pose(rng) - self.wrist - self.along * 0.9
        view = rotation(rng.normal(0, 1, 3), rng.uniform(0, np.pi)) if rng.random() < 0.35 else self._facing(rng)
        points = points @ view.T
        if rng.random() < 0.5:
            points[:, 0] *= -1
        scale = pixels * rng.uniform(0.2, 0.36)
        flat = (points[:, :2] * [1, -1] * scale / (1 - 0.08 * points[:, 2:3]) + pixels / 2)
        quads = points[self.quads]
        normal = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
        smooth = np.zeros_like(points)
        np.add.at(smooth, self.quads.ravel(), np.repeat(normal, 4, 0))
        normal = smooth[self.quads].mean(1)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
        light = rng.normal(0, 1, 3) + [0, 0.6, 1.2]
        light /= np.linalg.norm(light)
        # Seen from both sides of a thin mirror the winding differs: the side that is lit is the one that is seen.
        normal *= np.sign(normal[:, 2:3] + 1e-9)
        shade = 0.62 + rng.uniform(0.15, 0.45) * (normal @ light) - 0.12 * (1 - normal[:, 2])
        # Twice the size, drawn far to near, then averaged: edges are soft.
        big = np.zeros((2 * pixels, 2 * pixels, 2), np.uint8)
        corners = np.round(flat[self.quads] * 2 * 16).astype(np.int32)
        for k in np.argsort(quads[:, :, 2].mean(1)):
            cv2.fillConvexPoly(big, corners[k], (int(np.clip(shade[k], 0.05, 1) * 200), 255), shift=4)
        grey, alpha = cv2.split(cv2.resize(big, (pixels, pixels), interpolation=cv2.INTER_AREA))
        full = np.maximum(alpha.astype(np.float32), 1) / 255
        grey = np.clip(grey / full, 0, 255).astype(np.uint8)
        grey = cv2.GaussianBlur(grey, (0, 0), 1.0)
        return np.dstack([grey, grey, grey, alpha])

    def _facing(self, rng):
        """Fingers towards a random side of the picture, the back of the hand or its inside to the camera."""
        out = np.stack([self.across, self.along, self.palm * rng.choice([-1, 1])])
        if np.linalg.det(out) < 0:
            out[0] *= -1
        turn = rotation(np.array([0, 0, 1.0]), rng.uniform(-np.pi, np.pi))
        lean = rotation(np.array([1.0, 0, 0]), rng.normal(0, 0.5)) @ rotation(np.array([0, 1.0, 0]), rng.normal(0, 0.5))
        return turn @ lean @ out
