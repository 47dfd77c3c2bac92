"""The file of a fusion, and the files of the scores that it is made of."""

import shutil

import pytest
import torch
from gaussian_frames import frames
from wrong_worlds import calibrated_pairs

from doubtmap import scores
from doubtmap.errors import DataError, UsageError
from doubtmap.files import Origin, read, write
from doubtmap.scores import Density
from doubtmap.scores.parsing import open_scores, parse_fit, parse_scores
from doubtmap.scores.wrong import FILE, Wrong

ORIGIN = Origin("x", facts={"a": 1}, fingerprint=(0.0, 1.0, 2.0, 3.0, 4.0))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("wrong") / "wrong.safetensors"
    pairs = calibrated_pairs(4, seed=1), calibrated_pairs(4, seed=2)
    fitted = Wrong.fit(*pairs, open_scores(["entropy", "divergence(temperature=1)"]))
    Wrong(fitted.texts, fitted.scores, fitted.fitted, ORIGIN, ("b",)).save(path)
    return path


def test_a_file_holds_all_and_little(file):
    prediction = calibrated_pairs(1, seed=5)[0][0]
    pairs = calibrated_pairs(4, seed=1), calibrated_pairs(4, seed=2)
    fitted = Wrong.fit(*pairs, open_scores(["entropy", "divergence(temperature=1)"]))
    loaded = Wrong.load(file, open_scores)
    assert torch.equal(loaded(prediction), fitted(prediction))
    assert loaded.digest == fitted.digest
    assert (loaded.texts, loaded.origin, loaded.notes) == (fitted.texts, ORIGIN, ("b",))
    assert file.stat().st_size < 4096
    (named,) = parse_scores(f"wrong:{file}").values()
    assert torch.equal(named(prediction), fitted(prediction))


def change(file, path, **changed):
    content = read(file, FILE, lambda content: content)
    for name, value in changed.items():
        (content.tensors if name in content.tensors else content.entries)[name] = value
        if value is None:
            del content.tensors[name]
    write(path, FILE, content)
    return path


@pytest.mark.parametrize(
    "changed",
    [
        {"levels": None},
        {"bias": torch.tensor([torch.nan])},
        {"bias": torch.zeros(2)},
        {"sizes": torch.tensor([1, 1])},
        {"sizes": torch.tensor([3])},
        {"texts": ["entropy"]},
        {"texts": 7},
    ],
    ids=str,
)
def test_parts_that_do_not_fit_together(file, tmp_path, changed):
    with pytest.raises(DataError, match=r"expected a fitted wrong, but it cannot be read \("):
        Wrong.load(change(file, tmp_path / "broken", **changed), open_scores)


def test_curves_that_fall_are_refused(file, tmp_path):
    levels = read(file, FILE, lambda content: content.tensors["levels"])
    with pytest.raises(DataError, match="levels that do not descend"):
        Wrong.load(change(file, tmp_path / "falling", levels=levels.flip(0)), open_scores)


def test_another_kind_of_file(tmp_path, file):
    density = tmp_path / "density.safetensors"
    Density.fit(frames(), scale="none", certainty=0.0).save(density)
    with pytest.raises(DataError, match="expected a fitted wrong"):
        Wrong.load(density, open_scores)
    with pytest.raises(DataError, match="expected a fitted density"):
        Density.load(file)
    with pytest.raises(DataError, match="doubtmap fit wrong"):
        Wrong.load(tmp_path / "nothing", open_scores)


@pytest.fixture
def nested(tmp_path):
    density = tmp_path / "density.safetensors"
    Density.fit(frames(), scale="none", certainty=0.0).save(density)
    fitted = Wrong.fit(
        frames(sharp=1.0),
        frames(seed=0, sharp=1.0),
        open_scores(["entropy", f"density:{density}"]),
    )
    fitted.save(tmp_path / "wrong.safetensors")
    return fitted, density, tmp_path / "wrong.safetensors"


def test_scores_that_learnt_from_data_keep_their_files(nested):
    fitted, _, file = nested
    prediction = frames(1)[0][0]
    assert torch.equal(Wrong.load(file, open_scores)(prediction), fitted(prediction))


def test_files_that_were_moved_together_are_found(nested, tmp_path):
    fitted, density, file = nested
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for path in (density, file):
        shutil.move(path, folder / path.name)
    prediction = frames(1)[0][0]
    assert torch.equal(Wrong.load(folder / file.name, open_scores)(prediction), fitted(prediction))
    (folder / density.name).unlink()
    with pytest.raises(DataError, match="there is no such file"):
        Wrong.load(folder / file.name, open_scores)


def test_another_fit_in_the_place_of_the_one_that_was_fused(nested):
    _, density, file = nested
    Density.fit(frames(seed=3), scale="none", certainty=0.0).save(density)
    with pytest.raises(DataError, match="to be the fit that was fused, but the file holds another"):
        Wrong.load(file, open_scores)


def test_names():
    assert parse_fit("wrong") == ("wrong", {})
    with pytest.raises(UsageError, match="takes no parameters"):
        parse_fit("wrong(a=1)")
    with pytest.raises(UsageError, match="doubtmap fit wrong MODEL DATA --scores a,b --out FILE"):
        parse_scores("wrong")
    with pytest.raises(UsageError, match="takes no parameters"):
        parse_scores("wrong(a=1):some")
    assert scores.STATELESS
