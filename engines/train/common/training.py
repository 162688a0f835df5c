"""The loop that trainings share: a learning rate along a cosine, and a checkpoint from which a run that was stopped goes on."""

import math

import torch


def along_cosine(peak, step, steps, warm, floor=0.0, least=0.0):
    """The learning rate of a step: up in a line over `warm` steps, then down half a cosine from `peak` to its part `floor`; `least` is added."""
    return peak * min(1, (step + 1) / warm) * (floor + (1 - floor) * (0.5 + 0.5 * math.cos(math.pi * step / steps))) + least


@torch.no_grad()
def follow(average, model, step, most):
    """The moving average of weights after a step: with the part `most` of what it was, of less in the beginning."""
    decay = min(most, (step + 1) / (step + 10))
    for mine, theirs in zip(average.state_dict().values(), model.state_dict().values()):
        mine.lerp_(theirs, 1 - decay)


class Loop:
    """`for step in Loop(...)`: the steps that remain, each with its learning rate set.

    `parts` are what a checkpoint holds by name, things with a state dict; they take on what FOLDER/last.pt holds where there is one.
    """

    def __init__(self, folder, steps, rate, optimizer, parts):
        """`rate` is a function of the step; a group of the optimizer takes its `part` of it."""
        self.last, self.steps, self.rate, self.optimizer, self.parts = folder / "last.pt", steps, rate, optimizer, parts
        folder.mkdir(parents=True, exist_ok=True)
        self.start = 0
        if self.last.exists():
            # A run's own file, with its settings in it.
            state = torch.load(self.last, weights_only=False)
            for name, part in parts.items():
                part.load_state_dict(state[name])
            self.start = state["step"]

    def __iter__(self):
        for step in range(self.start, self.steps):
            for group in self.optimizer.param_groups:
                group["lr"] = float(self.rate(step)) * group.get("part", 1.0)
            yield step

    def due(self, step, every):
        """Whether something is to be done after this step: each `every` steps and at the end."""
        return (step + 1) % every == 0 or step + 1 == self.steps

    def save(self, step, **more):
        """The checkpoint after this step, in the place of the one before; `more` goes into it as it is."""
        partial = self.last.with_suffix(".partial")
        torch.save({name: part.state_dict() for name, part in self.parts.items()} | {"step": step + 1} | more, partial)
        partial.rename(self.last)
