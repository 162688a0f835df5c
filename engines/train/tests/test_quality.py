"""The figures of evaluate.py: on what is known beforehand, and against those of `lipstream eval`."""

import importlib.util
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

import evaluate
from quality import figures, floor, media, pair, people, plots, sync

ROOT = evaluate.ROOT
LIPSTREAM = Path(os.environ.get("LIPSTREAM", ROOT / "target/release/lipstream"))


def lacks(*modules):
    return ", ".join(m for m in modules if importlib.util.find_spec(m) is None)


def picture(seed=0, side=64):
    return np.random.default_rng(seed).integers(40, 200, (side, side)).astype(float)


def turning(frames, late=0):
    rows = np.random.default_rng(5).standard_normal((400, 64))[100 - late : 100 - late + frames]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_gaps_are_filled_by_straight_lines():
    nan = np.nan
    np.testing.assert_allclose(figures.fill([nan, 1, nan, nan, 4, nan]), [1, 1, 2, 3, 4, 4])
    np.testing.assert_allclose(figures.fill(np.array([[nan, 2.0], [3.0, nan]])), [[3, 2], [3, 2]])
    assert not figures.fill([nan, nan]).any()


def test_a_signal_that_is_late_is_found_so():
    t = np.arange(200)
    wave = lambda late: np.sin((t - late) * 0.37) + 0.5 * np.sin((t - late) * 1.1)
    r, lag = figures.correlate(wave(3), wave(0), 10)
    assert lag == 3 and r > 0.999
    assert figures.correlate(wave(0), wave(3), 10)[1] == -3
    assert figures.correlate(np.ones(50), wave(0)[:50], 3) is None


def test_closures_are_met_within_a_frame_and_missed_beyond():
    said = np.ones(100)
    said[[20, 21, 50, 80]] = 0.0
    # Of a long rest the two ends are closures.
    said[60:75] = 0.0
    late = lambda frames: np.roll(said, frames)
    assert figures.closures(late(1), said)[0] == 1.0
    assert figures.closures(late(3), said)[0] < 1.0
    half = np.maximum(said, 0.5)
    half[90:95] = 0.0
    met, depth, count = figures.closures(half, said)
    assert met == 0.0 and abs(depth - 0.5) < 0.01 and count == 5
    assert figures.closures(said, np.ones(100)) is None


def test_closures_at_the_words_of_an_alignment():
    align = "0 10000 sil\n10000 14000 bin\n14000 18000 red\n30000 34000 please\nbroken\n"
    times = figures.meetings(align)
    assert times == [0.4, 1.2]
    said = np.ones(60)
    said[[11, 31]] = 0.0
    assert figures.lowest_near(times + [9.0], said) == [11 / 25, 31 / 25]
    made = np.ones(60)
    made[[12, 50]] = 0.0
    met, depth, count = figures.closures_at(made, [11 / 25, 31 / 25])
    assert (met, depth, count) == (0.5, 0.5, 2)
    assert figures.closures_at(made, []) is None and figures.closures_at(made[:5], [0.1]) is None
    assert pair.closures(None) == {} and pair.closures((0.5, 0.4, 2), "aligned_")["aligned_closures"] == 0.5


@pytest.mark.skipif(bool(lacks("scipy", "torch")), reason="SciPy or PyTorch is not installed")
def test_rest_is_told_for_each_sound_after_the_mouth_has_settled():
    from quality import rest

    rate, rng = rest.RATE, np.random.default_rng(2)
    voices = [np.sin(np.arange(rate * 4) * f).astype(np.float32) for f in (0.05, 0.08, 0.11)]
    made = rest.sounds(voices)
    loud = {name: 20 * np.log10(np.sqrt(np.mean(np.square(x, dtype=np.float64))) + 1e-12) for name, x in made.items()}
    assert {len(x) for x in made.values()} == {int(rest.STILL * rate)}
    assert loud["silence"] < -200 and abs(loud["babble"] - rest.VOICE + 20) < 0.1 and abs(loud["hum"] + 40) < 0.1
    # A mouth that moves half as far in the second sound, and shuts in the first half second of each.
    per = int(rest.STILL * rest.FPS)
    speech = np.tile([0.0, 2.0], int(rest.SPEECH * rest.FPS))[: int(rest.SPEECH * rest.FPS)]
    left = int(round(rest.LEFT * rest.FPS))
    still = [np.concatenate([np.full(left, 9.0), after]) for after in (np.full(per - left, 1.0), np.tile([0.0, 1.0], per)[: per - left])]
    found = rest.figures(np.concatenate([speech, *still]), ["a", "b"])
    assert found["a"] < 1e-9 and abs(found["b"] - 0.5) < 0.02, found
    assert rest.table([{"video": "v"} | found]).splitlines()[1].split()[0] == "v"


@pytest.mark.skipif(bool(lacks("scipy", "torch")), reason="SciPy or PyTorch is not installed")
def test_languages_are_told_by_their_phones():
    from quality import languages

    phones = [("b", 0.05), ("a", 0.3), ("m", 0.4), ("pau", 0.6), ("p", 0.7), ("i", 0.9)]
    np.testing.assert_allclose(languages.middles(phones, 10.0), [10.35, 10.65])
    rows = [{"language": k, "closures": c, "closure_depth": 0.5, "closure_count": n} for k, c, n in (("de", 1.0, 3), ("fr", 0.0, 1))]
    last = languages.table(rows).splitlines()[-1].split()
    assert last == ["all", "0.75", "0.50", "4"]


def test_alignment_takes_the_anchors_to_their_places():
    angle, scale = 0.2, 140.0
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.zeros((2, 111, 2))
    points[0, figures.ANCHORS] = figures.TEMPLATE @ turn.T + [320, 200]
    points[1] = np.nan
    maps = figures.align(points)
    np.testing.assert_allclose(figures.apply(maps[0], points[0, figures.ANCHORS]), figures.TEMPLATE, atol=1e-9)
    assert np.isnan(maps[1]).all()


def test_a_crop_shows_its_square_at_any_size():
    y, x = np.mgrid[0:120, 0:160]
    ramp = (x + 0.5 * y).astype(np.uint8)
    matrix = np.array([[1 / 64, 0, -32 / 64], [0, 1 / 64, -16 / 64]])
    for side in (16, 32, 64, 128):
        at = 32 + (np.arange(side) + 0.5) * 64 / side
        found = figures.crop(ramp, matrix, side)
        np.testing.assert_allclose(found[side // 2], at - 0.5 + 0.5 * (at[side // 2] - 16 - 0.5), atol=1.1)


def test_what_is_equal_is_equal_and_an_error_of_ten_is_28_db():
    p = picture()
    assert figures.psnr(p, p) == 100.0 and abs(figures.ssim(p, p) - 1) < 1e-12
    assert abs(figures.psnr(p, p + 10) - 28.13) < 0.01
    soft = (p + np.roll(p, 1, 0) + np.roll(p, 1, 1)) / 3
    assert figures.sharpness(soft) < 0.5 * figures.sharpness(p) and figures.ssim(p, soft) < 0.9


def test_flicker_counts_where_the_truth_is_quiet():
    still = np.full((32, 32), 50.0)
    truth = still.copy()
    truth[21:] = 90
    made = truth.copy()
    made[:, 16] = 90
    flicker = figures.Flicker()
    assert flicker.finish() is None
    flicker.push((still, made, still), (still, truth, still))
    here, there = flicker.finish()
    assert abs(here - 80 / 28) < 1e-9 and there == 0


def test_a_patch_of_another_brightness_has_a_seam():
    square = np.array([[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]])
    truth = np.full((32, 32), 100.0)
    patched = truth.copy()
    patched[8:24, 8:24] += 10
    for outline in (square, square[::-1]):
        step, made, true = figures.seam(patched, truth, figures.crossings(outline))
        assert 8 < step <= 10 and made == step and true == 0
        assert figures.seam(patched, patched, figures.crossings(outline)) == (0, made, made)
    assert figures.seam(truth + 9, truth, figures.crossings(square)) == (0, 0, 0)
    assert figures.seam(truth, truth, figures.crossings(square[:0])) is None


def test_offsets_have_a_sign_and_a_least_length():
    found = figures.offset(turning(80, 4), turning(90))
    assert found[0] == 4 and found[1] > 0.9 and len(found[2]) == 31
    assert figures.offset(turning(80), turning(80, 15))[0] == -15
    assert figures.offset(turning(49), turning(80)) is None


def test_a_sound_is_shifted_as_its_offset_says():
    samples = np.arange(640 * 60, dtype=np.float32)
    assert sync.shifted(samples, 3)[0] == 3 * 640
    late = sync.shifted(samples, -2)
    assert not late[: 2 * 640].any() and late[2 * 640 + 1] == 1


def test_a_set_is_summed_up():
    rows = [
        {"clip": "a", "offset": 0, "confidence": 0.5, "shifts": {3: 3, -4: -4}, "shuffled": [0.1, 0.2]},
        {"clip": "b", "offset": 2, "confidence": 0.3, "shifts": {3: 4}, "shuffled": [0.4]},
    ]
    s = sync.summary(rows)
    assert (s["in_sync"], s["shift_within_1"], s["confidence"]) == (0.5, 1.0, 0.4)
    assert abs(s["shift_exact"] - 2 / 3) < 1e-9 and abs(s["told_apart"] - 5 / 6) < 1e-9
    assert sync.summary([])["in_sync"] is None and "b" not in sync.table({"x": {"summary": s, "rows": rows}}).split()


def test_people_are_listed_with_their_medians():
    rows = [{"video": "a", "r": 0.2, "lag": 1}, {"video": "b", "r": 0.6, "self_psnr": 31.0}, {"video": "c", "r": 0.4}]
    assert people.medians(rows) == {"r": 0.4, "lag": 1.0, "self_psnr": 31.0}
    head, *lines = people.table("free", rows).strip().splitlines()
    assert head.split()[0] == "free" and [line.split()[0] for line in lines] == ["a", "b", "c", "median"]
    assert all(len(line.split()) == len(people.COLUMNS) + 1 for line in lines) and "31.00" in lines[-1]


@pytest.mark.skipif(bool(lacks("matplotlib")), reason="matplotlib is not installed")
def test_logs_become_a_page(tmp_path):
    log = tmp_path / "first" / "log.jsonl"
    log.parent.mkdir()
    lines = [{"step": s, "loss": 1.0 / s, "val": {"free": [s, 0.5]}, "name": "x", "broken": None} for s in (1, 2, 3)]
    log.write_text("\n".join(map(json.dumps, lines)) + "\nnot json\n[1]\n")
    series = plots.read(log)
    assert set(series) == {"loss", "val.free[0]", "val.free[1]"} and series["val.free[0]"] == ([1, 2, 3], [1, 2, 3])
    titles = [axes.get_title() for axes in plots.figure({"first": series}).axes]
    assert titles == ["loss", "val.free[0]"], "what never changes needs no plot"
    for name in ("page.html", "page.png"):
        plots.run([log], tmp_path / name)
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG") and "first" in (tmp_path / "page.html").read_text()
    plots.run([log], tmp_path / "page.svg", ["loss"])
    once = (tmp_path / "page.svg").read_text()
    assert "<svg" in once and [a.get_title() for a in plots.figure({"first": series}, ["loss"]).axes] == ["loss"]
    with pytest.raises(SystemExit, match="no gain that changes"):
        plots.run([log], tmp_path / "page.svg", ["gain"])
    for wrong in ([log], tmp_path / "page.gif"), ([tmp_path / "none.jsonl"], tmp_path / "page.png"):
        with pytest.raises(SystemExit):
            plots.run(*wrong)


@pytest.mark.skipif(bool(lacks("torch", "scipy")), reason="PyTorch or SciPy is not installed")
class TestSyncNet:
    def test_it_takes_a_state_of_the_published_layout(self, tmp_path):
        import torch

        from quality import syncnet

        torch.manual_seed(0)
        net = syncnet.network()
        path = tmp_path / "syncnet_v2.model"
        torch.save(net.state_dict(), path)
        shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
        assert shapes["netcnnlip.0.weight"] == (96, 3, 5, 7, 7) and shapes["netcnnaud.19.bias"] == (512,)
        assert shapes["netfcaud.3.weight"] == shapes["netfclip.3.weight"] == (1024, 512)
        loaded = syncnet.load(path)
        rng = np.random.default_rng(0)
        pictures = rng.integers(0, 255, (9, 224, 224, 3), dtype=np.uint8)
        found = syncnet.score(loaded, pictures, 0.1 * rng.standard_normal(9 * 640))
        assert set(found) == {"lse_d", "lse_c", "lse_offset"} and found["lse_d"] > 0 and found["lse_c"] >= 0
        assert syncnet.score(loaded, pictures[:5], np.zeros(5 * 640)) == {}
        for wrong in (b"no state", b"junk\n", b""):
            path.write_bytes(wrong)
            with pytest.raises(SystemExit, match="not the state of SyncNet v2"):
                syncnet.load(path)

    def test_scores_find_a_shift(self):
        from quality import syncnet

        rows = np.random.default_rng(1).standard_normal((100, 8))
        found = syncnet.scores(syncnet.distances(rows[10:70], rows[14:74]))
        assert found["lse_offset"] == 4 and found["lse_d"] < 1 and found["lse_c"] > 2

    def test_mfcc_of_a_tone_lies_where_the_tone_is(self):
        from quality import syncnet

        t = np.arange(16000) / 16000
        low, high = (syncnet.mfcc(0.3 * np.sin(2 * np.pi * hertz * t)) for hertz in (300, 5000))
        assert low.shape == high.shape == (99, 13)
        # The second coefficient is the slope of the spectrum, the first the energy.
        assert low[20, 1] > 0 > high[20, 1]
        louder = syncnet.mfcc(0.6 * np.sin(2 * np.pi * 300 * t))
        np.testing.assert_allclose(louder[20, 0] - low[20, 0], 2 * np.log(2), atol=0.01)


missing = lacks("onnxruntime") or ("" if LIPSTREAM.is_file() else f"{LIPSTREAM} (run `make build`)")


@pytest.mark.skipif(bool(missing), reason=f"not there: {missing}")
def test_lipstream_eval_says_the_same(tmp_path):
    demo, speech = ROOT / "demo/avatar.mp4", ROOT / "demo/speech.flac"
    worse = tmp_path / "worse.mp4"
    filters = "noise=c0s=6:c0f=t,gblur=sigma=1.2,tpad=start=1:start_mode=clone"
    encode = ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "22", "-pix_fmt", "yuv420p", "-t", "6"]
    media.run("ffmpeg", "-nostdin", "-v", "error", "-i", demo, "-an", "-vf", filters, *encode, worse)
    points = media.Points(LIPSTREAM, tmp_path / "points")
    expert = media.Expert(ROOT / "engines/models/expert")
    ours = pair.pair(points, expert, worse, truth=demo, audio=speech, silent=demo)
    command = [LIPSTREAM, "eval", worse, "--true", demo, "--audio", speech, "--silent", demo, "--json"]
    theirs = json.loads(subprocess.check_output([str(c) for c in command]))
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        # What is no ratio has a size of its own.
        tolerance = 0.005 * max(1.0, abs(value))
        assert abs(ours[name] - value) <= tolerance, f"{name}: {ours[name]} and {value}"


def test_what_bone_fixes_is_seen_to_move_by_the_meshs_noise_alone():
    rng = np.random.default_rng(3)
    face = rng.uniform(0, 100, (468, 2))
    face[[168, 6, 197, 195, 5]] = [[50, 40 + 8 * k] for k in range(5)]
    face[[33, 263]] = [[20, 40], [80, 40]]
    # A head that moves, comes nearer and turns in the plane moves no bone.
    turn = np.linspace(0, 0.4, 2000)
    rotation = np.stack([np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)], -1).reshape(-1, 2, 2)
    heads = np.einsum("tij,pj->tpi", rotation, face) * np.linspace(1, 1.5, 2000)[:, None, None] + np.linspace(0, 30, 2000)[:, None, None]
    assert floor.deviation(heads) < 1e-9
    noisy = np.repeat(face[None], 2000, 0)
    noisy[:, [168, 6, 197, 195, 5]] += rng.normal(0, 0.3, (2000, 5, 2))
    # Of both ends of a distance of 8, in eyes of 60.
    assert abs(floor.deviation(noisy) - 0.3 * 2**0.5 / 60) < 3e-4
