"""Small blocks that both tracker networks are built of, and what exporting them needs."""

import copy

import torch
from torch import nn


class ConvBn(nn.Sequential):
    """Convolution, batch norm and, unless `linear`, ReLU. `fuse` folds the norm into the convolution."""

    def __init__(self, inputs, outputs, kernel=1, stride=1, groups=1, linear=False):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        if not linear:
            self.act = nn.ReLU(inplace=True)

    def fuse(self):
        if not isinstance(self.bn, nn.BatchNorm2d):
            return
        scale = self.bn.weight / torch.sqrt(self.bn.running_var + self.bn.eps)
        old = self.conv
        conv = nn.Conv2d(old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, groups=old.groups)
        conv.weight.data = (old.weight * scale[:, None, None, None]).detach()
        conv.bias.data = (self.bn.bias - self.bn.running_mean * scale).detach()
        self.conv, self.bn = conv, nn.Identity()


class Separable(nn.Sequential):
    """Depthwise 3x3, then pointwise, each with norm and ReLU."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__(ConvBn(inputs, inputs, 3, stride, inputs), ConvBn(inputs, outputs))


class InvertedResidual(nn.Module):
    """Expand, depthwise, project without activation; a shortcut where the shapes allow it (MobileNetV2, CVPR 2018)."""

    def __init__(self, inputs, outputs, hidden, stride=1):
        super().__init__()
        self.body = nn.Sequential(
            ConvBn(inputs, hidden), ConvBn(hidden, hidden, 3, stride, hidden), ConvBn(hidden, outputs, linear=True)
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.body(x) if self.shortcut else self.body(x)


def fused(network):
    """A copy in eval mode with every batch norm folded into its convolution."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, ConvBn):
            module.fuse()
    return network


def flops(network, *inputs):
    """Two per multiply-add of the convolutions and linear layers in one forward pass."""
    total = 0

    def count(module, _, output):
        nonlocal total
        taps = module.weight.numel() // module.weight.shape[0]
        total += 2 * taps * output.numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        network(*inputs)
    for hook in hooks:
        hook.remove()
    return total


class Average:
    """Exponential moving average of weights and norm statistics; what is exported."""

    def __init__(self, network, decay=0.998):
        self.network, self.decay, self.steps = copy.deepcopy(network).eval(), decay, 0

    @torch.no_grad()
    def update(self, network):
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        for mine, theirs in zip(self.network.state_dict().values(), network.state_dict().values()):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)


def export(network, inputs, path, input_names, output_names, dynamic, probes):
    """Write ONNX (opset 17) of the fused network and compare it with torch on `probes`; raises above 1e-4 (relative to the output's size)."""
    import numpy as np
    import onnxruntime as ort

    network = fused(network)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(network, inputs, str(path), opset_version=17, input_names=input_names, output_names=output_names,
                      dynamic_axes=dynamic, dynamo=False)
    runtime = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for probe in probes:
        with torch.no_grad():
            expected = network(probe)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for ours, theirs in zip(expected, runtime.run(None, {input_names[0]: probe.numpy()})):
            ours = ours.numpy()
            worst = max(worst, float(np.abs(ours - theirs).max() / max(1.0, np.abs(ours).max())))
    if worst > 1e-4:
        raise RuntimeError(f"{path}: ONNX differs from torch by {worst:.2e}")
    return worst
