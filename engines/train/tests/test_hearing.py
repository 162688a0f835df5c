"""The hearing's encoder as a stream and at once, its mel, its batches' labels; a small encoder with random weights stands for Whisper's."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from hearing import batch, encoder, measure, mel, sounds
from hearing.net import TAPS, Hearing, Regression, gather
from hearing.stream import Stream


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(1)
    return encoder.Encoder(width=16, heads=2, layers=3).eval()


def voice(seconds, seed=0):
    rng, t = np.random.default_rng(seed), np.arange(int(seconds * mel.RATE)) / mel.RATE
    x = np.sin(2 * np.pi * 150 * t + 4 * np.sin(2 * np.pi * 3 * t)) * (1 + np.sin(2 * np.pi * 2 * t)) * 0.1 + 0.003 * rng.standard_normal(len(t))
    return torch.from_numpy(x.astype(np.float32))


def streamed(net, frames, sizes):
    stream, out, at = Stream(net, mel.SILENCE), [], 0
    for size in sizes:
        got = stream.push(frames[at : at + size])
        at += size
        if got is not None:
            out.append(got)
    return [torch.cat(parts) for parts in zip(*out)], stream


def test_mel_is_whispers_where_the_maximum_is_the_streams():
    # A tone of 1 kHz at full scale: mel 15 of Slaney's scale, in a filter of area 1.
    x = torch.sin(2 * torch.pi * 1000 * torch.arange(16000) / 16000)[None]
    y = mel.levels(x)
    assert y.shape == (1, 99, 80)
    filters = mel.filters()
    assert abs(y[0, 50].argmax().item() - filters[:, 25].argmax()) <= 0
    # Half the window's sum squared is the power in the bin.
    want = np.log10(sum((np.array([50.0, 100.0, 50.0]) ** 2) * filters[filters[:, 25].argmax(), 24:27]))
    assert abs(y[0, 50].max().item() - want) < 1e-3


def test_the_maximum_rises_at_once_and_falls_half_a_decibel_a_second():
    y = torch.full((1, 1000, 80), -9.0)
    y[0, 100, 7] = 2.0
    top = mel.tops(y)[0]
    assert top[99] == mel.TOP and abs(top[100] - 2.0) < 1e-6
    assert abs(top[300] - (2.0 - 200 * mel.FALL)) < 1e-5
    assert abs(mel.tops(torch.full((1, 5, 80), -9.0), before=1.0)[0, 4] - (1.0 - 5 * mel.FALL)) < 1e-6


def test_silence_is_the_constant_that_a_stream_begins_with():
    assert torch.allclose(mel.log_mel(torch.zeros(1, 1600)), torch.tensor(mel.SILENCE))


def test_a_stream_in_pieces_gives_what_the_whole_gives(small):
    frames = mel.log_mel(voice(6)[None])
    whole = small.whole(encoder.token_mel(frames, mel.SILENCE))
    with torch.no_grad():
        got, _ = streamed(small, frames[0], [5] + [4] * 160)
    for a, b in zip(got, whole):
        assert len(a) > encoder.PAST * 2
        assert (a - b[0, : len(a)]).abs().max() < 1e-5


def test_a_token_hears_nothing_that_comes_after_it(small):
    frames = encoder.token_mel(mel.log_mel(voice(2)[None]), mel.SILENCE)
    changed = frames.clone()
    changed[:, 2 * 40 + 5 :] += 1.0
    a, b = small.whole(frames, step=1)[-1][0], small.whole(changed, step=1)[-1][0]
    assert torch.equal(a[:41], b[:41]) and not torch.allclose(a[42:], b[42:])


def test_ten_minutes_go_on_with_positions_below_the_tables_end(small):
    torch.manual_seed(0)
    frames = torch.randn(600 * 100, 80)
    stream = Stream(small, mel.SILENCE, most=40)
    highest, turns, tail = 0, 0, None
    with torch.no_grad():
        for at in range(0, len(frames), 80):
            before = stream.ring
            got = stream.push(frames[at : at + 80])
            highest, turns = max(highest, stream.ring.position), turns + (stream.ring is not before)
            tail = got or tail
            assert len(stream.mel) < 2 * (encoder.PAST + 300)
    assert stream.token == len(frames) // 2 - 1 and highest < encoder.PLACES
    assert turns == pytest.approx((600 * 50 - encoder.TURN) / (encoder.TURN - encoder.PAST), abs=2)
    # What comes out is what an encoder gives that began with the last PAST tokens before its present ring.
    first = stream.token - stream.ring.position
    assert first > 0
    part = frames[2 * first - encoder.LEAD :][: 2 * stream.ring.position + 3]
    with torch.no_grad():
        whole = small.whole(part[None], step=40)[-1][0]
    assert (tail[-1][-1] - whole[-1]).abs().max() < 0.25


def test_a_frame_takes_no_token_that_is_not_complete_in_time():
    features = torch.arange(200.0)[None, :, None]
    for look, taps in TAPS.items():
        for time in (1000.0, 1007.0, 1013.5):
            got = gather(features, torch.tensor([[time]]), look)[0, 0]
            assert len(got) == len(taps)
            assert got.max() * 20 + 32.5 <= time + look + 1e-3
            np.testing.assert_allclose(got[0], (time - 80) / 20, atol=1e-4)


def test_a_regression_answers_its_estimate_from_any_noise_in_any_steps():
    net = Regression(3, 5, width=8).eval()
    cond, x = torch.randn(4, 5), torch.randn(4, 3)
    for steps in (1, 2, 4):
        y = x
        for k in range(steps):
            y = y + net(y, torch.full((4,), k / steps), cond) / steps
        assert torch.allclose(y, net.clean(cond), atol=1e-5)


def test_the_head_goes_on_from_its_state():
    torch.manual_seed(2)
    model = Hearing(3, np.ones(3), width=16, states=2).eval()
    states = [torch.randn(1, 30, 16) for _ in range(2)]
    whole, end = model.head(states, model.head.zeros(1))
    a, state = model.head([s[:, :11] for s in states], model.head.zeros(1))
    b, state = model.head([s[:, 11:] for s in states], state)
    assert torch.allclose(torch.cat([a, b], 1), whole, atol=1e-6) and torch.allclose(state, end, atol=1e-6)


def test_closures_are_shut_beside_open():
    opening = torch.ones(1, 40)
    opening[0, 10] = 0.0
    opening[0, 20:34] = 0.0
    found = batch.closures(opening)[0]
    assert found[10] and found[20] and not found[26]
    met, count, depth = measure.closed(opening[0].numpy(), np.roll(opening[0].numpy(), 1))
    assert count == met == 3 and depth > 2.9


def test_views_keep_their_length_and_say_where_they_are_silent():
    rng = np.random.default_rng(3)
    pcm = (voice(4).numpy() * 20000).astype(np.int16)
    for _ in range(12):
        view = sounds.changed(pcm, rng)
        assert abs(len(view.sound) - len(pcm) / view.speed) < 2 and np.abs(view.sound).max() <= 1 and np.isfinite(view.sound).all()
    assert sounds.openness(np.array([0.0, 500.0, 2000.0]), [(300, 900)]).tolist() == [1.0, 0.0, 1.0]


def test_items_take_states_and_labels_of_one_time(tmp_path):
    class Sound:
        name, kind, lag, fps, weight, z = "a", "free", 0.0, 25.0, 1.0, None
        opening = np.arange(100, dtype=np.float32)
        seconds = 4.0

    store = np.arange(600, dtype=np.float16)[:, None, None].repeat(2, 1).repeat(3, 2)
    views = [batch.View(Sound, store, 200, 1.0, [])]
    got = batch.Batches(views, {"free": 1.0}, 4, 5)(0)
    assert got["states"].shape == (4, batch.TOKENS, 2, 3)
    for row in range(4):
        frame = 30
        token = got["states"][row, 0, 0, 0] + got["time"][row, frame] / 20
        # Token 200 is the clip's beginning; the opening counts its frames of 40 ms.
        assert abs((token - 200) / 2 - got["opening"][row, frame]) < 1.0
    assert json.dumps(float(got["time"].max())) and got["time"].max() + 120 < batch.TOKENS * 20


def test_whispers_weights_give_the_published_encoder(tmp_path):
    import os
    from pathlib import Path

    path = Path(os.environ.get("LIPSTREAM_WHISPER", "")) / "whisper_base_encoder.safetensors"
    if not os.environ.get("LIPSTREAM_WHISPER") or not path.is_file():
        pytest.skip("LIPSTREAM_WHISPER names no folder that holds whisper_base_encoder.safetensors")
    net = encoder.load(path, layers=6)
    from safetensors.torch import load_file

    table = load_file(str(path))["positional_embedding"].float()
    angle = torch.arange(1500)[:, None] * net.scale
    assert (torch.cat([angle.sin(), angle.cos()], -1) - table).abs().max() < 2e-3
    with torch.no_grad():
        states = net.whole(encoder.token_mel(mel.log_mel(voice(3)[None]), mel.SILENCE), causal=False)
    assert len(states) == 7 and all(torch.isfinite(s).all() for s in states)


def test_a_graph_of_32_bits_says_what_torch_says_and_gives_its_weights_back(small, tmp_path):
    """Streams of one token and of three a call: the graph has keys and values of the tokens before, torch the whole."""
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from hearing import export, graph, shipped
    from hearing.net import Head

    torch.manual_seed(4)
    head = Head(16, 4, inner=6, hidden=5, features=7).eval()
    with torch.no_grad():
        head.weights.copy_(torch.tensor([0.3, -0.5, 0.1, 0.9]))
    onnx.save(graph.made(small, head, eight=False), str(tmp_path / "audio.onnx"))
    run = ort.InferenceSession(str(tmp_path / "audio.onnx"), providers=["CPUExecutionProvider"])
    frames = encoder.token_mel(mel.log_mel(voice(5)[None]), mel.SILENCE)
    for step in (1, 3):
        host, got = export.Host(run, 5, layers=3, width=16, heads=2), []
        for token in range(0, 240, step):
            got.append(host.step(frames[0, 2 * token : 2 * (token + step) + 3].numpy())[0])
        with torch.no_grad():
            want = head(small.whole(frames, step=step), head.zeros(1))[0][0, :240]
        # Weights of 2048 numbers and more are kept as f16.
        assert np.abs(np.concatenate(got) - want.numpy()).max() < 2e-3
    found = shipped.audio(tmp_path / "audio.onnx", heads=2)
    found.pop("shares")
    back = encoder.Encoder(width=16, heads=2, layers=3)
    back.load_state_dict({k[8:]: v for k, v in shipped.tensors(found).items() if k.startswith("encoder.")})
    for a, b in zip(small.parameters(), back.parameters()):
        assert torch.allclose(a, b, atol=1e-3)


def test_weights_of_8_bits_are_within_half_a_step():
    pytest.importorskip("onnx")
    from hearing import graph

    weight = np.random.default_rng(0).standard_normal((128, 6)).astype(np.float32)
    weight[64:, 2] = 0
    codes, scales = graph.rounded(weight)
    assert codes.shape == (6, 2, 64) and scales.shape == (6, 2) and codes[2, 1].tolist() == [128] * 64
    off = np.abs(graph.full(codes, scales.ravel()) - weight).reshape(2, 64, 6).max(1)
    assert (off <= 0.5001 * scales.T).all()


def test_shipped_weights_come_back_as_the_network_that_was_exported():
    """The hearing and the motions read back from ONNX say what ONNX says."""
    from pathlib import Path

    ort = pytest.importorskip("onnxruntime")
    from hearing import export, shipped
    from tensors import load

    folder = Path(__file__).parents[2] / "models/compact-words"
    basis = load(folder / "basis.safetensors")
    net, model = shipped.load(folder, np.ones(basis["basis"].shape[1]))
    frames = encoder.token_mel(mel.log_mel(voice(3)[None]), mel.SILENCE)
    run = ort.InferenceSession(str(folder / "audio.onnx"), providers=["CPUExecutionProvider"])
    host, got = export.Host(run, model.head.state_size), []
    for token in range(0, (frames.shape[1] - 3) // 2 // 2 * 2, 2):
        got.append(host.step(frames[0, 2 * token : 2 * token + 7].numpy())[0])
    got = np.concatenate(got)
    with torch.no_grad():
        want = model.features(net.whole(frames))[0, : len(got)]
        # The runtime rounds what the weights are multiplied by to 8 bits; a wrong scale or order would be off by the size of features.
        assert np.sqrt(np.square(got - want.numpy()).mean()) < 0.03 * want.std()
        for look, name in ((160, "motion-160.onnx"), (120, "motion-120.onnx"), (80, "motion-80.onnx")):
            motion = model.motions[str(look)]
            cond = torch.randn(5, motion.conditions)
            run = ort.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])
            feeds = {"latent": np.zeros((5, motion.latents), np.float32), "timestep": np.zeros(5, np.float32), "cond": cond.numpy()}
            assert np.abs(run.run(None, feeds)[0] - motion.clean(cond).numpy()).max() < 2e-3
    # A look-ahead without a file begins as the longest, whose last taps' part the last tap takes that is left.
    weight = np.arange(12.0 * len(TAPS[160])).reshape(1, -1)
    short = shipped.shorter({"cond.weight": weight, "cond.bias": np.ones(1)}, 12, (160, 120))["cond.weight"].reshape(len(TAPS[120]), 12)
    np.testing.assert_allclose(short[:-1].ravel(), weight[0, : 8 * 12])
    np.testing.assert_allclose(short[-1], weight[0, 8 * 12 :].reshape(3, 12).sum(0))


def test_a_piece_has_sound_and_labels_of_one_time(monkeypatch):
    from hearing import pieces, sources

    # A click in each second of a clip whose opening counts its frames.
    pcm = np.zeros(10 * mel.RATE, np.int16)
    for second in range(10):
        pcm[second * mel.RATE : second * mel.RATE + 80] = 20000
    clip = sources.Clip("a", "free", pcm, None, np.arange(250, dtype=np.float32), 25.0)
    monkeypatch.setattr(pieces, "changed", lambda x, *_: sounds.Changed(x.astype(np.float32) / 32768))
    got = pieces.Pieces([clip], {"free": 1.0}, 8, 3, ahead=0.0)(0)
    assert got["mel"].shape == (8, 2 * pieces.TOKENS + 3, 80)
    for row in range(8):
        # Token j is about the mel frames 2 j - 2 .. 2 j + 2, so row 2 j + 2 of the mel is its middle, at 20 j ms; a click lies in the frame that begins with it.
        loud = got["mel"][row].mean(1)
        frame = 20
        at = int(round((got["time"][row, frame].item() / 20) * 2)) + encoder.LEAD
        seconds = got["opening"][row, frame].item() / 25
        nearest = round(seconds)
        click = at + round((nearest - seconds) * 100)
        assert loud[click - 2 : click + 3].max() > loud[click + 8 : click + 40].max() + 0.3, row
    assert (got["first"] == -got["position"].clamp(max=0)).all() and (got["position"] < 1000 - pieces.TOKENS).all()


def test_what_is_before_a_streams_first_token_is_not_heard(small):
    frames = encoder.token_mel(mel.log_mel(voice(2)[None]), mel.SILENCE)
    other = frames.clone()
    # Tokens 0..9 take mel frames before 2 * 10 - 2, rows before 20.
    other[:, :20] += 1.0
    first = torch.tensor([10])
    with torch.no_grad():
        a, b = (small.whole(x, torch.tensor([-10]), first=first)[-1][0, 10:] for x in (frames, other))
        alone = small.whole(frames[:, 20:])[-1][0]
    assert torch.allclose(a, b, atol=1e-6) and torch.allclose(a, alone, atol=1e-5)


def test_a_tuned_run_comes_back_as_it_was_kept(tmp_path):
    from hearing import tune

    whole = tune.Whole(encoder.Encoder(), Hearing(12, np.ones(12), looks=tune.LOOKS))
    kept = {"average": whole.state_dict(), "settings": {"seed": 7}, "step": 5}
    torch.save(kept, tmp_path / "tuned.pt")
    again, step = tune.restore(tmp_path, {"basis": np.zeros((168, 12)), "opening": np.ones(12)})
    x = torch.randn(1, 43, 80)
    assert step == 5 and torch.equal(whole.eval().features(x, half=False), again.features(x, half=False))


def test_weights_between_two_are_on_the_straight_way():
    from hearing import export

    got = export.between({"w": torch.zeros(2)}, {"w": torch.tensor([1.0, 4.0])}, 0.25)
    assert got["w"].tolist() == [0.25, 1.0]
