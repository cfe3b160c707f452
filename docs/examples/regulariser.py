"""Trains an MLP on the digits with the mean Jacobian norm in its loss. The number of steps may be given."""

import sys
import time

import torch
from torch import nn

import sensitometer as sm

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 1000

torch.set_num_threads(1)
data = sm.load_dataset("digits", normalise="none")
for weight in (0.0, 0.1, 1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    start = time.perf_counter()
    for _ in range(STEPS):
        batch = torch.randint(len(data.train.y), (64,))
        x, y = data.train.x[batch], data.train.y[batch]
        loss = nn.functional.cross_entropy(model(x), y)
        if weight:
            loss = loss + weight * sm.jacobian_norm(model, x, create_graph=True).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"weight {weight}: {time.perf_counter() - start:.1f} s")
    for name, mean in sm.measure(model, data, progress=False).table().items():
        print(f"  {name:22} {mean.value:.3f} ± {mean.standard_error:.3f}")
