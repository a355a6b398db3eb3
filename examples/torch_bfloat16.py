"""Train in pure bfloat16, where updates are lost, and rescue it by how they are rounded."""

import torch
from torch import nn

import lowprec.torch as lt


def train(wrap):
    """Return the loss after 100 steps of a bfloat16 model."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 1)).bfloat16()
    optimizer = wrap(torch.optim.SGD(model.parameters(), lr=0.02))
    x = torch.randn(128, 16)
    y = torch.sin(x.sum(1, keepdim=True))
    for _ in range(100):
        optimizer.zero_grad()
        loss = (model(x.bfloat16()).float() - y).square().mean()
        loss.backward()
        optimizer.step()
    return loss.item()


rescues = {"kahan": {"update": "kahan"}, "stochastic": {}, "nearest": {"update": "nearest"}}
print({name: round(train(lambda o, k=k: lt.Optimizer(o, **k)), 4) for name, k in rescues.items()})
