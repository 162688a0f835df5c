import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

from refine import data
from refine import measure
from refine import warp as rw
from common import mesh


def face(opening=0.04):
    points = np.random.default_rng(0).uniform(0.3, 0.7, (mesh.P, 2))
    for ring, across, down in ((rw.OUTER, 0.15, 0.05 + opening / 2), (rw.INNER, 0.12, opening / 2)):
        t = np.arange(20) / 20 * 2 * np.pi
        points[ring] = np.stack([0.5 - across * np.cos(t), 0.6 - down * np.sin(t)], -1)
    return points


def test_a_face_onto_itself_is_itself():
    crop = np.random.default_rng(1).integers(0, 255, (rw.SIDE, rw.SIDE, 3), dtype=np.uint8)
    warped = rw.warp(crop, rw.nodes(face(), face()))
    assert np.abs(warped.astype(int) - crop).max() <= 8
    x, y = rw.window(face())
    part = rw.warp(crop, rw.nodes(face(), face(0.05)), x, y, rw.WINDOW)
    whole = rw.warp(crop, rw.nodes(face(), face(0.05)))[y : y + rw.WINDOW, x : x + rw.WINDOW]
    assert (part == whole).all()


def test_the_warp_takes_the_wanted_points_to_the_references():
    wanted, reference = face(0.02), face(0.06)
    grid = rw.nodes(wanted, reference)
    for k in (0, 10, *mesh.OPENING):
        cell = np.minimum((wanted[k] * rw.CELLS).astype(int), rw.CELLS - 1)
        u, v = wanted[k] * rw.CELLS - cell
        corners = grid[cell[1] : cell[1] + 2, cell[0] : cell[0] + 2]
        place = (corners[0, 0] * (1 - u) + corners[0, 1] * u) * (1 - v) + (corners[1, 0] * (1 - u) + corners[1, 1] * u) * v
        np.testing.assert_allclose(place, reference[k], atol=0.02)


def test_coverage_is_the_area():
    square = np.array([[0.25, 0.25], [0.5, 0.25], [0.5, 0.375], [0.25, 0.375]])
    out = rw.coverage(square + [1 / 3 / 256, 1 / 4 / 256], 64, 64)
    assert abs(out.sum() - 64 * 32) < 1e-6 and abs(out[0, 5] - 0.75) < 1e-9 and abs(out[5, 64] - 1 / 3) < 1e-6


def test_maps_are_the_inside_and_the_lips():
    x, y = rw.window(face())
    maps = rw.shapes(face(), x, y)
    assert maps[64, 64].tolist() == [255, 0] and maps[64 + 14, 64].tolist() == [0, 255] and not maps[0].any()


def test_a_partner_opens_wider_where_one_does():
    lower = np.stack([face(o)[mesh.LOWER] for o in (0.0, 0.02, 0.05, 0.09)])
    assert [rw.partner(lower, k) for k in range(4)] == [1, 2, 3, 2]
    assert rw.partner(lower[:1], 0) == 0


def test_figures_of_the_truth_are_the_best():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 255, (3, 256, 256, 3), dtype=np.uint8)
    sequence = {"truth": truth, "mask": np.full((3, 256, 256), 255, np.uint8), "mouth": np.tile(np.float32([128, 160, 157]), (3, 1))}
    at = np.arange(3)
    same = measure.figures(sequence, truth, at)
    assert same == {"ssim": 1.0, "psnr": 100.0, "sharpness": 1.0, "flicker": 1.0}
    assert measure.figures(sequence, truth // 2, at)["ssim"] < 0.9


def test_jitter_moves_the_lower_face_alone():
    moved = data.jittered(face(), np.random.default_rng(0))
    assert (moved[mesh.STABLE] == face()[mesh.STABLE]).all()
    assert 1e-5 < np.abs(moved[mesh.LOWER] - face()[mesh.LOWER]).mean() < 0.01


def test_the_network_leaves_what_lies_beyond_the_mouth():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from refine import net

    network = net.Refiner().eval()
    x, y = rw.window(face())
    shapes = torch.from_numpy(rw.shapes(face(), x, y).transpose(2, 0, 1)[None] / 255).float()
    with torch.no_grad():
        delta = network(torch.rand(1, 3, 128, 128), torch.rand(1, 3, 128, 128), shapes, torch.ones(1, 3))
    assert delta.shape == (1, 3, 128, 128) and delta[..., 64, 64].abs().max() > 0
    assert not delta[..., 0, :].any() and not delta[..., :, -1].any() and not delta[..., 8, 64].any()


def test_paint_is_bent_below_its_bound_and_keeps_its_order():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from refine import net

    grey, bound = torch.linspace(-0.1, 2.0, 200), torch.tensor(0.6)
    bent = net.bent(grey, bound)
    assert torch.allclose(bent[grey < 0.36], grey[grey < 0.36]) and bent.max() < bound
    assert (bent.diff() > 0).all() and (bent.diff() < grey.diff() + 1e-6).all()
