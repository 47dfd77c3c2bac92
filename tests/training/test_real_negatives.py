"""Real negatives: which things and photographs of a folder are taken, and how they are pasted."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_photographs import CAR, CAT, SPECK, of_class, outlined, photographs

from doubtmap.datasets.cutouts import HALVES, half_of
from doubtmap.errors import DataError
from doubtmap.training.negatives import Objects, PhotographPatches, open_real, open_source

CLEAN = torch.ones(3, dtype=torch.bool)


def test_windows_of_photographs_are_their_pixels(tmp_path):
    photographs(tmp_path / "p", [(40, 40)])
    source = open_real(str(tmp_path / "p"), ["road", "car"], ["cat"])
    assert isinstance(source, PhotographPatches)
    (note,) = source.notes
    assert "Where they show road, car, cat, the network is taught to doubt what it knows" in note
    patches, mask = source(torch.zeros(2, 3, 16, 24), CLEAN[:2])
    image = torch.from_numpy(np.array(Image.open(tmp_path / "p" / "0.png"))).permute(2, 0, 1) / 255
    windows = image.unfold(1, 16, 1).unfold(2, 24, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3, 16, 24)
    assert all(((windows - patch).abs().amax((1, 2, 3)) < 1e-6).any() for patch in patches)
    assert mask.all()


def test_a_small_photograph_is_scaled_up(tmp_path):
    photographs(tmp_path / "p", [(5, 9)])
    patches, _ = open_real(str(tmp_path / "p"), ["road"])(torch.zeros(1, 3, 16, 24), CLEAN[:1])
    assert patches.shape == (1, 3, 16, 24) and patches.min() >= 0 and patches.max() <= 1


def test_halves_of_photographs_share_none_and_have_all(tmp_path):
    photographs(tmp_path / "p", [(8, 8)] * 12)
    whole, train, test = (
        open_real(f"{tmp_path / 'p'}{half}", ["road"]).files() for half in ("", ":train", ":test")
    )
    assert train and test and sorted(train + test) == whole and len(set(whole)) == 12


def test_a_half_without_photographs_is_refused(tmp_path):
    photographs(tmp_path / "p", [(8, 8)])
    there, empty = sorted(HALVES, key=lambda half: half != half_of("0"))
    assert open_real(f"{tmp_path / 'p'}:{there}", ["road"]).files() == [tmp_path / "p" / "0.png"]
    with pytest.raises(DataError, match=f"in its half {empty}, found none. Leave :{empty} out"):
        open_real(f"{tmp_path / 'p'}:{empty}", ["road"])


def test_masks_beside_images_are_no_photographs(tmp_path):
    photographs(tmp_path / "images", [(8, 8)] * 2)
    photographs(tmp_path / "masks", [(8, 8)] * 2)
    source = open_real(str(tmp_path), ["road"])
    assert source.files() == [tmp_path / "images" / name for name in ("0.png", "1.png")]
    assert (
        isinstance(source, PhotographPatches)
        and "2 photographs without outlines" in source.notes[0]
    )


@pytest.mark.parametrize("labels", ["polygons", "labels"])
def test_real_things_are_cut_out_and_known_ones_are_left_out_with_a_note(tmp_path, labels):
    source = open_real(outlined(tmp_path / "coco", labels=labels), ["road", "car"])
    (note,) = source.notes
    assert isinstance(source, Objects) and "car" in note and "1 of 2 objects" in note
    patches, masks = source(torch.zeros(3, 3, 32, 48), CLEAN)
    assert masks[:, :, :14].sum() == masks[:, :, 34:].sum() == 0
    assert masks[:, :, 17:31].all(), "the thing is as high as the patch, and in its middle"
    red = patches.movedim(1, -1)[masks]
    assert (red[:, 0] > 0.9).all() and (red[:, 1:] < 0.1).all()


@pytest.mark.parametrize(
    ("number", "held_out", "name"), [(15, "cat", "cat"), (0, "Pedestrian", "person")]
)
def test_things_of_held_out_classes_are_left_out_with_a_note(tmp_path, number, held_out, name):
    """Meant widely, as known ones are: a person where pedestrians are held out."""
    folder = outlined(tmp_path / "coco", of_class(CAT, number), CAR)
    source = open_real(folder, ["road"], [held_out])
    (note,) = source.notes
    assert note.startswith(f"{folder}: 1 objects were left out")
    assert note.endswith(f"held-out classes: {name}.")
    assert source.outlines.class_names == ("car",)
    assert set(open_real(folder, ["road"]).outlines.class_names) == {name, "car"}


def test_known_and_held_out_things_are_told_of_apart(tmp_path):
    folder = outlined(tmp_path / "coco", CAT, CAR, of_class(CAT, 16))
    source = open_real(folder, ["road", "car"], ["cat"])
    known, tested = source.notes
    assert "the network knows their classes: car." in known and "classes: cat." in tested
    assert source.outlines.class_names == ("dog",)


@pytest.mark.parametrize(
    ("known", "held_out"), [(["cat", "car"], []), (["car"], ["cat"]), (["road"], ["cat", "car"])]
)
def test_nothing_but_known_and_held_out_things_is_refused(tmp_path, known, held_out):
    folder = outlined(tmp_path / "coco")
    with pytest.raises(DataError, match="expected objects of other classes than are here"):
        open_real(folder, known, held_out)


def test_an_outline_around_no_pixel_is_left_out_with_a_note(tmp_path):
    folder = outlined(tmp_path / "coco", CAT, SPECK)
    source = open_real(folder, ["road"])
    assert source.notes == (f"{folder}: 1 outlines hold no pixel; left out.",)
    assert len(source.outlines) == 1 and source.outlines.class_names == ("cat",)


def test_nothing_but_outlines_around_no_pixel_is_refused(tmp_path):
    folder = outlined(tmp_path / "coco", SPECK, CAR)
    with pytest.raises(DataError, match=r"expected outlines that hold a pixel, found none\. Check"):
        open_real(folder, ["car"])


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="expected images in this folder, found no file"):
        open_source((f"real:{tmp_path / 'empty'}",), None, ["road"])
    with pytest.raises(DataError, match="Check the path"):
        open_source((f"real:{tmp_path / 'none'}",), None, ["road"])


def test_notes_of_all_folders_reach_the_user(tmp_path):
    photographs(tmp_path / "p", [(8, 8)])
    kinds = ("noise", f"real:{outlined(tmp_path / 'coco')}", f"real:{tmp_path / 'p'}")
    source, notes = open_source(kinds, None, ["road"], held_out=["car"])
    assert len(source.sources) == 3 and len(notes) == 2
    assert "held-out classes: car" in notes[0] and "they show road, car," in notes[1]


def test_a_file_that_is_no_image_is_refused_at_once(tmp_path):
    photographs(tmp_path / "p", [(8, 8)])
    (tmp_path / "p" / "broken.png").write_text("no image")
    with pytest.raises(DataError, match=r"broken\.png"):
        open_real(str(tmp_path / "p"), ["road"])
