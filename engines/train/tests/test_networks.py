import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the networks are not tested")
for name in ("cv2", "onnxruntime"):
    pytest.importorskip(name, reason=f"{name} is not installed: the networks are not tested")

import detector
import landmarks
from common import mesh, yunet
from common.layers import export, flops, fused


def shaken(network):
    """Norm statistics and weights off their initial values, so that a wrong fold shows."""
    torch.manual_seed(0)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
        elif value.is_floating_point() and value.ndim == 1:
            value.add_(torch.randn_like(value) * 0.2)
    return network.eval()


@pytest.mark.parametrize("make, shape, budget", [
    (landmarks.Landmarks, (1, 3, 128, 128), 0.05e9), (detector.FaceDetector, (1, 3, detector.HEIGHT, detector.WIDTH), 0.06e9),
])
def test_cost_stays_in_budget_and_folding_changes_nothing(make, shape, budget):
    network = shaken(make())
    x = torch.rand(shape)
    assert flops(network, x) <= budget
    with torch.no_grad():
        for a, b in zip(network(x), fused(network)(x)):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in fused(network).modules())


def test_export_agrees_with_torch(tmp_path):
    x = torch.rand(1, 3, 128, 128)
    axes = {k: {0: "batch"} for k in ("crop", "points", "face")}
    worst = export(shaken(landmarks.Landmarks()), x, tmp_path / "l.onnx", ["crop"], ["points", "face"], axes, [x, torch.rand(3, 3, 128, 128)])
    assert worst <= 1e-4
    x = torch.rand(1, 3, detector.HEIGHT, detector.WIDTH) * 255
    assert export(shaken(detector.FaceDetector()), x, tmp_path / "d.onnx", ["input"], detector.OUTPUTS, None, [x]) <= 1e-4


def test_outputs_have_yunets_shapes():
    outputs = dict(zip(detector.OUTPUTS, detector.FaceDetector().eval()(torch.zeros(1, 3, 192, 320))))
    for stride in yunet.STRIDES:
        n = 192 // stride * (320 // stride)
        for kind, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            assert outputs[f"{kind}_{stride}"].shape == (1, n, channels)


def test_targets_decode_to_the_face_they_came_from():
    cells = detector.priors()
    boxes = np.array([[20, 30, 44, 60], [150, 20, 290, 180]], float)
    points = np.random.default_rng(0).uniform(0, 180, (2, 5, 2))
    owner, box, kps = detector.targets(cells, boxes, points, np.array([True, True]))
    assert set(owner) == {-2, -1, 0, 1}
    outputs, start = {}, 0
    for stride in yunet.STRIDES:
        n = int((cells[:, 2] == stride).sum())
        part = slice(start, start + n)
        start += n
        face = (owner[part] >= 0).astype(np.float32)[:, None]
        size = np.maximum(box[part][:, 2:] - box[part][:, :2], 1e-3)
        centre = (box[part][:, 2:] + box[part][:, :2]) / 2
        outputs |= {f"cls_{stride}": face, f"obj_{stride}": face, f"kps_{stride}": kps[part],
                    f"bbox_{stride}": np.hstack([centre / stride - cells[part][:, :2], np.log(size / stride)])}
    found, kps, scores = yunet.decode(outputs, 320, 0.5)
    keep = yunet.suppress(found, scores)
    order = np.argsort(found[keep][:, 0])
    np.testing.assert_allclose(found[keep][order], boxes, atol=1e-3)
    np.testing.assert_allclose(kps[keep][order], points, atol=1e-3)


def test_every_size_and_place_has_a_cell():
    cells = detector.priors()
    rng = np.random.default_rng(1)
    for _ in range(300):
        side = np.exp(rng.uniform(np.log(12), np.log(250)))
        centre = rng.uniform([10, 10], [310, 182])
        owner = detector.assign(cells, np.array([[*(centre - side / 2), *(centre + side / 2)]]), np.array([True]))
        assert (owner == 0).sum() >= 1


def test_an_unsure_face_is_neither_face_nor_background():
    cells = detector.priors()
    boxes = np.array([[100, 40, 180, 140]], float)
    owner = detector.assign(cells, boxes, np.array([False]))
    assert (owner != 0).all() and (owner == -2).sum() > 10
    at = (cells[:, :2] + 0.5) * cells[:, 2:]
    outside = ~((at > boxes[0, :2]) & (at < boxes[0, 2:])).all(1)
    assert (owner[outside] == -1).all()


def test_point_loss_sees_a_wrong_opening_more_than_a_shift_of_cheeks():
    target = torch.rand(2, mesh.P, 2)
    lip, cheek = target.clone(), target.clone()
    up, low = mesh.OPENING
    lip[:, [up, low], 1] += torch.tensor([-0.02, 0.02])
    cheek[:, [69, 70], 1] += torch.tensor([-0.02, 0.02])
    weight = landmarks.weights()
    assert landmarks.point_loss(target, target, weight) == 0
    assert landmarks.point_loss(lip, target, weight) > 2 * landmarks.point_loss(cheek, target, weight)


def test_loss_falls_when_the_network_says_what_is_there():
    cells = detector.priors()
    rows = detector.targets(cells, np.array([[60, 40, 130, 130]], float), np.full((1, 5, 2), 90.0), np.array([True]))
    owner, box, kps = (torch.from_numpy(r)[None] for r in rows)
    c = torch.from_numpy(cells).float()
    right = torch.zeros(1, len(cells), 16)
    right[..., 1] = torch.where(owner >= 0, 6.0, -6.0)
    right[..., 0] = right[..., 1]
    stride = c[None, :, 2:]
    right[..., 2:4] = (box[..., :2] + box[..., 2:]) / 2 / stride - c[None, :, :2]
    right[..., 4:6] = ((box[..., 2:] - box[..., :2]).clamp_min(1e-3) / stride).log()
    right[..., 6:] = kps
    good = sum(detector.loss([right], c, owner, box, kps))
    bad = sum(detector.loss([torch.zeros_like(right)], c, owner, box, kps))
    assert torch.isfinite(good) and good < 0.1 * bad
