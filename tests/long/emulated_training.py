"""Training on the GPU's kernels, run on the CPU in slow motion, against the golden file and plain torch:

    python tests/long/emulated_training.py

Losses, running values and gradients at the golden input's 32×48 px. Needs g++; some 300 kernels are compiled
first, in about ten minutes of one core. Exits with 1 where something is off.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "kernels"))

from emulator.emulate import emulated

from ascseg_cli.kernels import backend
from ascseg_cli.network import ASCSeg
from ascseg_cli.network.loss import segmentation_loss

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "reference_c8.safetensors"
Tensors = dict[str, Tensor]


def main() -> int:
    """Run all, print what was found, return the exit code."""
    reference = load_file(GOLDEN)
    with emulated():
        return max(losses(reference), evaluation_gradients(reference), training_gradients(reference))


def network(reference: Tensors, dtype: torch.dtype = torch.float32) -> ASCSeg:
    """The golden weights in a network."""
    weights = {name.removeprefix("weights."): t for name, t in reference.items() if name.startswith("weights.")}
    net = ASCSeg()
    net.load_state_dict(weights, strict=False)
    return net.to(dtype)


def relative_error(got: Tensor, want: Tensor) -> float:
    """‖got − want‖₂ / ‖want‖₂."""
    return float((got.detach().double() - want.double()).norm() / want.double().norm())


def report(what: str, value: float, limit: float) -> int:
    """One line; 0 where value is within the limit, else 1."""
    good = value <= limit  # NaN is not
    print(f"{'ok    ' if good else 'FAILED'} {what}: {value:.2e}, at most {limit:.2e}", flush=True)
    return 0 if good else 1


def losses(reference: Tensors) -> int:
    """The loss; and the running values left behind, at most twice as far from float64 as plain torch's."""
    net, plain = network(reference).train(), network(reference).train()
    exact = network(reference, torch.float64).train()
    with torch.no_grad():
        loss = segmentation_loss(net.low_logits(reference["input"]), reference["target"])
        with backend.using("reference"):
            plain(reference["input"])
            exact(reference["input"].double())
    off, base = (_farthest(one, exact) for one in (net, plain))
    failed = report("loss", relative_error(loss, reference["train.loss"][0]), 1e-5)
    return max(failed, report("running values", off, 2 * base))


def _farthest(net: ASCSeg, exact: ASCSeg) -> float:
    """The largest error of a running value, relative to the largest of its norm."""
    pairs = [(a.double(), b) for a, b in zip(net.buffers(), exact.buffers(), strict=True) if b.is_floating_point()]
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


def gradients(net: ASCSeg, reference: Tensors) -> Tensors:
    """The loss's gradients by parameter, in float64."""
    dtype = next(net.parameters()).dtype
    low = net.low_logits(reference["input"].to(dtype))
    segmentation_loss(low, reference["target"].to(dtype)).backward()
    return {name: p.grad.double() for name, p in net.named_parameters() if p.grad is not None}


def evaluation_gradients(reference: Tensors) -> int:
    """With running statistics, where gradients are well-conditioned: each within 1e-3 of float64."""
    got = gradients(network(reference).eval(), reference)
    with backend.using("reference"):
        exact = gradients(network(reference, torch.float64).eval(), reference)
    errors = [relative_error(got[n], t) for n, t in exact.items() if t.abs().max() > 1e-10]
    return report(f"{len(errors)} gradients with running statistics, the worst", max(errors), 1e-3)


def training_gradients(reference: Tensors) -> int:
    """With batch statistics: as a whole at most twice as far from float64 as plain torch."""
    got = gradients(network(reference).train(), reference)
    with backend.using("reference"):
        plain = gradients(network(reference).train(), reference)
    exact = {n.removeprefix("train.grad."): t for n, t in reference.items() if n.startswith("train.grad.")}
    names = [n for n, t in exact.items() if t.abs().max() >= 1e-10]
    whole = [torch.cat([g[n].flatten() for n in names]) for g in (got, plain, exact)]
    limit = 2 * relative_error(whole[1], whole[2])
    return report("all gradients with batch statistics, as a whole", relative_error(whole[0], whole[2]), limit)


if __name__ == "__main__":
    sys.exit(main())
