"""Small flows away from their start, at which couplings do nothing and learn little.

And small recipes with negatives.
"""

import torch

from doubtmap.training import NFlowJS
from doubtmap.training.flow import Flow, FlowShape

SMALL = FlowShape(levels=3, steps=2, hidden=8)
TINY = FlowShape(levels=3, steps=1, hidden=4)


def flow_of(seed=0, shape=SMALL, dtype=torch.float64, amount=0.1):
    """A flow whose every weight is moved, by `amount` times a normal value."""
    torch.manual_seed(seed)
    flow = Flow(shape).to(dtype)
    with torch.no_grad():
        for part in flow.parameters():
            part.add_(amount * torch.randn_like(part))
    return flow


def tiny_flow():
    """The smallest, in the precision of a training."""
    return flow_of(2, TINY, torch.float32, 0.05)


def recipe_of(negatives="flow", **options):
    """`NFlowJS` of little work; only what has an effect is asked for."""
    quick = {} if negatives == "none" else {"patch": (8, 8)}
    if "flow" in negatives.split(",") and "flow" not in options:
        quick["flow_steps"] = 4
    return NFlowJS(negatives, **(quick | options))
