"""The motion model's conventions. Needs numpy; what needs torch or onnxruntime says so when it is absent."""

import sys
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import audio
import tensors

try:
    import torch

    from motion import batch, net as networks
except ImportError:
    torch = None

try:
    import onnx
    import onnxruntime
except ImportError:
    onnx = None

needs_torch = unittest.skipIf(torch is None, "PyTorch is not installed")


class Mel(unittest.TestCase):
    def test_sine_peaks_in_the_band_whose_centre_is_nearest(self):
        centres = audio.mel_to_hz(np.linspace(0, audio.hz_to_mel(8000), 82))[1:-1]
        for hertz in (250.0, 1000.0, 3500.0, 7000.0):
            mel = audio.log_mel(0.3 * np.sin(2 * np.pi * hertz * np.arange(8000) / 16000))
            self.assertLessEqual(abs(int(mel[20].argmax()) - int(np.abs(centres - hertz).argmin())), 1)

    def test_silence_is_the_floor_and_frames_are_counted_whole(self):
        self.assertEqual(audio.log_mel(np.zeros(399)).shape, (0, 80))
        self.assertEqual(audio.log_mel(np.zeros(400)).shape, (1, 80))
        mel = audio.log_mel(np.zeros(16000))
        self.assertEqual(mel.shape, (98, 80))
        np.testing.assert_allclose(mel, np.log(1e-6))

    def test_a_frame_sees_its_own_samples_only(self):
        x = np.random.default_rng(0).standard_normal(4000) * 0.1
        y = x.copy()
        y[160 * 10 + 400 :] = 0
        np.testing.assert_array_equal(audio.log_mel(x)[:11], audio.log_mel(y)[:11])
        self.assertGreater(np.abs(audio.log_mel(x)[11] - audio.log_mel(y)[11]).max(), 0)

    def test_golden_file_is_what_this_code_makes(self):
        stored = tensors.load(Path(__file__).resolve().parents[2] / "tests/golden/mel.safetensors")
        samples, mel = audio.golden()
        np.testing.assert_array_equal(stored["samples"], samples)
        np.testing.assert_allclose(stored["mel"], mel, atol=1e-5)

    @needs_torch
    def test_training_uses_the_same_mel(self):
        samples, mel = audio.golden()
        got = batch.Mel()(torch.from_numpy(samples)[None])[0].numpy()
        np.testing.assert_allclose(got, mel, atol=2e-2)
        self.assertLess(np.abs(got - mel).mean(), 1e-4)


@needs_torch
class Encoder(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(1)
        self.encoder = networks.AudioEncoder(width=24, features=8).eval()

    def test_pieces_give_what_the_whole_gives(self):
        mel = torch.randn(2, 60, 80)
        with torch.no_grad():
            whole, end = self.encoder(mel, self.encoder.zeros(2))
            state, got, at = self.encoder.zeros(2), [], 0
            for hops in (1, 3, 1, 9, 16):
                part, state = self.encoder(mel[:, at : at + 2 * hops], state)
                got.append(part)
                at += 2 * hops
        torch.testing.assert_close(torch.cat(got, 1), whole, atol=1e-5, rtol=0)
        torch.testing.assert_close(state, end, atol=1e-5, rtol=0)

    def test_single_hop_form_is_the_same_network(self):
        step, mel = networks.EncoderStep(self.encoder), torch.randn(2, 24, 80)
        with torch.no_grad():
            whole, _ = self.encoder(mel, self.encoder.zeros(2))
            state = self.encoder.zeros(2)
            for hop in range(12):
                feature, state = step(mel[:, 2 * hop : 2 * hop + 2], state)
                torch.testing.assert_close(feature, whole[:, hop], atol=1e-5, rtol=0)

    def test_future_does_not_reach_back(self):
        mel = torch.randn(1, 40, 80)
        other = mel.clone()
        other[:, 20:] += 5
        with torch.no_grad():
            a, b = (self.encoder(m, self.encoder.zeros(1))[0] for m in (mel, other))
        torch.testing.assert_close(a[:, :10], b[:, :10])
        self.assertGreater(float((a[:, 10] - b[:, 10]).abs().max()), 1e-4)


@needs_torch
class Window(unittest.TestCase):
    def test_taps_interpolate_and_stay_within_the_look_ahead(self):
        features = torch.arange(50, dtype=torch.float32).reshape(1, 50, 1) * 20
        time = torch.tensor([[200.0, 210.0, 218.0, 0.0]])
        got = networks.gather(features, time)[0]
        offsets = torch.tensor(networks.OFFSETS)
        torch.testing.assert_close(got[0], 200 + offsets)
        # At 210 ms the hop at 260 is complete at 295 > 290: the last taps hold the hop at 240.
        torch.testing.assert_close(got[1], torch.minimum(210 + offsets, torch.tensor(240.0)))
        torch.testing.assert_close(got[2], torch.minimum(218 + offsets, torch.tensor(260.0)))
        self.assertEqual(float(got[3].min()), 0.0)
        for t, row in zip(time[0], got):
            self.assertLessEqual(float(row.max()) + networks.FEATURE_END_MS, float(t) + networks.LOOKAHEAD_MS)


@needs_torch
class Schedule(unittest.TestCase):
    def test_euler_reaches_the_data_when_the_network_knows_it(self):
        data = torch.tensor([[0.5, -1.0, 2.0]])

        def knowing(latent, timestep, cond):
            return (data - latent) / (1 - timestep).unsqueeze(-1)

        for steps in (1, 2, 4, 8):
            got = networks.sample(knowing, None, torch.randn(1, 3), steps)
            torch.testing.assert_close(got, data, atol=1e-5, rtol=0)

    def test_prediction_is_a_velocity(self):
        torch.manual_seed(0)
        net = networks.Denoiser(3, 5, width=16).eval()
        x, t, c = torch.randn(4, 3), torch.tensor([0.0, 0.3, 0.5, 0.9]), torch.randn(4, 5)
        with torch.no_grad():
            clean = net.clean(x, t, net.cond(c))
            torch.testing.assert_close(x + (1 - t)[:, None] * net(x, t, c), clean, atol=1e-5, rtol=0)

    def test_noise_is_smooth_and_of_unit_variance(self):
        n = networks.smooth_noise(400, 50, 2, 0.9, torch.Generator().manual_seed(0))
        self.assertAlmostEqual(float(n[:, -1].std()), 1.0, delta=0.1)
        self.assertAlmostEqual(float((n[:, 1:] * n[:, :-1]).mean()), 0.9, delta=0.05)


@needs_torch
class Batch(unittest.TestCase):
    def clips(self):
        rng = np.random.default_rng(0)
        pcm = (rng.standard_normal(5 * 16000) * 3000).astype(np.int16)
        z = rng.standard_normal((125, 4)).astype(np.float32)
        return [batch.Clip("a", "gen", pcm, z, z[:, 0], 25.0)]

    def test_a_step_is_the_same_whatever_came_before(self):
        a, b = (batch.Batches(self.clips(), {"gen": 1.0}, 3, seed=4) for _ in range(2))
        a(0)
        first, second = a(5), b(5)
        for key in first:
            torch.testing.assert_close(first[key], second[key])
        self.assertFalse(torch.equal(first["mel"], a(6)["mel"]))

    def test_a_cut_silence_brings_the_lips_to_rest(self):
        time = np.arange(64) * 40.0
        sound, gate = batch.gap(np.ones(45000, np.float32), time, np.random.default_rng(2))
        quiet = np.flatnonzero(sound == 0) / 16.0
        inside = (time > quiet[0] + batch.CLOSE_MS) & (time < quiet[-1] - batch.LEAVE_MS)
        self.assertTrue(inside.any())
        self.assertEqual(float(gate[inside].max()), 0.0)
        self.assertEqual(float(gate.max()), 1.0)


@needs_torch
@unittest.skipIf(onnx is None, "onnx or onnxruntime is not installed")
class Export(unittest.TestCase):
    def test_files_do_what_the_model_does(self):
        import tempfile

        from motion import export

        torch.manual_seed(3)
        encoders = [networks.AudioEncoder(width=w, features=f, dropout=0.2) for w, f in ((24, 8), (16, 6))]
        denoisers = [networks.Denoiser(4, 7 * f, width=16, dropout=0.2) for f in (8, 6)]
        committee = networks.EncoderStack(encoders), networks.DenoiserStack(denoisers, [8, 6], 1.2)
        for encoder, denoiser in ((encoders[0], denoisers[0]), committee):
            model = torch.nn.Module()
            model.encoder, model.denoiser = encoder.eval(), denoiser.eval()
            with tempfile.TemporaryDirectory() as folder:
                folder = Path(folder)
                export.to_onnx(encoder.stepping().eval(), (torch.zeros(2, 2, 80), torch.zeros(2, encoder.state_size)),
                                      ("mel", "state"), ("feature", "next_state"), folder / "audio.onnx")
                export.to_onnx(denoiser, (torch.zeros(2, 4), torch.zeros(2), torch.zeros(2, denoiser.conditions)),
                                      ("latent", "timestep", "cond"), ("prediction",), folder / "motion.onnx")
                for name, difference in export.parity(model, folder).items():
                    self.assertLess(difference, 1e-4, name)

    def test_a_committee_of_twins_is_the_twin_and_gain_scales_it(self):
        torch.manual_seed(4)
        one = networks.Denoiser(4, 7 * 8, width=16).eval()
        taps = torch.randn(3, 7, 8)
        both = networks.DenoiserStack([one, one], [8, 8]).eval()
        loud = networks.DenoiserStack([one, one], [8, 8], 1.5).eval()
        with torch.no_grad():
            alone = networks.sample(one, taps.flatten(1), torch.zeros(3, 4), 2)
            doubled = torch.cat([taps, taps], -1).flatten(1)
            torch.testing.assert_close(networks.sample(both, doubled, torch.zeros(3, 4), 2), alone, atol=1e-5, rtol=0)
            torch.testing.assert_close(networks.sample(loud, doubled, torch.zeros(3, 4), 1),
                                       1.5 * networks.sample(one, taps.flatten(1), torch.zeros(3, 4), 1), atol=1e-5, rtol=0)


if __name__ == "__main__":
    unittest.main()
