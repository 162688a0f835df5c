import numpy as np
import pytest

torch = pytest.importorskip("torch")

from common.training import Loop, along_cosine  # noqa: E402


def test_the_rate_warms_up_and_follows_half_a_cosine():
    rates = [along_cosine(2.0, step, 1000, 100, floor=0.03, least=1e-6) for step in range(1001)]
    assert rates[0] == pytest.approx(0.02 + 1e-6) and rates[49] == pytest.approx(1.0, rel=0.01)
    assert rates[500] == pytest.approx(2 * (0.03 + 0.97 / 2) + 1e-6) and rates[1000] == pytest.approx(0.06 + 1e-6)
    assert np.argmax(rates) in range(98, 101)


def run(folder, steps, stop=None):
    """Steps of a descent whose batches depend on the step alone; the weights, and the steps that were made."""
    torch.manual_seed(1)
    network = torch.nn.Linear(3, 1)
    optimizer = torch.optim.Adam(network.parameters())
    loop = Loop(folder, steps, lambda step: along_cosine(0.1, step, steps, 5), optimizer, {"network": network, "optimizer": optimizer})
    made = []
    for step in loop:
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (network(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
        made.append(step)
        if loop.due(step, 4):
            loop.save(step, settings={"steps": steps})
        if step == stop:
            break
    return network.weight.detach().clone(), made


def test_a_run_that_was_stopped_ends_where_another_does(tmp_path):
    whole, made = run(tmp_path / "whole", 14)
    assert made == list(range(14))
    run(tmp_path / "stopped", 14, stop=9)
    resumed, made = run(tmp_path / "stopped", 14)
    assert made == list(range(8, 14)), "from the last checkpoint on"
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)
    assert torch.load(tmp_path / "stopped/last.pt", weights_only=True)["settings"] == {"steps": 14}
    assert not list(tmp_path.glob("*/*.partial"))
