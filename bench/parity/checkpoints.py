"""Random weights in the layouts and at the widths in which LatentSync is published, and PyTorch's networks of them."""
import shutil
import subprocess
import sys
from pathlib import Path

import torch

# Where nobody asks for the published U-Net: one that is narrow, since an engine has one.
NARROW = {"block_out_channels": [32, 32, 32, 32], "norm_num_groups": 32}
# configs/unet/stage2.yaml's `model`, less what has that value by default.
UNET = {
    "act_fn": "silu", "add_audio_layer": True, "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False, "cross_attention_dim": 384, "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0,
    "down_block_types": ["CrossAttnDownBlock3D"] * 3 + ["DownBlock3D"], "mid_block_type": "UNetMidBlock3DCrossAttn",
    "up_block_types": ["UpBlock3D"] + ["CrossAttnUpBlock3D"] * 3, "in_channels": 13, "layers_per_block": 2,
    "mid_block_scale_factor": 1, "norm_eps": 1e-5, "norm_num_groups": 32, "out_channels": 4, "sample_size": 64,
    "resnet_time_scale_shift": "default", "use_motion_module": True, "motion_module_resolutions": [1, 2, 4, 8],
    "motion_module_mid_block": False, "motion_module_decoder_only": False, "motion_module_type": "Vanilla",
    "motion_module_kwargs": {
        "num_attention_heads": 8, "num_transformer_block": 1, "attention_block_types": ["Temporal_Self", "Temporal_Self"],
        "temporal_position_encoding": True, "temporal_position_encoding_max_len": 24, "temporal_attention_dim_div": 1,
        "zero_initialize": False,
    },
}
# stabilityai/sd-vae-ft-mse's config.json.
VAE = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4, "norm_num_groups": 32,
       "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4, "sample_size": 256}
# Whisper tiny's encoder; of the text part, which nobody hears, as little as may be.
WHISPER = {"n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 384, "n_audio_head": 6, "n_audio_layer": 4, "n_vocab": 8,
           "n_text_ctx": 4, "n_text_state": 384, "n_text_head": 6, "n_text_layer": 1}


def engine(work):
    return work / "data/lipstream/engines/latentsync"


def modules(original):
    """The published program's own."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(original), *(path for path in sys.path if Path(path).resolve() != here)]
    from latentsync.models.unet import UNet3DConditionModel
    from latentsync.whisper.whisper import model as whisper
    return UNet3DConditionModel, whisper


def unet_config(work):
    return UNET | (NARROW if (work / "narrow").exists() else {})


def make(original, work, build, published_unet):
    """Writes what is not there yet and imports it."""
    from diffusers import AutoencoderKL, AutoencoderTiny
    work.mkdir(parents=True, exist_ok=True)
    narrow = work / "narrow"
    if engine(work).exists() and not (published_unet and narrow.exists()):
        return
    unet, whisper = modules(original)
    torch.manual_seed(1)
    (narrow.unlink(missing_ok=True) if published_unet else narrow.touch())
    network = unet.from_config(unet_config(work))
    # The first and the last convolution begin as zeros: nothing of the input would reach the output.
    for convolution in (network.conv_in, network.conv_out):
        torch.nn.init.normal_(convolution.weight, std=convolution.weight[0].numel() ** -0.5)
    torch.save({"global_step": 0, "state_dict": network.state_dict()}, work / "latentsync_unet.pt")
    del network
    hears = whisper.Whisper(whisper.ModelDimensions(**WHISPER))
    torch.nn.init.normal_(hears.encoder.positional_embedding, std=0.02)
    state = {name: tensor.half() for name, tensor in hears.state_dict().items()}
    torch.save({"dims": WHISPER, "model_state_dict": state}, work / "tiny.pt")
    AutoencoderKL(**VAE).save_pretrained(work / "vae")
    AutoencoderTiny().save_pretrained(work / "taesd")
    shutil.rmtree(engine(work), ignore_errors=True)
    sources = ["latentsync_unet.pt", "tiny.pt", "vae", "taesd"]
    froms = sum((["--from", str(work / name)] for name in sources), [])
    subprocess.run([str(build / "lipstream"), "import", "latentsync", *froms, "--name", "latentsync"], check=True)


def torch_network(original, work, name, inputs):
    """What runs the network `name` once and gives its outputs in the order of ours."""
    from diffusers import AutoencoderKL, AutoencoderTiny
    if name == "unet":
        unet, _ = modules(original)
        with torch.device("meta"):
            network = unet.from_config(unet_config(work))
        # Mapped, so that the weights are in memory once.
        state = torch.load(work / "latentsync_unet.pt", mmap=True, weights_only=True)["state_dict"]
        # The class's own method takes no `assign`.
        torch.nn.Module.load_state_dict(network, state, assign=True)
        network.eval()
        audio = inputs["audio"].flatten(0, 1)
        return lambda: [network(inputs["sample"], inputs["timestep"][0], encoder_hidden_states=audio).sample]
    if name in ("encoder", "decoder"):
        vae = AutoencoderKL.from_pretrained(work / "vae").eval()
        if name == "decoder":
            return lambda: [vae.decode(inputs["latents"]).sample]

        def encode():
            found = vae.encode(inputs["pixels"]).latent_dist
            return [found.mean, found.logvar]
        return encode
    if name == "taesd":
        tiny = AutoencoderTiny.from_pretrained(work / "taesd").eval()
        return lambda: [tiny.decode(inputs["latents"]).sample]
    _, whisper = modules(original)
    stored = torch.load(work / "tiny.pt", weights_only=True)
    hears = whisper.Whisper(whisper.ModelDimensions(**stored["dims"]))
    hears.load_state_dict({name: tensor.float() for name, tensor in stored["model_state_dict"].items()})
    encoder = hears.encoder.eval()
    # It refuses other lengths than that of its table.
    encoder.positional_embedding = encoder.positional_embedding[:inputs["mel"].shape[2] // 2]

    def hear():
        states = torch.as_tensor(encoder(inputs["mel"], include_embeddings=True)[1])
        return [states.permute(0, 2, 1, 3)]
    return hear
