"""Predictions of other frameworks: files are read by the image's name, and told apart by form."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from doubtmap import scores
from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.models import load
from doubtmap.prediction import showing

SIZE, CLASSES = (12, 16), 4


@pytest.fixture
def logits():
    torch.manual_seed(0)
    return 3 * torch.randn(CLASSES, *SIZE)


def looked_at(segmenter, name="street.png", size=SIZE):
    with showing(name):
        return segmenter(torch.rand(1, 3, *size))


WRITTEN = {
    "nnU-Net": lambda f, x: np.savez(f / "street.npz", probabilities=x.softmax(0)[:, None]),
    "npy": lambda f, x: np.save(f / "street.npy", x),
    "npy, channels last": lambda f, x: np.save(f / "street.npy", x.movedim(0, -1)),
    "half": lambda f, x: np.save(f / "street.npy", x.softmax(0).half()),
    "safetensors": lambda f, x: save_file({"logits": x}, f / "street.safetensors"),
    "with a batch axis": lambda f, x: np.save(f / "street.npy", x[None]),
}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
def test_what_others_write(tmp_path, logits, write):
    write(tmp_path, logits)
    segmenter = load(f"saved:{tmp_path}")
    prediction = looked_at(segmenter)
    expected = logits.softmax(0)[None]
    torch.testing.assert_close(prediction.probabilities, expected, atol=2e-3, rtol=0)
    assert segmenter.description["kind"] == "saved"
    if segmenter.description["form"] == "softmax":
        with pytest.raises(ModelError, match="saved predictions are probabilities"):
            scores.energy(prediction)


def test_names_of_nnunet(tmp_path, logits):
    WRITTEN["nnU-Net"](tmp_path, logits)
    labels = {"background": 0, "liver": 1, "tumour": 2, "vessel": 3}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    segmenter = load(f"saved:{tmp_path}")
    assert segmenter.class_names == tuple(labels)
    assert looked_at(segmenter, "street_0000.png").class_names == tuple(labels)


def test_what_does_not_fit(tmp_path, logits):
    with pytest.raises(UsageError, match="found none"):
        load(f"saved:{tmp_path}")
    WRITTEN["npy"](tmp_path, logits)
    segmenter = load(f"saved:{tmp_path}")
    with pytest.raises(DataError, match=r"a saved prediction for other\.png.* leave the image out"):
        looked_at(segmenter, "other.png")
    with pytest.raises(DataError, match="for an image of 13x29"):
        looked_at(segmenter, size=(13, 29))
    with pytest.raises(UsageError, match="cannot be made anew"):
        segmenter(torch.rand(1, 3, *SIZE))
    np.save(tmp_path / "bounded.npy", torch.rand(CLASSES, *SIZE))
    with pytest.raises(ModelError, match="--activation"):
        looked_at(load(f"saved:{tmp_path}"), "bounded.png")
    np.save(tmp_path / "pickle.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        looked_at(load(f"saved:{tmp_path}"), "pickle.png")


@pytest.mark.parametrize("files", [("a/1.npy", "b/1.npy"), ("1.npy", "1.npz")], ids=str)
def test_two_files_of_one_name(tmp_path, logits, files):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (np.savez if name.endswith("z") else np.save)(tmp_path / name, logits)
    with pytest.raises(UsageError, match=f"got {files[0]} and {files[1]}"):
        load(f"saved:{tmp_path}")


@pytest.mark.parametrize(
    "option",
    [
        *({"input_size": (8, 8)}, {"bands": (1, 2, 3)}, {"output": 0}, {"channels": "bgr"}),
        *({"classifier": "head"}, {"divisor": 8}, {"mean": (0, 0, 0)}, {"std": (1, 1, 1)}),
    ],
    ids=str,
)
def test_what_only_a_network_could_follow(tmp_path, logits, option):
    WRITTEN["npy"](tmp_path, logits)
    with pytest.raises(UsageError, match=f"expected no {next(iter(option))}, since no network"):
        load(f"saved:{tmp_path}", **option)


def test_saved_predictions_of_two_networks_are_an_ensemble(tmp_path, logits):
    both = [tmp_path / name for name in ("A", "B")]
    for folder, values in zip(both, (logits, logits.flip(0))):
        folder.mkdir()
        WRITTEN["npy"](folder, values)
    prediction = looked_at(load(",".join(f"saved:{folder}" for folder in both)))
    mean = (logits.softmax(0) + logits.flip(0).softmax(0)) / 2
    torch.testing.assert_close(prediction.probabilities, mean[None])


def test_a_folder_with_a_comma_in_its_name(tmp_path, logits):
    (folder := tmp_path / "a,b").mkdir()
    WRITTEN["npy"](folder, logits)
    assert load(f"saved:{folder}").description["kind"] == "saved"
