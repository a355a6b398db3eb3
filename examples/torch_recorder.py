"""Record a PyTorch training with lowprec's flight recorder, to see what float16 would lose.

The network trains in float32, as PyTorch does by default. Hooks hand activations and gradients to
the recorder, which says what float16 would make of them. Needs torch; run it with
``python examples/torch_recorder.py``.
"""

import torch

from lowprec import train


def network() -> torch.nn.Sequential:
    """Return a network for the digits."""
    return torch.nn.Sequential(torch.nn.Linear(64, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10))


class Hooks:
    """Hands what flows through a module's linear layers to a recorder, every so many steps."""

    def __init__(self, model: torch.nn.Module, recorder: train.Recorder) -> None:
        self.recorder, self.step = recorder, 0
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_hook(self._hook(f"layer {name}"))

    @property
    def is_due(self) -> bool:
        """Whether this step is recorded."""
        return self.step % self.recorder.every == 0

    def _hook(self, name):
        def hook(module, inputs, output):
            if self.is_due:
                self.recorder.observe(self.step, "weight", f"{name} weight", module.weight)
                self.recorder.observe(self.step, "activation", name, output)
                output.register_hook(seen)

        def seen(gradient):
            self.recorder.observe(self.step, "activation_gradient", name, gradient)

        return hook

    def after_update(self, model: torch.nn.Module, before: dict[str, torch.Tensor]) -> None:
        """Hand over weight gradients and updates, and go on to the next step."""
        if self.is_due:
            for name, weight in model.named_parameters():
                self.recorder.observe(self.step, "weight_gradient", name, weight.grad)
                update = weight.detach() - before[name]
                self.recorder.observe(self.step, "update", name, update, parameter=before[name])
        self.step += 1


def run(loss_weight: float = 1.0, epochs: int = 5) -> train.Recorder:
    """Train on the digits with a loss that counts so much, and return the recorder."""
    torch.manual_seed(0)
    digits = train.data.digits()
    x, y = torch.from_numpy(digits.x_train), torch.from_numpy(digits.y_train).long()
    model, recorder = network(), train.Recorder(every=10, policy="compute=float16")
    hooks = Hooks(model, recorder)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(32):
            before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x[rows]), y[rows])
            (loss_weight * loss).backward()
            optimizer.step()
            hooks.after_update(model, before)
    return recorder


if __name__ == "__main__":
    for weight in (1.0, 2.0**-18):
        print(f"The loss counts {weight:g}:")
        for sentence in run(weight).verdict:
            print(f"  {sentence}")
