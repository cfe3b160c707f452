"""Trains a CNN on the digits with a monitor in the loop; draws `monitor.png`. The number of steps may be given."""

import sys

import torch
from matplotlib import pyplot as plt
from torch import nn

import sensitometer as sm

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 1000

torch.set_num_threads(1)
torch.manual_seed(0)
data = sm.load_dataset("digits", normalise="none")
x, y = data.train.x.view(-1, 1, 8, 8), data.train.y
model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
optimizer = torch.optim.Adam(model.parameters(), 1e-3)
loop = sm.paths.translation(data.test.x[0].view(1, 8, 8), flat=False)
monitors = [sm.Monitor(model, data.test.x[:100].view(-1, 1, 8, 8), every=100, path=path) for path in (loop, None)]

for monitor in monitors:
    monitor(0)
    for step in range(1, STEPS + 1):
        batch = torch.randint(len(y), (128,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
        monitor(step)
    print(monitor.frame().to_string(index=False))
    print(f"{monitor.share:.0%} of the loop's time")
monitors[0].plot()
plt.savefig("monitor.png", dpi=90)
