"""Watch a small GPT train in float32, and read what bfloat16 or float16 would lose."""

import torch
from torch import nn

import lowprec.torch as lt
from lowprec import train

torch.manual_seed(0)
block = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
model = nn.Sequential(nn.Embedding(96, 32), block, nn.LayerNorm(32), nn.Linear(32, 96))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
recorder = train.Recorder(every=5)
with lt.watch(model, recorder, optimizer) as watching:
    for _ in range(20):
        tokens = torch.randint(0, 96, (8, 17)).sort().values
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(tokens[:, :-1]).mT, tokens[:, 1:])
        loss.backward()
        optimizer.step()
    print(watching)
print(*recorder.verdict, sep="\n")
print(recorder.loss_scale("float16"))
