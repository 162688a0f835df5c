"""Runs bytedance/LatentSync's own pipeline from a checkout, on a CPU, with points and noise from elsewhere."""
import json
import subprocess
import sys
import types
from pathlib import Path

import cv2
import numpy as np

GAMMA = np.uint64(0x9E3779B97F4A7C15)


class Noise:
    """Normal numbers as engines/src/engine/noise.rs draws them: SplitMix64, Box and Muller."""

    def __init__(self, seed):
        self.seed, self.drawn = np.uint64(seed), 0

    def uniform(self, first, count):
        with np.errstate(over="ignore"):
            z = self.seed + np.arange(first + 1, first + count + 1, dtype=np.uint64) * GAMMA
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2**53

    def normal(self, count):
        first = self.drawn // 2 * 2
        pairs = (self.drawn + count - first + 1) // 2
        u = self.uniform(first, 2 * pairs).reshape(-1, 2)
        radius, angle = np.sqrt(-2 * np.log(1 - u[:, 0])), 2 * np.pi * u[:, 1]
        all_of_them = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).ravel().astype(np.float32)
        start = self.drawn - first
        self.drawn += count
        return all_of_them[start:start + count]


def run(original, weights, out, points, steps, seed):
    """Frames of the pipeline, u8 RGB; where they were painted, bool; the length of a clip."""
    # Not installed: its weights may not be used here.
    insightface = types.ModuleType("insightface")
    insightface.app = types.ModuleType("insightface.app")
    insightface.app.FaceAnalysis = None
    sys.modules.update({"insightface": insightface, "insightface.app": insightface.app})
    # The checkout's `latentsync` has no __init__.py, so that the script of that name would be found first.
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(original), *(path for path in sys.path if Path(path).resolve() != here)]
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler
    from latentsync.models.unet import UNet3DConditionModel
    from latentsync.pipelines import lipsync_pipeline as module
    from latentsync.utils import image_processor, util
    from latentsync.whisper.audio2feature import Audio2Feature

    config = json.loads((weights / "config.json").read_text())
    data, side = config["data"], config["data"]["resolution"]
    faces = iter(points)

    class Restorer(image_processor.AlignRestore):
        def __init__(self, resolution, device):
            super().__init__(resolution=resolution, device="cpu", dtype=torch.float32)

    class Processor(image_processor.ImageProcessor):
        def __init__(self, resolution, device, mask_image):
            super().__init__(resolution, "cpu", mask_image)
            self.face_detector = detect

    def detect(_):
        """106 landmarks of which those that the alignment takes the means of lie where the points are."""
        face = next(faces)
        if face is None:
            return None, None
        landmarks = np.zeros((106, 2))
        for places, point in zip(([43, 48, 49, 51, 50], range(101, 106), [74, 77, 83, 86]), face):
            landmarks[list(places)] = point
        return (0, 0, 1, 1), landmarks

    class Pipeline(module.LipsyncPipeline):
        def restore_video(self, faces, video_frames, boxes, affine_matrices):
            self.matrices, self.boxes = [m[0].numpy() for m in affine_matrices], boxes
            return super().restore_video(faces, video_frames, boxes, affine_matrices)

    image_processor.AlignRestore, module.ImageProcessor = Restorer, Processor
    module.read_video = lambda path, use_decord: util.read_video(path, change_fps=False, use_decord=False)
    written = []
    module.write_video = lambda path, frames, fps: (written.append(frames), util.write_video(path, frames, fps))

    scheduler = DDIMScheduler.from_pretrained(str(original / "configs"))
    whisper = Audio2Feature(str(weights / "tiny.pt"), "cpu", None, data["num_frames"], data["audio_feat_length"])
    vae = AutoencoderKL.from_pretrained(str(weights / "vae"))
    vae.config.scaling_factor, vae.config.shift_factor = config["vae"]["scaling_factor"], config["vae"]["shift_factor"]
    unet, _ = UNet3DConditionModel.from_pretrained(config["model"], str(weights / "latentsync_unet.pt"))
    pipeline = Pipeline(vae=vae, audio_encoder=whisper, unet=unet, scheduler=scheduler)

    noise, whole, randn = Noise(seed), [], torch.randn

    def drawn(shape, **_):
        """The latents' noise, then for each clip the masked faces' and the whole ones', which ours draws frame by frame."""
        if len(shape) == 4 and whole:
            return whole.pop()
        if len(shape) == 4:
            frames, *latent = shape
            both = torch.from_numpy(noise.normal(2 * int(np.prod(shape))).reshape(frames, 2, *latent))
            whole.append(both[:, 1])
            return both[:, 0]
        return torch.from_numpy(noise.normal(int(np.prod(shape))).reshape(tuple(shape)))

    torch.randn = drawn
    try:
        mask = original / "latentsync/utils/mask.png"
        pipeline(str(out / "video.mkv"), str(out / "speech.wav"), str(out / "theirs.mp4"), num_frames=data["num_frames"],
                 num_inference_steps=steps, guidance_scale=config["run"]["guidance_scale"], weight_dtype=torch.float32,
                 width=side, height=side, mask_image_path=str(mask), temp_dir=str(out / "temp"))
    finally:
        torch.randn = randn
    frames = written[0]
    keep = module.load_fixed_mask(side, str(mask))[0].numpy()
    painted = [painted_part(keep, box, matrix, frame.shape)
               for box, matrix, frame in zip(pipeline.boxes, pipeline.matrices, frames)]
    return {"frames": frames, "painted": np.stack(painted), "clip": data["num_frames"]}


def painted_part(keep, box, matrix, shape):
    """Pixels of a frame on which what the network painted lies, and not at its edge."""
    crop = cv2.resize((keep < 0.5).astype(np.float32), (box[2] - box[0], box[3] - box[1]), interpolation=cv2.INTER_LINEAR)
    return cv2.warpAffine(crop, matrix, (shape[1], shape[0]), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP) > 0.99


def as_rendered(frames, path):
    """The frames as a file, by the conversion and the encoder of `lipstream render --crf 0`."""
    rows, columns = frames.shape[1:3]
    subprocess.run(["gst-launch-1.0", "-q", "fdsrc", "!", "rawvideoparse", "format=rgb", f"width={columns}", f"height={rows}",
                    "framerate=25/1", "!", "videoconvert", "!", "video/x-raw,format=I420", "!", "x264enc", "pass=qual",
                    "quantizer=0", "!", "h264parse", "!", "matroskamux", "!", "filesink", f"location={path}"],
                   input=np.ascontiguousarray(frames).tobytes(), check=True)
    return path
