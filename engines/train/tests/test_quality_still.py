"""Jitter of a mouth's place is measured in pixels of the frame, and neither a standing nor a gliding head has any."""

import json
import unittest
from pathlib import Path

import numpy as np

from common import mesh
from quality.still import SETTLED, jitter

TEMPLATE = np.array(json.loads((Path(__file__).parents[2] / "models/tracker/template.json").read_text())["points"])


def heads(places, side=300.0):
    """Landmarks of a head whose crop of `side` pixels stands at each of the places."""
    points = np.full((len(places), mesh.P, 2), 0.5)
    points[:, mesh.ANCHORS] = TEMPLATE
    return points * side + np.asarray(places)[:, None]


class Still(unittest.TestCase):
    def test_a_head_that_stands_or_glides_does_not_jitter(self):
        count = 40 + SETTLED
        self.assertLess(jitter(heads(np.zeros((count, 2))), TEMPLATE)["step"], 1e-6)
        glide = jitter(heads(np.arange(count)[:, None] * [0.5, 0.0]), TEMPLATE)
        self.assertAlmostEqual(glide["step"], 0.5, places=5)
        self.assertLess(glide["fast"], 1e-6)
        self.assertAlmostEqual(glide["eyes"], 300 * 0.513, delta=0.1)

    def test_noise_is_found_as_large_as_it_is(self):
        rng = np.random.default_rng(1)
        found = jitter(heads(rng.normal(0, 0.2, (4000, 2))), TEMPLATE)
        self.assertAlmostEqual(found["fast"], 0.2 * 2**0.5, delta=0.01)
        self.assertAlmostEqual(found["step"], 0.4, delta=0.02)


if __name__ == "__main__":
    unittest.main()
