"""A part of a data set still tells where it comes from."""

from pathlib import Path

from doubtmap.datasets import Photographs
from doubtmap.datasets.fingerprints import beneath
from doubtmap.datasets.pasting import Part


def test_a_part_names_its_folder(tmp_path: Path) -> None:
    whole = Photographs("images:all", (tmp_path / "a.png", tmp_path / "b.png"))
    assert beneath(Part(whole, (0,), "images:all")) is whole
