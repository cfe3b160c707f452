"""The compiled part of the Jacobian pass, against the same in torch, which any device runs; and the whole pass with either."""

import pytest
import torch

from sensitometer.activations import activation
from sensitometer.measures import jacobian_norm
from sensitometer.measures.jacobian import chain, compiled_kernels, kernels
from sensitometer.measures.jacobian.softmax import mixing_of
from sensitometer.measures.workspace import Workspace
from sensitometer.networks import MLPStack, initial_weights, layer_shapes


@pytest.mark.parametrize("name", ["relu", "relu6", "hardtanh", "hardsigmoid", "tanh"])
def test_activations_and_slopes_are_as_in_torch(name):
    z = torch.randn(2, 30, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4
    # On each boundary exactly, where the derivative is 0.
    z.view(-1)[:40:2] = torch.tensor(activation(name).boundaries, dtype=torch.float64).repeat(20)[:20]
    found, expected = [], []
    for module, kept in ((compiled_kernels, found), (kernels, expected)):
        h, slope = z.clone(), torch.full(z.shape, torch.nan)
        module.activate(activation(name), h, slope, Workspace())
        kept += [h, slope]
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert 0 < float(found[1].mean()) < 1


@pytest.mark.parametrize("start", [0, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [1, 2, 10])
def test_squared_norms_are_as_in_torch(classes, dtype, start):
    generator = torch.Generator().manual_seed(classes)
    block = torch.randn(2, 7, classes, 9, generator=generator, dtype=dtype)
    # From undecided points to some whose other probabilities float32 does not hold.
    logits = torch.randn(2, classes, 13, generator=generator, dtype=torch.float64) * torch.logspace(-1, 2.5, 13)
    mixing = mixing_of(logits, dtype)
    for of in (block, block.transpose(1, 2).contiguous().transpose(1, 2)):
        found = compiled_kernels.both_squared_norms(of.clone(), mixing, start, Workspace())
        expected = kernels.both_squared_norms(of.clone(), mixing, start, Workspace())
        plain = compiled_kernels.squared_norms(of, Workspace())
        for one, other in zip((*found, plain), (*expected, expected[1]), strict=True):
            torch.testing.assert_close(one, other.double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (6, 2, 3, 5), (9, 40, 3, 10)])
def test_the_pass_in_torch_finds_the_same(shape, monkeypatch):
    drawn = [initial_weights(layer_shapes(*shape), "relu6", 2.0, seed) for seed in (1, 2)]
    stack = MLPStack([torch.stack(layer) for layer in zip(*drawn, strict=True)], "relu6")
    x, target = torch.randn(70, shape[0], generator=torch.Generator().manual_seed(3)), torch.arange(70) % shape[3]

    def norms():
        return [jacobian_norm(stack, x, of=of, target=rows) for of in ("probabilities", "logits") for rows in (None, target)]

    expected = norms()
    monkeypatch.setattr(chain, "compiled_kernels", kernels)
    for found, one in zip(norms(), expected, strict=True):
        torch.testing.assert_close(found, one, rtol=1e-5, atol=1e-6 * float(one.max()))
