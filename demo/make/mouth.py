"""Teeth, gums and tongue: one mesh whose parts follow the skull or the jaw."""
import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

import subdivide


class Mouth:
    """`mask` [v, 4] tells the shader tooth, gum, tongue and lower row."""

    def __init__(self, character):
        c = self.character = character
        faces, n = c.teeth.mesh.faces, len(c.teeth_rest)
        a, b = np.repeat(faces[:, 0], 3), faces[:, 1:].ravel()
        label = connected_components(sp.coo_matrix((np.ones(len(a)), (a, b)), (n, n)), directed=False)[1]
        size = np.bincount(label)
        tooth = size[label] < 200  # each tooth is a piece of its own, the gums are one large piece
        smooth, tongue_faces = subdivide.catmull_clark(c.tongue.mesh.faces, len(c.tongue_rest))
        self.rest = np.concatenate([c.teeth_rest, smooth @ c.tongue_rest])
        self.tris = subdivide.triangles(np.concatenate([faces, tongue_faces + n]))
        middle = np.bincount(label, c.teeth_rest[:, 1]) / size
        split = (c.rest[c.group("helper-upper-teeth"), 1].min() + c.rest[c.group("helper-lower-teeth"), 1].max()) / 2
        self.tongue = np.arange(len(self.rest)) >= n
        self.lower = np.zeros(len(self.rest), bool)
        self.lower[:n] = np.where(tooth, middle[label], c.teeth_rest[:, 1]) < split
        self.mask = np.zeros((len(self.rest), 4))
        self.mask[:n, 0], self.mask[:n, 1] = tooth, ~tooth
        self.mask[:, 2], self.mask[:, 3] = self.tongue, self.lower

    def at(self, face):
        """Vertices for the base mesh's `face`, the head still: upper row with the skull, lower with the jaw, tongue mostly."""
        turn, shift = self.character.jaw(face)
        follow = np.where(self.tongue, 0.92, self.lower)[:, None]
        out = self.rest * (1 - follow) + (self.rest @ turn.T + shift) * follow
        drop = np.linalg.norm(shift + (turn - np.eye(3)) @ self.rest.mean(0))
        # The tongue lies down in an open mouth; both rows sit a little lower than the base mesh has them, so that the upper shows.
        out[:, 1] -= np.where(self.tongue, 0.25 * drop, np.where(self.lower, 0.03, 0.06))
        return out
