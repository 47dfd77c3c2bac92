"""Data sets in Python: torch's, a loader, a list of pairs, Hugging Face's."""

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import COLOURS, agreement, deep_png, exif, painted, save, scene, turned
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

import doubtmap as dm
from doubtmap.datasets import VOID, open_dataset
from doubtmap.errors import DataError, UsageError

NAMES = ("sky", "road", "car")


class Nearest(torch.nn.Module):
    """The class of the nearest of three colours."""

    def __init__(self):
        super().__init__()
        self.classifier = torch.nn.Conv2d(3, 3, 1)
        colours = torch.from_numpy(COLOURS).float() / 255
        self.classifier.weight.data = (12 * colours)[:, :, None, None]
        self.classifier.bias.data = -6 * (colours**2).sum(1)

    def forward(self, x):
        return self.classifier(x)


@pytest.fixture(scope="module")
def segmenter():
    return dm.load(Nearest(), classes=NAMES, mean=(0, 0, 0), std=(1, 1, 1))


def fractions(number):
    return torch.from_numpy(painted(scene(number))).permute(2, 0, 1) / 255


def mask(number):
    return torch.from_numpy(scene(number)).long()


class Scenes(TorchDataset):
    """What people write: an image as a tensor of fractions, a mask of class numbers."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        if not 0 <= index < 3:
            raise IndexError(index)
        return fractions(index), mask(index)


IMAGES = {
    "fractions": fractions,
    "bytes, bands first": lambda n: torch.from_numpy(painted(scene(n))).permute(2, 0, 1),
    "bytes, bands last": lambda n: painted(scene(n)),
    "RGBA": lambda n: np.concatenate([painted(scene(n)), np.zeros((12, 16, 1), np.uint8)], 2),
    "float64": lambda n: painted(scene(n)) / 255,
    "PIL": lambda n: Image.fromarray(painted(scene(n))),
    "PIL with palette": lambda n: Image.fromarray(painted(scene(n))).quantize(8, dither=0),
    "file": lambda n: "file",
}
MASKS = {
    "long": mask,
    "uint8": lambda n: scene(n),
    "one band first": lambda n: mask(n)[None].float(),
    "one band last": lambda n: scene(n)[..., None],
    "equal bands": lambda n: np.repeat(scene(n)[..., None], 3, 2),
    "PIL": lambda n: Image.fromarray(scene(n)),
    "PIL with alpha": lambda n: Image.fromarray(scene(n)).convert("LA"),
    "PIL of 16 bits": lambda n: Image.fromarray(scene(n).astype(np.uint16)),
    "file": lambda n: "file",
}


@pytest.mark.parametrize(
    ("image", "label"), [*((i, "long") for i in IMAGES), *(("PIL", m) for m in MASKS)]
)
@pytest.mark.parametrize("keys", [None, ("image", "mask"), ("pixel_values", "labels")])
def test_images_and_masks_of_any_kind(tmp_path, image, label, keys):
    pairs = []
    for number in range(2):
        save(tmp_path / f"{number}.png", painted(scene(number)))
        save(tmp_path / f"{number}_mask.png", scene(number))
        one, two = IMAGES[image](number), MASKS[label](number)
        one = tmp_path / f"{number}.png" if isinstance(one, str) else one
        two = str(tmp_path / f"{number}_mask.png") if isinstance(two, str) else two
        pairs.append(dict(zip(keys, (one, two))) if keys else (one, two))
    assert agreement(open_dataset(pairs, classes=NAMES)) == 1


@pytest.mark.parametrize(
    "made",
    [
        Scenes,
        lambda: DataLoader(Scenes(), batch_size=2, shuffle=True),
        lambda: Subset(Scenes(), [2, 0]),
        lambda: ConcatDataset([Scenes(), Scenes()]),
        lambda: TensorDataset(
            torch.stack([fractions(n) for n in range(3)]), torch.stack([mask(n) for n in range(3)])
        ),
        lambda: [(fractions(n), mask(n)) for n in range(3)],
        lambda: [{"image": fractions(0), "mask": mask(0), "weather": "fog"}],
    ],
)
def test_they_are_read(made):
    data = made()
    dataset = open_dataset(data, classes=NAMES)
    assert agreement(dataset) == 1
    assert len(dataset) == len(data.dataset if isinstance(data, DataLoader) else data)


def test_a_loader_is_evaluated_with_the_classes_of_the_network(segmenter):
    loader = DataLoader(Scenes(), batch_size=2, shuffle=True)
    found = dm.evaluate(segmenter, loader, scores=["entropy"], replicates=20).figures
    assert (found["segmentation"]["miou"], found["data"]["images"]) == (1, 3)
    assert any("masks were read as numbers of the classes" in note for note in found["notes"])


@pytest.mark.filterwarnings("ignore:Cannot (locate|pickle)")
def test_a_hugging_face_data_set(tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    if not hasattr(datasets, "Features"):  # a folder of that name, of tests
        pytest.skip("datasets is not installed")
    features = datasets.Features({"image": datasets.Image(), "annotation": datasets.Image()})
    entries = {
        "image": [Image.fromarray(painted(scene(n))) for n in range(3)],
        "annotation": [Image.fromarray(scene(n)) for n in range(3)],
    }
    found = datasets.Dataset.from_dict(entries, features=features)
    found.save_to_disk(tmp_path / "saved")
    again = datasets.load_from_disk(tmp_path / "saved")
    for one in (found, again, again.select([2, 1]), again.with_format("numpy")):
        assert agreement(open_dataset(one, classes=NAMES)) == 1
    with pytest.raises(UsageError, match=r"expected a data set, got a DatasetDict with train"):
        open_dataset(datasets.DatasetDict({"train": found}), classes=NAMES)
    assert agreement(open_dataset(f"folder:{tmp_path / 'saved'}", classes=NAMES)) == 1


def test_deep_files_of_a_list_share_one_range(tmp_path):
    pairs = []
    for number, share in enumerate((1.0, 0.25)):
        deep_png(
            tmp_path / f"{number}.png", np.rint(painted(scene()) * (share * 16)).astype(np.uint16)
        )
        save(tmp_path / f"{number}_mask.png", scene())
        pairs.append((tmp_path / f"{number}.png", tmp_path / f"{number}_mask.png"))
    dataset = open_dataset(pairs, classes=NAMES)
    assert dataset[0].image.max() > 3.9 * dataset[1].image.max()
    assert any("0 to 4095 was taken as black to white" in note for note in dataset.notes)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("opened", [Image.open, str])
def test_turned_photographs_of_a_list(tmp_path, orientation, opened):
    stored = turned(painted(scene()), orientation)
    save(tmp_path / "a.png", stored, exif=exif(orientation))
    save(tmp_path / "upright.png", scene())
    save(tmp_path / "stored.png", turned(scene(), orientation))
    upright = (opened(tmp_path / "a.png"), opened(tmp_path / "upright.png"))
    assert agreement(open_dataset([upright], classes=NAMES)) == 1
    if orientation > 4:
        as_stored = (opened(tmp_path / "a.png"), opened(tmp_path / "stored.png"))
        assert agreement(open_dataset([as_stored], classes=NAMES)) == 1


@pytest.mark.parametrize(
    ("void", "value", "label"),
    [
        ((255, -1), 255, VOID),
        ((255, -1), -1, VOID),
        (0, 0, VOID),
        ([1, 9], 9, VOID),
        ([1, 9], 1, VOID),
        ((255, -1), 0, 0),
    ],
)
def test_void_numbers(void, value, label):
    numbers = torch.full((4, 5), value)
    dataset = open_dataset([(torch.zeros(3, 4, 5), numbers)], classes=NAMES, void=void)
    assert dataset[0].label.unique().tolist() == [label]


def test_a_class_of_the_number_255():
    many = [f"class{k}" for k in range(300)]
    dataset = open_dataset([(torch.zeros(3, 4, 5), torch.full((4, 5), 255))], classes=many)
    assert dataset[0].label.unique().tolist() == [255]


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (
            torch.randn(3, 4, 5),
            torch.zeros(4, 5),
            r"pairs\[0\]: expected an image of uint8, or of f",
        ),
        (np.full((4, 5), 900, np.uint16), np.zeros((4, 5)), "got uint16 of 900 to 900"),
        (Image.fromarray(np.full((4, 5), 900, np.uint16)), np.zeros((4, 5)), "of 900 to 900"),
        (
            torch.zeros(5, 4, 5),
            torch.zeros(4, 5),
            r"expected an image \(3, H, W\), got \(5, 4, 5\)",
        ),
        (torch.zeros(3, 4, 5), torch.zeros(5, 4), r"of one size, got \(4, 5\) and \(5, 4\)"),
        (torch.zeros(3, 4, 5), torch.full((4, 5), 0.5), "expected a mask of whole numbers"),
        (torch.zeros(3, 4, 5), torch.zeros(2, 4, 5), "expected a mask of whole numbers"),
        (torch.zeros(3, 4, 5), torch.full((4, 5), 7), r"pairs\[0\]: expected the label values .*7"),
        (torch.zeros(3, 4, 5), None, "expected a mask"),
    ],
)
def test_pairs_that_are_none(image, label, message):
    with pytest.raises(DataError, match=message):
        open_dataset([(image, label)], classes=NAMES)[0]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (iter([]), "expected a data set, got list_iterator"),
        (DataLoader, "expected a data set, got type"),
        (3, "expected a data set, got int"),
        ({"train": [1]}, "got a dict with train. Give one of them"),
    ],
)
def test_what_is_no_data_set(found, message):
    with pytest.raises(UsageError, match=message):
        open_dataset(found, classes=NAMES)


def test_entries_that_are_no_pairs():
    for entry, message in ((3, r"\(image, mask\), got int"), ({"x": 1}, "expected an image under")):
        with pytest.raises(DataError, match=message):
            open_dataset([entry], classes=NAMES)[0]


def test_scores_of_arrays_say_what_they_take():
    with pytest.raises(UsageError, match=r"tensor of logits .*got ndarray"):
        dm.scores.entropy(np.zeros((1, 3, 4, 4)))
