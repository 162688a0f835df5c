import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="cv2 is not installed: the pictures for the occlusion network are not tested")

from common import mesh
from occlusion import compose, data, occluders


def face():
    """A grey face and its points in unit coordinates: an egg with lips."""
    points = np.full((mesh.P, 2), 0.5)
    jaw = np.pi * np.arange(21) / 20
    points[mesh.RANGES["jaw"]] = np.stack([0.5 + 0.35 * np.cos(jaw), 0.35 + 0.5 * np.sin(jaw)], 1)
    lips = 2 * np.pi * np.arange(20) / 20
    for name, size in (("lips_outer", 0.13), ("lips_inner", 0.1)):
        points[mesh.RANGES[name]] = np.stack([0.5 - size * np.cos(lips), 0.6 - size / 2 * np.sin(lips)], 1)
    points[[69, 90, 89, 91, 70]] = [(0.3, 0.45), (0.42, 0.42), (0.5, 0.43), (0.58, 0.42), (0.7, 0.45)]
    points[[73, 74]] = [(0.32, 0.55), (0.68, 0.55)]
    points[[81, 82, 83]] = [(0.5, 0.5), (0.48, 0.5), (0.52, 0.5)]
    return np.full((data.PACKED, data.PACKED, 3), 128, np.uint8), points.astype(np.float32)


HANDS = np.zeros((1, 64, 64, 4), np.uint8)
HANDS[0, 16:48, 16:48] = (140, 140, 140, 255)
PATCHES = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)


@pytest.mark.parametrize("kind", occluders.KINDS)
def test_every_kind_covers_what_it_says_and_nothing_else(kind):
    drawn = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        alpha, colour = occluders.draw(kind, rng, 96, np.array([48.0, 60.0]), np.array([180.0, 140, 120]), HANDS, PATCHES)
        assert alpha.shape == (96, 96) and colour.shape == (96, 96, 3) and colour.dtype == np.uint8
        assert 0 <= alpha.min() and alpha.max() <= 1 + 1e-6
        drawn += alpha.max() > 0.5
    assert drawn >= 8


def test_without_anything_before_it_a_face_is_not_covered_whatever_is_done_to_it():
    image, points = face()
    for seed in range(30):
        _, cover, lower = compose.sample(image, points, np.random.default_rng(seed), HANDS, PATCHES, clean=1.0)
        assert cover.max() == 0 and lower.max() == 1 and 0.05 < lower.mean() < 0.5


def test_what_is_put_before_a_face_changes_it_there_alone_but_for_its_shadow():
    image = np.full((96, 96, 3), 128, np.uint8)
    changed = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        out, cover = compose.put(image, np.zeros((96, 96), np.float32), "blob", rng, HANDS, PATCHES, np.array([128.0] * 3), np.array([48.0, 60.0]))
        outside = cover < 1e-3
        # A shadow only darkens.
        assert (out[outside].astype(int) <= 128).all()
        changed += (np.abs(out.astype(int) - 128).max(2)[cover > 0.9] > 3).mean() > 0.5
    assert changed >= 14


def test_mirrored_views_move_the_cover_with_the_face():
    image, points = face()
    image[:, : data.PACKED // 2] = 60
    for seed in range(6):
        view, own = compose.view(image, points.astype(float), np.random.default_rng(seed), 0.0)
        np.testing.assert_allclose(own, points * compose.VIEW, atol=1e-4)
        assert abs(int(view[48, 40, 0]) - 60) <= 1 and abs(int(view[48, 56, 0]) - 128) <= 1


def test_a_head_is_turned_aside_with_its_points():
    image, points = face()
    at = points[mesh.RANGES["lips_outer"]].mean(0)
    image[:] = 128
    place = data.to_packed()
    corner = (place[:, :2] @ points[0] + place[:, 2]).astype(int)
    image[corner[1] - 4 : corner[1] + 5, corner[0] - 4 : corner[0] + 5] = 255
    points[[94, 97]] = [(0.25, 0.13), (0.75, 0.13)]
    points[mesh.ANCHORS] = [(0.25, 0.13), (0.4, 0.14), (0.6, 0.14), (0.75, 0.13), (0.5, 0.4), (0.4, 0.39), (0.6, 0.39)]
    for seed in range(4):
        turned, own = compose.aside(image, points.astype(float), np.random.default_rng(seed))
        x, y = np.round(place[:, :2] @ own[0] + place[:, 2]).astype(int)
        assert turned[y, x, 0] > 200, "the mark at the corner of the mouth goes along"
        assert abs(own[mesh.RANGES["lips_outer"]].mean(0) - at).max() < 0.2
        left, right = own[94] - own[90], own[97] - own[91]
        assert abs(abs(left[0]) - abs(right[0])) > 0.015, "one half is wider"


def test_figures_are_those_of_the_lower_face():
    pytest.importorskip("torch", reason="torch is not installed: the occlusion network is not tested")
    from occlusion.train import figures

    lower = np.zeros((1, 96, 96), np.float32)
    lower[:, 40:90, 20:70] = 1
    truth = np.zeros((1, 96, 96), np.float32)
    truth[:, 40:90, 20:45] = 1
    outside = np.ones((1, 96, 96), np.float32) * (1 - lower) + truth * lower
    perfect = figures(outside, truth, lower)
    assert perfect["visible"] == 1 and perfect["covered"] == 1 and perfect["covered_all"] == 1
    half = np.zeros_like(truth)
    half[:, 40:65, 20:45] = 1
    found = figures(half, truth, lower)
    assert abs(found["covered"] - 0.5) < 1e-4 and abs(found["visible"] - 2 / 3) < 1e-3
    clean = figures(np.full_like(truth, 0.25), np.zeros_like(truth), lower)
    assert clean["clean_mean"] == 0.25 and clean["clean_share"] == 0


def test_network_stays_in_its_budget_and_exports(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed: the occlusion network is not tested")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: the occlusion network is not tested")
    from common.layers import export, flops
    from occlusion.net import Occlusion
    from occlusion.train import loss_of

    network, x = Occlusion().eval(), torch.rand(2, 3, 96, 96)
    assert flops(network, x[:1]) <= 0.05e9
    path = tmp_path / "mask.onnx"
    assert export(network, x[:1], path, ["crop"], ["covered"], {k: {0: "batch"} for k in ("crop", "covered")}, [x]) <= 1e-4
    assert path.stat().st_size < 1_000_000
    cover, lower = (x[:, :1] > 0.5).float(), torch.ones(2, 1, 96, 96)
    right = torch.where(cover > 0, 6.0, -6.0)
    assert loss_of(right, cover, lower) < 0.1 * loss_of(-right, cover, lower)


def test_the_best_weights_are_kept_and_the_rate_falls_to_nothing(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed: the occlusion network is not tested")
    from occlusion.train import Best, falling

    network = torch.nn.Linear(1, 1)
    found = lambda score, clean: {name: score for name in ("visible", "covered", "visible_all", "covered_all")} | {"clean_share": clean}
    best = Best(tmp_path)
    for step, (score, clean) in enumerate([(0.8, 0.004), (0.9, 0.02), (0.85, 0.006), (0.7, 0.001)]):
        best.save(network, step, found(score, clean))
    assert torch.load(tmp_path / "best.pt", weights_only=False)["step"] == 3
    assert abs(Best(tmp_path).score - 0.85) < 1e-9, "a run that goes on knows it"
    assert falling(1.0, 99, 0.0) == 0.5 and falling(1.0, 400, 0.4) == 1.0
    assert abs(falling(1.0, 400, 0.75) - 0.5) < 1e-9 and falling(1.0, 400, 1.01) < 1e-9
