"""The person's mouth: layout, windows, boxes, and that a few steps learn."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
cv2 = pytest.importorskip("cv2")

from pixel import data, train  # noqa: E402
from pixel.net import DIMS, HOPS, HOPS_BEFORE, Unet, hidden  # noqa: E402


def test_names_and_shapes_are_those_of_the_published_network():
    names = Unet(4).state_dict()
    for name, shape in (("audio_model.conv1.conv.0.weight", (32, 16, 1, 1)), ("inc.inconv.0.conv.6.weight", (4, 12, 1, 1)),
                        ("down4.maxpool_conv.0.double_conv.1.conv.3.weight", (128, 1, 3, 3)), ("outc.conv.bias", (3,)),
                        ("up4.conv.double_conv.0.conv.0.weight", (16, 8, 1, 1)), ("fuse_conv.1.double_conv.1.conv.7.bias", (32,))):
        assert tuple(names[name].shape) == shape, name
    out = Unet(4).eval()(torch.zeros(1, 6, 160, 160), torch.zeros(1, 16, 16, 16))
    assert out.shape == (1, 3, 160, 160)


def test_the_mouth_is_hidden_and_the_border_is_not():
    pictures = hidden(torch.ones(1, 3, 160, 160))
    assert pictures[0, 0, 4, 80] == 1 and pictures[0, 0, 5, 80] == 0 and pictures[0, 0, 149, 154] == 0
    assert pictures[0, 0, 150, 80] == 1 and pictures[0, 0, 80, 155] == 1


def test_a_window_follows_the_frames_time():
    hops = np.repeat(np.arange(100, dtype=np.float32)[:, None], DIMS, 1)
    rows = data.window(hops, 1.0).reshape(HOPS, DIMS)
    assert rows[HOPS_BEFORE, 0] == 50 and rows[0, 0] == 50 - HOPS_BEFORE and rows[-1, -1] == 50 + HOPS - 1 - HOPS_BEFORE
    assert data.window(hops, 1.01).reshape(HOPS, DIMS)[HOPS_BEFORE, 0] == pytest.approx(50.5)
    assert data.window(hops, 0.0).reshape(HOPS, DIMS)[0, 0] == 0


def test_the_box_is_square_and_cut_as_the_engine_cuts_it():
    points = np.zeros((111, 2), np.float32)
    points[data.EAR_RIGHT], points[data.EAR_RIGHT - 1] = (100, 100), (110, 120)
    points[data.EAR_LEFT], points[data.EAR_LEFT + 1] = (300, 100), (290, 120)
    # The box begins two thirds of the way from the root of the nose to its tip.
    points[data.ROOT], points[data.TIP] = (200, 70), (200, 100)
    x, y, side = data.box(points)
    whole = 300 - 6.2 - (100 + 6.2)
    assert x == pytest.approx(106.2 + whole * data.BORDER, abs=1e-3) and y == pytest.approx(90 + whole * data.BORDER, abs=1e-3)
    assert side == pytest.approx(whole * (1 - 2 * data.BORDER), abs=1e-3)
    frame = np.zeros((400, 400, 3), np.uint8)
    frame[:, 200:] = 255
    shown = data.picture(frame, points)
    assert shown.shape == (160, 160, 3) and shown[80, 70, 0] == 0 and shown[80, 90, 0] == 255


def test_a_few_steps_learn(tmp_path):
    folder = tmp_path / "pixel"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in "ab":
        pictures = np.repeat(rng.integers(0, 255, (1, 160, 160, 3), dtype=np.uint8), 24, 0)
        np.savez(folder / f"{name}.npz", pictures=pictures, features=rng.normal(size=(60, DIMS)).astype(np.float32),
                 found=np.ones(24, bool))
    clips = train.Clips([folder / "a.npz"])
    network = Unet(4)
    optimiser = torch.optim.AdamW(network.parameters(), 5e-3)
    losses = []
    for _ in range(12):
        face, audio, wanted = clips.batch(rng, 2)
        assert torch.equal(face[:, 3:, 4], wanted[:, :, 4]) and face[:, 3:, 80, 80].abs().max() == 0
        loss = train.loss_of(network(face, audio), wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0], losses
