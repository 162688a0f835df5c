"""The shipped motion model, run as an engine runs it: hop by hop, two steps. Needs onnxruntime."""

import shutil
import subprocess
import sys
import tomllib
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import audio
import tensors
from common import mesh

try:
    import onnxruntime
except ImportError:
    onnxruntime = None

MODELS = Path(__file__).resolve().parents[2] / "models/compact"
SPEECH = Path(__file__).resolve().parents[3] / "demo/speech.flac"


@unittest.skipIf(onnxruntime is None, "onnxruntime is not installed")
@unittest.skipUnless((MODELS / "audio.onnx").exists(), "the compact models are not here")
class Shipped(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.manifest = tomllib.loads((MODELS / "engine.toml").read_text())
        cls.audio, cls.motion = (onnxruntime.InferenceSession(str(MODELS / f"{n}.onnx"), providers=["CPUExecutionProvider"])
                                 for n in ("audio", "motion"))
        cls.basis = tensors.load(MODELS / "basis.safetensors")

    def opening(self, samples, steps=2):
        """Opening in population spreads at 25 frames a second, without noise."""
        m = self.manifest["audio"]
        mel = ((audio.log_mel(samples) - m["mel_mean"]) / m["mel_std"]).astype(np.float32)
        state, features = np.zeros((1, self.audio.get_inputs()[1].shape[1]), np.float32), []
        for j in range(len(mel) // 2):
            feature, state = self.audio.run(None, {"mel": mel[None, 2 * j : 2 * j + 2], "state": state})
            features.append(feature[0])
        taps, z = [round(t / m["hop_ms"]) for t in m["taps_ms"]], []
        for j in range(0, len(features) - max(taps), 2):
            cond = np.concatenate([features[max(0, j + t)] for t in taps])[None]
            x = np.zeros((1, self.basis["basis"].shape[1]), np.float32)
            for i in range(steps):
                (v,) = self.motion.run(None, {"latent": x, "timestep": np.full(1, i / steps, np.float32), "cond": cond})
                x = x + v / steps
            z.append(x[0])
        a, b = mesh.OPENING
        direction = self.basis["basis"][2 * b + 1] - self.basis["basis"][2 * a + 1]
        return np.array(z) @ direction / self.basis["spread"][0]

    def test_silence_and_a_low_noise_keep_the_lips_closed(self):
        noise = np.random.default_rng(0).standard_normal(32000)
        for level in (0.0, 1e-3):
            got = self.opening(level * noise)
            self.assertLess(np.abs(got).max(), 0.15)
            self.assertLess(got[12:].std(), 0.03)

    @unittest.skipIf(shutil.which("ffmpeg") is None, "ffmpeg is not installed")
    def test_words_move_the_lips_and_their_end_closes_them(self):
        # Words from 0.4 to 7.4 s, none from there to 8.3 s.
        command = ["ffmpeg", "-v", "error", "-i", str(SPEECH), "-t", "8.3", "-f", "f32le", "-ac", "1", "-ar", "16000", "-"]
        got = self.opening(np.frombuffer(subprocess.check_output(command), np.float32))
        words, pause = got[12:180], got[190:]
        self.assertGreater(words.max(), 0.8)
        self.assertGreater(words.std(), 0.2)
        self.assertLess(np.abs(pause).max(), 0.1)

    def test_any_number_of_steps_agrees(self):
        t = np.arange(32000) / 16000
        sound = 0.1 * np.sin(2 * np.pi * 200 * t) * (0.5 + 0.5 * np.sin(2 * np.pi * 4 * t))
        one, four = self.opening(sound, 1), self.opening(sound, 4)
        self.assertLess(np.abs(one - four).mean(), 0.12)

    def test_shapes_are_the_manifest_s(self):
        m, latents = self.manifest["audio"], self.manifest["latent"]["shape"][0]
        self.assertEqual(self.audio.get_outputs()[0].shape[1], m["features"])
        self.assertEqual(self.motion.get_inputs()[2].shape[1], m["features"] * len(m["taps_ms"]))
        self.assertEqual(self.motion.get_inputs()[0].shape[1], latents)
        self.assertEqual(self.basis["basis"].shape, (168, latents))
        self.assertEqual(self.basis["silence"].shape, (m["features"],))
        np.testing.assert_allclose(self.basis["project"] @ self.basis["basis"], np.eye(latents), atol=1e-3)


if __name__ == "__main__":
    unittest.main()
