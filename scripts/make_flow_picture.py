"""Make the picture of what a flow draws, trained on the synthetic streets.

    python scripts/make_flow_picture.py

Writes `docs/pictures/flow.png`: above, patches of the streets; below, samples of a flow that was
trained on such patches for 400 steps. It takes some minutes.
"""

import tempfile
from pathlib import Path

import torch

from doubtmap.streets.synthetic import SyntheticStreets
from doubtmap.training.batches import Batches
from doubtmap.training.flow_training import FlowTraining, patches, pretrain, read_flow
from doubtmap.training.labels import Targets
from doubtmap.training.pictures import COLUMNS, SIDE, tiled

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "flow.png"
STEPS = 400


def main() -> None:
    """Train a flow on 64 streets, and draw what it has seen and what it draws."""
    torch.set_num_threads(1)
    streets = SyntheticStreets(64, seed=7, size=(192, 384), unknowns=False)
    targets = Targets.of(streets, streets.class_names)
    batches = Batches(streets, targets, 4, (192, 256), workers=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flow.safetensors"
        pretrain(batches, FlowTraining(STEPS), path, device=torch.device("cpu"))
        flow, about = read_flow(path)
    print(f"{about['bits']:.3f} bits per dimension on held-out patches")
    _, seen = next(patches(batches, SIDE, 64, 1))
    with torch.no_grad():
        drawn = flow.sample(COLUMNS, (SIDE, SIDE), torch.Generator().manual_seed(0))
    rows = torch.stack([seen[:: len(seen) // COLUMNS][:COLUMNS], drawn])
    tiled(rows).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
