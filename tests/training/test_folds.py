"""Folds: which images are in which, and that no teacher is asked about what it saw."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

import doubtmap as dm
from doubtmap.datasets import Sample
from doubtmap.errors import DataError, UsageError
from doubtmap.training import Dudes, Settings, train
from doubtmap.training.folds import (
    Folds,
    check_unseen,
    fold_and_folds,
    fold_of,
    grouped,
    without_fold,
)
from doubtmap.training.networks import starting_network
from doubtmap.training.optimizing import ALONE
from doubtmap.training.teachers import Cache, Teachers

NAMES = ("grass", "stone", "water")
MUD = ("mud",)
ONE = Settings(epochs=1, batch=4, workers=1)
CPU = torch.device("cpu")


class Numbered:
    """A data set of as many images, of which only the names matter."""

    class_names, component_sizes, name = NAMES, None, "numbered"

    def __init__(self, count, name=str):
        self.count, self.called = count, name

    def __len__(self):
        return self.count

    def sample_name(self, index):
        return self.called(index)

    def __getitem__(self, index):
        return Sample(self.called(index), torch.zeros(3, 1, 1), torch.zeros(1, 1))


@given(some.integers(1, 40), some.data())
def test_every_image_is_in_one_fold_and_the_rest_is_without_it(count, data):
    folds = data.draw(some.integers(1, count))
    parts = [fold_of(Numbered(count), fold, folds) for fold in range(1, folds + 1)]
    assert [index for part in parts for index in part.indices] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for fold, part in enumerate(parts, 1):
        rest = without_fold(Numbered(count), fold, folds)
        assert sorted([*rest.indices, *part.indices]) == list(range(count))
        assert [rest[i].name for i in range(len(rest))] == [str(i) for i in rest.indices]
        assert rest.sample_name(0) == str(rest.indices[0]) if len(rest) else True


def test_more_folds_than_images_and_names_that_come_twice_are_refused():
    with pytest.raises(DataError, match="an image or more for each of 4 folds, got 3"):
        fold_of(Numbered(3), 1, 4)
    with pytest.raises(DataError, match="images of different names"):
        Folds(Numbered(3, lambda _: "alike"), [None])


@pytest.mark.parametrize(
    "text", ["", "1", "0/2", "3/2", "1/1", "a/2", "1/b", "1/2/3", "-1/2", "²/3"]
)
def test_folds_are_written_with_their_number(text):
    with pytest.raises(UsageError, match="--without-fold: expected a fold and their number"):
        fold_and_folds(text)


def test_a_fold_is_read_as_it_is_written():
    assert fold_and_folds("2/5") == (2, 5)


def test_teachers_are_grouped_in_the_order_of_the_folds():
    assert grouped("abcdef", 3) == [("a", "b"), ("c", "d"), ("e", "f")]
    assert grouped("abc", 1) == [("a", "b", "c")]
    for teachers, folds in (("abc", 2), ("ab", 2), ("abcde", 2)):
        with pytest.raises(UsageError, match=f"for each of {folds} folds, and two or more"):
            grouped(teachers, folds)


@pytest.fixture(scope="module")
def school(stripes, tmp_path_factory):
    """Two teachers without the first half of the images, two without the second."""
    folder, names = tmp_path_factory.mktemp("school"), []
    network = f"python:{stripes.removeprefix('folder:')}/net.py:build"
    data = dm.open_dataset(f"{stripes}:train")
    settings = Settings(epochs=1, batch=4, rate=0.05, workers=1)
    for fold in (1, 2):
        torch.manual_seed(fold)
        options = {"model": network, "hold_out": MUD, "settings": settings, "members": 2}
        trained = train(without_fold(data, fold, 2), folder / str(fold), **options)
        names += trained.model.split(",")
    return names


def test_no_teacher_is_asked_about_what_it_saw(school, training_set, tmp_path):
    start = starting_network(school[0], NAMES)
    recipe, told = Dudes(tuple(school), folds=2, cache=tmp_path), []
    carried = recipe.carried(training_set, start, ALONE, CPU, lambda *numbers: told.append(numbers))
    assert told == [(done, 8) for done in range(1, 9)]
    groups = [Teachers(names, "spread", NAMES) for names in (school[:2], school[2:])]
    said = []
    for index in range(8):
        sample = training_set[index]
        both = [group(sample.image[None].float() / 255)[0] for group in groups]
        torch.testing.assert_close(carried(sample), both[index // 4], atol=1e-3, rtol=1e-3)
        said.append((both[0] - both[1]).abs().max().item())
    assert min(said) > 0.01  # so that the wrong ones would have been noticed


def test_teachers_that_saw_their_fold_are_refused(school, training_set, tmp_path):
    start = starting_network(school[0], NAMES)
    swapped = Dudes((*school[2:], *school[:2]), folds=2, cache=tmp_path)
    with pytest.raises(UsageError, match="to be trained with --without-fold 1/2 on stripes"):
        swapped.carried(training_set, start, ALONE, CPU, print)
    assert not list(tmp_path.iterdir())


def test_a_teacher_whose_folder_has_an_at_sign_is_refused_all_the_same(training_set, tmp_path):
    folder = tmp_path / "me@home" / "net"
    train(training_set, folder, model="demo", from_scratch=True, hold_out=MUD, settings=ONE)
    with pytest.raises(UsageError, match="its folder says that it saw other images"):
        check_unseen(str(folder), training_set, 1, 2)


def test_a_teacher_whose_epoch_was_chosen_by_validation_is_refused(school, training_set, tmp_path):
    rest, held = without_fold(training_set, 1, 2), fold_of(training_set, 1, 2)
    options = {"model": school[0].rpartition("@")[0], "hold_out": MUD, "settings": ONE}
    model = train(rest, tmp_path, validation=held, **options).model
    with pytest.raises(UsageError, match=r"trained without --validation.* with it"):
        check_unseen(model, training_set, 1, 2)


def test_a_teacher_that_started_from_trained_weights_gets_a_note(school, training_set, tmp_path):
    rest, options = without_fold(training_set, 1, 2), {"hold_out": MUD, "settings": ONE}
    starts = {"demo": True, school[2]: True, school[0].rpartition("@")[0]: False}
    models = []
    for number, (model, noted) in enumerate(starts.items()):
        models.append(train(rest, tmp_path / str(number), model=model, **options).model)
        note = check_unseen(models[-1], training_set, 1, 2)
        assert (note is not None) == noted
        assert not noted or f"started from the weights of {model}, which may have seen" in note
    teachers = (models[1], models[2], *school[2:])
    recipe = Dudes(teachers, folds=2, cache=tmp_path / "cache")
    options |= {"model": school[0], "recipe": recipe}
    notes = train(training_set, tmp_path / "student", **options).notes
    assert [note for note in notes if "may have seen its fold" in note] == [
        check_unseen(models[1], training_set, 1, 2)
    ]


def test_one_fold_is_the_cache_of_all(school, training_set, tmp_path):
    start = starting_network(school[0], NAMES)
    carried = Dudes(tuple(school), cache=tmp_path).carried(training_set, start, ALONE, CPU, print)
    cache = Cache(tmp_path, Teachers(school, "spread", NAMES))
    assert torch.equal(carried(training_set[5]), cache(training_set[5]))


def test_two_processes_fill_their_part_of_every_fold(school, training_set, tmp_path):
    def folds():
        groups = (school[:2], school[2:])
        return Folds(training_set, [Cache(tmp_path, Teachers(g, "spread", NAMES)) for g in groups])

    told = []
    for rank in (0, 1):
        folds().fill(CPU, part=(rank, 2), told=lambda *numbers: told.append(numbers))
        assert told == (rank + 1) * [(done, 4) for done in range(1, 5)]
        assert len(list(tmp_path.glob("*/*.safetensors"))) == 4 * (rank + 1)


def test_the_commands_go_together(run, stripes, network, tmp_path):
    shared = ["--hold-out", "mud", "--epochs", 1, "--batch", 4, "--workers", 1]
    data, names = f"{stripes}:train", []
    for fold in (1, 2):
        options = ["--recipe", "ensemble", "--members", 2, "--without-fold", f"{fold}/2"]
        out = tmp_path / str(fold)
        code, printed, _ = run("train", data, "--model", network, *shared, *options, "--out", out)
        assert code == 0
        names.append(printed.strip())
    options = ["--recipe", "dudes", "--folds", 2, "--cache", tmp_path / "cache", "--teachers"]
    ask = ["train", data, "--student", f"{network}@{tmp_path}/1/1", *shared, *options]
    code, printed, _ = run(*ask, ",".join(names), "--out", tmp_path / "student")
    assert code == 0 and len(dm.load(printed.strip())(torch.rand(1, 3, 24, 32)).layers) == 1
    code, printed, err = run(*ask, ",".join(names[::-1]), "--out", tmp_path / "other")
    assert (code, printed) == (2, "") and "its folder says that it saw other images" in err
