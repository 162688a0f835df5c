"""LSE-C and LSE-D with the published SyncNet v2: `evaluate.py pair --syncnet syncnet_v2.model`.

J. S. Chung, A. Zisserman, "Out of time: automated lip sync in the wild", ACCV 2016; weights as joonson/syncnet_python
publishes them (a PyTorch state of the class S). LSE-D and LSE-C as K. R. Prajwal et al., "A lip sync expert is all you need
for speech to lip generation in the wild", ACM MM 2020, compute them with it.

Faces are cut as that program's pipeline cuts them from its detector's box, here from the landmarks' box: figures compare
with each other, and with other people's only to about 0.3.
"""

import subprocess

import numpy as np

from quality.figures import RATE, fill
from quality.media import own_sound, places, probe, sound

SIDE = 224
WINDOW = 5
SHIFT = 15
BATCH = 20
# Half the cut's side over half the larger side of the box, the part of the box that the cut reaches further down, and the
# frames of the median filter that steadies it.
PAD = 0.4
STEADY = 13
COEFFICIENTS = 13


def network():
    """SyncNet with the names of the published state."""
    from torch import nn

    def block(kind, norm, inside, outside, kernel, **options):
        return [kind(inside, outside, kernel, **options), norm(outside), nn.ReLU(inplace=True)]

    def flat(*layers):
        return nn.Sequential(*(layer for part in layers for layer in (part if isinstance(part, list) else [part])))

    def head():
        return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))

    two, three = (nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d)

    class S(nn.Module):
        def __init__(self):
            super().__init__()
            self.netcnnaud = flat(
                block(*two, 1, 64, 3, padding=1), nn.MaxPool2d(1, 1),
                block(*two, 64, 192, 3, padding=1), nn.MaxPool2d(3, (1, 2)),
                block(*two, 192, 384, 3, padding=1), block(*two, 384, 256, 3, padding=1), block(*two, 256, 256, 3, padding=1),
                nn.MaxPool2d(3, 2), block(*two, 256, 512, (5, 4)),
            )
            self.netfcaud = head()
            self.netcnnlip = flat(
                block(*three, 3, 96, (5, 7, 7), stride=(1, 2, 2)), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
                block(*three, 96, 256, (1, 5, 5), stride=(1, 2, 2), padding=(0, 1, 1)), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
                block(*three, 256, 256, (1, 3, 3), padding=(0, 1, 1)), block(*three, 256, 256, (1, 3, 3), padding=(0, 1, 1)),
                block(*three, 256, 256, (1, 3, 3), padding=(0, 1, 1)), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
                block(*three, 256, 512, (1, 6, 6)),
            )
            self.netfclip = head()

        def sound(self, mfcc):
            """[n, 1024] of [n, 1, 13, 20]."""
            return self.netfcaud(self.netcnnaud(mfcc).flatten(1))

        def lips(self, faces):
            """[n, 1024] of [n, 3, 5, 224, 224], blue first, 0..255."""
            return self.netfclip(self.netcnnlip(faces).flatten(1))

    return S()


def load(path):
    import torch

    net = network()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        net.load_state_dict(state)
    except Exception as error:  # what a file that is no state makes of the unpickler is anything
        cause = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise SystemExit(f"{path}: not the state of SyncNet v2 ({cause}); --syncnet takes syncnet_v2.model as published")
    return net.eval()


def mfcc(samples):
    """[frames, 13], 100 a second, of samples -1..1, as python_speech_features makes them with its defaults.

    Pre-emphasis 0.97; frames of 25 ms without a window; FFT of 512; 26 mel filters, 0..8000 Hz; log; DCT-II, orthonormal; lifter
    of 22; the first coefficient is the log of the frame's energy. The samples are those of 16-bit sound.
    """
    from scipy.fft import dct

    x = np.round(np.asarray(samples, np.float64) * 32767)
    x = np.append(x[:1], x[1:] - 0.97 * x[:-1])
    count = 1 if len(x) <= 400 else 1 + -(-(len(x) - 400) // 160)
    x = np.pad(x, (0, max(0, (count - 1) * 160 + 400 - len(x))))
    power = np.abs(np.fft.rfft(x[np.arange(count)[:, None] * 160 + np.arange(400)], 512)) ** 2 / 512
    mel = lambda hz: 2595 * np.log10(1 + hz / 700.0)
    corners = np.floor(513 * 700 * (10 ** (np.linspace(mel(0), mel(8000), 28) / 2595) - 1) / 16000)
    k = np.arange(257)
    low, mid, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        filters = np.where((k >= low) & (k < mid), (k - low) / (mid - low), 0) + np.where((k >= mid) & (k < high), (high - k) / (high - mid), 0)
    tiny = np.finfo(float).eps
    energies = np.log(np.maximum(power @ filters.T, tiny))
    out = dct(energies, type=2, axis=1, norm="ortho")[:, :COEFFICIENTS] * (1 + 11 * np.sin(np.pi * np.arange(COEFFICIENTS) / 22))
    out[:, 0] = np.log(np.maximum(power.sum(1), tiny))
    return out


def faces(video, points):
    """uint8 [frames, 224, 224, 3], blue first, on the grid; of [frames, 111, 2] landmarks."""
    import cv2
    from scipy.signal import medfilt

    low, high = fill(points.min(1)), fill(points.max(1))
    steady = lambda v: medfilt(v, STEADY) if len(v) >= STEADY else v
    half = steady((high - low).max(1) / 2)
    x, y = steady((low + high)[:, 0] / 2), steady((low + high)[:, 1] / 2)
    stream, _ = probe(video, "v")
    width, height = stream["width"], stream["height"]
    if any(abs(d.get("rotation", 0)) % 180 == 90 for d in stream.get("side_data_list", [])):
        width, height = height, width
    command = ["ffmpeg", "-nostdin", "-v", "fatal", "-i", str(video), "-map", "v:0", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "bgr24", "-"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=1 << 20)
    at, pictures = places(video), []
    try:
        for place in at:
            data = process.stdout.read(width * height * 3)
            if len(data) < width * height * 3 or place >= len(points):
                break
            while pictures and len(pictures) < place:
                pictures.append(pictures[-1])
            if place < len(pictures):
                continue
            frame = np.frombuffer(data, np.uint8).reshape(height, width, 3)
            s = max(half[place], 1.0)
            border = int(s * (1 + 2 * PAD))
            frame = cv2.copyMakeBorder(frame, border, border, border, border, cv2.BORDER_CONSTANT, value=(110, 110, 110))
            cy, cx = int(y[place]) + border, int(x[place]) + border
            reach = int(s * (1 + PAD))
            top = max(cy - int(s), 0)
            cut = frame[top : cy + int(s * (1 + 2 * PAD)), max(cx - reach, 0) : cx + reach]
            pictures.append(cv2.resize(cut, (SIDE, SIDE)) if cut.size else np.full((SIDE, SIDE, 3), 110, np.uint8))
    finally:
        process.stdout.close()
        process.kill()
        process.wait()
    return np.stack(pictures) if pictures else np.zeros((0, SIDE, SIDE, 3), np.uint8)


def distances(lips, voice):
    """[n, 31]: Euclidean distance of each window's lips from the sound of -15..15 frames, the sound padded with zeros."""
    padded = np.pad(voice, ((SHIFT, SHIFT), (0, 0)))
    # The program adds 1e-6 to each difference.
    return np.stack([np.linalg.norm(lips[i] - padded[i : i + 2 * SHIFT + 1] + 1e-6, axis=1) for i in range(len(lips))])


def scores(table):
    """{lse_d, lse_c, lse_offset} of [n, 31] distances; a positive offset says that the picture is late."""
    mean = table.mean(0)
    best = int(mean.argmin())
    # Column k compares the lips with the sound k - 15 frames later: where that is earlier sound, the picture is late.
    return {"lse_d": float(mean[best]), "lse_c": float(np.median(mean) - mean[best]), "lse_offset": SHIFT - best}


def score(net, pictures, samples):
    """Scores of uint8 [frames, 224, 224, 3] and 16 kHz samples; {} below six frames."""
    import torch

    features = mfcc(samples)
    count = min(len(pictures), len(samples) * RATE // 16000) - WINDOW
    count = min(count, (len(features) - 4 * WINDOW) // 4 + 1)
    if count < 1:
        return {}
    lips, voice = [], []
    with torch.no_grad():
        for first in range(0, count, BATCH):
            span = range(first, min(first + BATCH, count))
            windows = np.stack([pictures[i : i + WINDOW].transpose(3, 0, 1, 2) for i in span])
            lips.append(net.lips(torch.from_numpy(windows).float()).numpy())
            heard = np.stack([features[4 * i : 4 * i + 4 * WINDOW].T[None] for i in span])
            voice.append(net.sound(torch.from_numpy(heard).float()).numpy())
    return scores(distances(np.concatenate(lips), np.concatenate(voice)))


def measure(model, video, points, audio=None):
    """LSE-D, LSE-C of a video with its own sound or another; {} where it has none or is too short."""
    heard = sound(audio) if audio else own_sound(video)
    return {} if heard is None else score(load(model), faces(video, points), heard)
