"""What files are heard with: its windows, its weights in 4 bits, its graph, the labels of its windows."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from hearing import encoder, four, mel, windowed, windows
from hearing.net import WHOLE, Teacher

DATA = Path(__file__).parents[2] / "tests/data"


def pair(width, heads, layers, features=5):
    torch.manual_seed(3)
    net = encoder.Encoder(width=width, heads=heads, layers=layers).eval()
    model = Teacher(3, np.ones(3), features=features, states=layers + 1, width=width, look=WHOLE).eval()
    with torch.no_grad():
        for k, norm in enumerate(model.norms):
            norm.weight.copy_(torch.rand(width) + 0.5)
            norm.bias.copy_(torch.randn(width))
            model.weights[k] = k / 2
    return net, model


def test_windows_lie_at_fixed_places_and_know_silence_around_the_file():
    frames = torch.arange(300.0)[:, None].repeat(1, 80)
    cut = windows.cut(frames, 149, 60, 10)
    assert cut.shape == (4, 123, 80)
    for k in range(4):
        for place in (0, 9, 10, 30, 49, 59):
            token = 40 * k - 10 + place
            rows = cut[k, 2 * place : 2 * place + 5, 0]
            want = [float(i) if 0 <= i < 300 else mel.SILENCE for i in range(2 * token - 2, 2 * token + 3)]
            assert rows.tolist() == want, (k, place)
    places = torch.stack([torch.arange(60) + 40 * k - 10 for k in range(4)])
    assert windows.middles(places, 149, 60, 10).tolist() == list(range(149))
    # What is used of the first windows does not depend on what comes after them.
    assert torch.equal(windows.cut(frames[:200], 100, 60, 10)[:2], cut[:2])


def test_codes_of_4_bits_make_good_what_others_are_off_by():
    rng = torch.Generator().manual_seed(1)
    weight = torch.randn(24, 128, generator=rng)
    weight[3, :64] = 0
    x = torch.randn(2000, 12, generator=rng) @ torch.randn(12, 128, generator=rng) + 0.3 * torch.randn(2000, 128, generator=rng)
    plain, made = (four.full(*four.rounded(weight, m)) for m in (None, x.T @ x / len(x)))
    off = [float((x @ (torch.from_numpy(w) - weight).T).square().mean()) for w in (plain, made)]
    assert off[1] < 0.5 * off[0] and (plain[3, :64] == 0).all()
    codes, scales = four.rounded(weight)
    assert codes.shape == (24, 2, 64) and codes.max() <= 15 and np.abs(four.full(codes, scales) - weight.numpy()).max() < 0.6 * scales.max() + 0.4 * 7 * scales.max()
    assert four.packed(codes)[0, 0, 0] == codes[0, 0, 0] + 16 * codes[0, 0, 1]


@pytest.mark.parametrize("bits", [32, 4])
def test_the_graph_says_what_torch_says(tmp_path, bits):
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from hearing import wholegraph

    net, model = pair(64, 2, 2)
    found = four.all_of(net) if bits == 4 else None
    onnx.save(wholegraph.made(net, model, found), str(tmp_path / "audio-whole.onnx"))
    run = ort.InferenceSession(str(tmp_path / "audio-whole.onnx"), providers=["CPUExecutionProvider"])
    for batch, tokens in ((1, 40), (3, 25)):
        x = torch.randn(batch, 2 * tokens + 3, 80)
        got = run.run(["feature"], {"mel": x.numpy()})[0]
        with torch.no_grad():
            want = model.features(net.whole(x, causal=False)).numpy()
        off = np.sqrt(np.square(got - want).mean())
        # The runtime rounds what 4-bit weights are multiplied by to 8 bits; a wrong order would be off by the size of features.
        assert off < (2e-3 if bits == 32 else 0.03) * want.std(), off / want.std()


def test_normalised_states_give_the_same_features():
    net, model = pair(16, 2, 3)
    x = torch.randn(2, 63, 80)
    with torch.no_grad():
        want = model.features(net.whole(x, causal=False))
        got = model.features_of_normed(windowed.states_of(net, x, half=False))
    assert torch.allclose(got, want, atol=1e-4)


def test_labels_of_a_window_are_those_of_the_views_in_its_middle():
    class One:
        kind, lag, fps, weight, z, group = "free", 0.0, 25.0, 1.0, None, None
        opening, seconds = np.arange(125, dtype=np.float32) + 1, 5.0

    class Two(One):
        opening, z, seconds = np.full(200, 7.0, np.float32), np.full((200, 12), 0.5, np.float32), 8.0

    one, two = One(), Two()
    one.name, two.name = "one", "two"
    store = type("Store", (), {"rows": [{"token": 250, "views": []}]})
    got = windowed.Batches.__new__(windowed.Batches)
    got.clips, got.latents, got.ahead = {("one", "free"): one, ("two", "free"): two}, 12, 0.0
    views = [{"name": "one", "kind": "free", "speed": 1.0, "gaps": [], "begin": 2000.0, "long": 5000.0},
             {"name": "two", "kind": "free", "speed": 1.0, "gaps": [[1000.0, 1e9]], "begin": 8000.0, "long": 8000.0}]
    labels = got.labels(store.rows[0]["token"], views, 0.0)
    assert labels["time"][0] == windowed.MARGIN * 20 and len(labels["time"]) == windowed.FRAMES
    # 5 s into the file is 3 s into the first view; of the second is 1 s, then silence.
    assert labels["opening"][0] == 76 and labels["opening"][25] == 101 and labels["has_z"][0] == 0
    assert labels["opening"][80] == 7 and labels["z"][80, 3] == 0.5 and labels["has_z"][80] == 1
    assert labels["opening"][-8:].max() == 0 and labels["z"][-8:].max() == 0


def test_the_small_network_of_the_engines_tests_hears_as_the_reference_does():
    ort = pytest.importorskip("onnxruntime")
    from tensors import load

    golden = load(DATA / "hearing-whole.safetensors")
    run = ort.InferenceSession(str(DATA / "hearing-whole.onnx"), providers=["CPUExecutionProvider"])
    cut = windows.cut(mel.log_mel(torch.from_numpy(golden["samples"])[None])[0], 49, 40, 8)
    rows = torch.from_numpy(run.run(["feature"], {"mel": cut.numpy()})[0])
    np.testing.assert_allclose(windows.middles(rows, 49, 40, 8).numpy(), golden["features"], atol=1e-4)
