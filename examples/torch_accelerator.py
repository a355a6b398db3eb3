"""Run a torch model as an accelerator would: fp8 operands, sums of 14 bits, a head in bfloat16."""

import torch
from torch import nn

import lowprec as lp
import lowprec.torch as lt
from lowprec import train

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
model.append(nn.Linear(256, 10))
x = torch.randn(32, 64)
exact = model(x)
sums = lp.Accumulator("e8m13", order="blocked", block=128)
policy = train.Policy(compute="float8_e4m3fn", gradients="float8_e5m2", accumulate=sums)
for asked in ("mixed_bfloat16", "mxfp8_e4m3", "nvfp4", policy):
    with lt.emulate(model, asked, rules={"4": "mixed_bfloat16"}) as emulated:
        y = model(x)
        y.square().mean().backward()
    error = ((y - exact).norm() / exact.norm()).item()
    print(f"{error:.5f}  {asked}"[:76])
print(emulated)
