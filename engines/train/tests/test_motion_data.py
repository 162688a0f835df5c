"""Normalising the labels and measuring motion, on made-up faces."""

import sys
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from motion import data
from common import mesh

try:
    from motion import measure, sources, voices
except ImportError:
    measure = None

needs_torch = unittest.skipIf(measure is None, "PyTorch is not installed")


def face(rng):
    """A left-right symmetric set of points in unit crop coordinates."""
    p = rng.uniform(0.2, 0.8, (mesh.P, 2))
    return (p + p[mesh.FLIP] * [-1, 1] + [1, 0]) / 2


class Alignment(unittest.TestCase):
    def test_where_and_how_large_the_face_is_does_not_matter(self):
        rng = np.random.default_rng(0)
        shape, template = face(rng), face(rng)[mesh.ANCHORS]
        frames = []
        for _ in range(5):
            a, s = rng.uniform(-0.6, 0.6), rng.uniform(50, 300)
            turn = s * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
            frames.append(shape @ turn.T + rng.uniform(0, 500, 2))
        got = data.aligned(np.array(frames), template)
        np.testing.assert_allclose(got - got[0], 0, atol=1e-9)

    def test_points_on_the_template_stay(self):
        shape = face(np.random.default_rng(1))
        got = data.aligned(shape[None] * 200 + 30, shape[mesh.ANCHORS])
        np.testing.assert_allclose(got[0], shape, atol=1e-9)


class Labels(unittest.TestCase):
    def test_a_frame_without_a_face_takes_the_nearest(self):
        points = np.arange(6)[:, None, None] * np.ones((6, 2, 2))
        got = data.held(points, np.array([False, True, False, False, True, False]))
        np.testing.assert_array_equal(got[:, 0, 0], [1, 1, 1, 4, 4, 4])

    def test_opening_grows_downwards_and_in_no_other_way(self):
        shape = face(np.random.default_rng(2))
        lower = shape[mesh.LOWER].copy()
        before = data.opening(lower.reshape(-1))
        lower[mesh.OPENING[1], 1] += 0.05
        lower[mesh.OPENING[1], 0] += 0.02
        self.assertAlmostEqual(data.opening(lower.reshape(-1)) - before, 0.05)

    def test_halves_share_the_opening_and_not_a_shift_to_the_side(self):
        shift = np.zeros((1, mesh.LOWER.stop, 2))
        shift[..., 0] = 0.01
        np.testing.assert_allclose(data.shared_by_halves(shift.reshape(1, -1)), 0, atol=1e-12)
        drop = np.zeros((1, mesh.LOWER.stop, 2))
        drop[..., 1] = 0.01
        np.testing.assert_allclose(data.shared_by_halves(drop.reshape(1, -1)), drop.reshape(1, -1))

    def test_basis_and_projection_undo_each_other(self):
        rng = np.random.default_rng(3)
        true = rng.standard_normal((data.D, data.LOWER)) * np.geomspace(1, 0.1, data.D)[:, None]
        offsets = [rng.standard_normal((200, data.D)) @ true for _ in range(4)]
        basis, project, deviation, explained = data.fit_basis(offsets, [1.0] * 4)
        self.assertGreater(explained, 0.999)
        z = np.concatenate(offsets) @ project.T
        np.testing.assert_allclose(z @ basis.T, np.concatenate(offsets), atol=1e-6)
        np.testing.assert_allclose(z.std(0), 1, atol=0.02)
        self.assertTrue((np.diff(deviation) <= 0).all())

    def test_the_pose_does_not_take_the_opening(self):
        rng = np.random.default_rng(4)
        turn, speech = rng.standard_normal((300, 1)), np.abs(rng.standard_normal((300, 1)))
        to_stable, to_lower = rng.standard_normal((1, data.STABLE)), rng.standard_normal((1, data.LOWER)) * 0.3
        open_by = np.zeros(data.LOWER)
        open_by[2 * mesh.OPENING[1] + 1] = 1.0
        # The stable points move a little with speech, as the teacher's do.
        leak = rng.standard_normal((1, data.STABLE)) * 0.2
        entry = {"kind": "gen", "stable": turn @ to_stable + speech @ leak, "lower": turn @ to_lower + speech * open_by}
        pose = data.fit_pose([entry])
        left = entry["lower"] - entry["stable"] @ pose.T
        gap = data.opening(left)
        self.assertGreater(np.corrcoef(gap - turn[:, 0] * data.opening(to_lower[0]), speech[:, 0])[0, 1], 0.98)
        other = [2 * k for k in range(mesh.LOWER.stop)]
        self.assertLess(left[:, other].std(), 0.5 * entry["lower"][:, other].std())


@needs_torch
class Measures(unittest.TestCase):
    def test_a_late_motion_has_a_positive_lag(self):
        x = np.convolve(np.random.default_rng(5).standard_normal(300), np.ones(5), "same")
        r, lag = measure.correlate(x[3:-5], x[5:-3], 4)
        self.assertEqual(lag, 2)
        self.assertAlmostEqual(r, 1.0)

    def test_lips_shut_in_a_stop_and_open_in_a_vowel(self):
        phones = [("pau", 0.2), ("aa", 0.5), ("m", 0.6), ("aa", 0.9), ("pau", 1.2)]
        track = voices.track(phones, 1.2)
        self.assertLess(track[52:58].max(), 0.05)
        self.assertGreater(track[35], 0.8)
        self.assertLess(track[-5:].max(), 0.05)


if __name__ == "__main__":
    unittest.main()
