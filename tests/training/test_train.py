"""The whole way: a data set, a recipe, a folder; killed, resumed, shared by two processes."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from apart import Apart, two_of_them
from PIL import Image
from safetensors.torch import load_file

import doubtmap as dm
from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.training import Plain, Reporter, Settings, Spectral, train

MUD = ("mud",)
QUICK = Settings(epochs=3, batch=4, rate=0.02, workers=1, weight_decay=0.0)


def weights(folder):
    return load_file(folder / "model.safetensors")


def rows(folder):
    with (folder / "training" / "log.csv").open() as file:
        return list(csv.DictReader(file))


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def opened(network, folder):
    """What `load` takes for a network made by a Python file."""
    return dm.load(f"{network}@{folder}")


def test_plain_learns_stripes_and_keeps_the_best_epoch(
    training_set, validation_set, network, tmp_path
):
    settings = Settings(epochs=25, batch=4, rate=0.02, class_weights=0.5)
    trained = train(
        training_set,
        tmp_path / "run",
        model=network,
        validation=validation_set,
        hold_out=MUD,
        settings=settings,
    )
    log = rows(tmp_path / "run")
    assert [int(row["epoch"]) for row in log] == list(range(1, 26))
    assert float(log[-1]["loss"]) < 0.5 * float(log[0]["loss"])
    mious = [float(row["miou"]) for row in log]
    assert trained.miou == (max(mious),) and trained.epochs == (mious.index(max(mious)) + 1,)
    assert max(mious) > 0.8
    segmenter = opened(network, tmp_path / "run")
    assert segmenter.class_names == ("grass", "stone", "water")
    figures = dm.evaluate(segmenter, validation_set, scores=["entropy"]).figures
    assert figures["segmentation"]["miou"] == pytest.approx(max(mious), abs=1e-12)


@pytest.mark.parametrize("recipe", [Plain(), Spectral(1.0)], ids=["plain", "spectral"])
def test_a_seed_gives_the_same_weights_and_another_seed_others(
    recipe, training_set, network, tmp_path
):
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    for name, seed, workers in (("a", 0, 1), ("b", 0, 3), ("c", 1, 1)):
        torch.rand(seed + 1)
        settings = Settings(epochs=2, batch=4, seed=seed, workers=workers)
        options = {"recipe": recipe, "model": network, "hold_out": MUD, "settings": settings}
        train(training_set, tmp_path / name, **options)
    torch.manual_seed(123)
    assert torch.equal(before, torch.random.get_rng_state())
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_the_users_random_numbers_are_left_alone(training_set, network, tmp_path):
    before = torch.random.get_rng_state()
    train(training_set, tmp_path, model=network, hold_out=MUD, settings=QUICK)
    assert torch.equal(before, torch.random.get_rng_state())


class Stop(Exception):
    pass


def stop_after(epochs):
    def epoch(row):
        if row["epoch"] == epochs:
            raise Stop

    return Reporter(epoch=epoch)


@pytest.mark.parametrize("recipe", [Plain(), Spectral(1.0)], ids=["plain", "spectral"])
def test_resumed_weights_are_those_of_an_unbroken_run(
    recipe, training_set, validation_set, network, tmp_path
):
    settings = Settings(epochs=4, batch=4, validate_every=2, optimizer="sgd", rate=0.05)
    options = {
        "recipe": recipe,
        "model": network,
        "hold_out": MUD,
        "validation": validation_set,
        "settings": settings,
    }
    whole = train(training_set, tmp_path / "whole", **options)
    with pytest.raises(Stop):
        train(training_set, tmp_path / "broken", **options, report=stop_after(3))
    broken = train(training_set, tmp_path / "broken", **options, resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))
    assert whole.miou == broken.miou and whole.epochs == broken.epochs
    without = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in rows(tmp_path / name)]
        for name in ("whole", "broken")
    ]
    assert without[0] == without[1]
    again = train(training_set, tmp_path / "broken", **options, resume=True)
    assert again.miou == whole.miou  # nothing was left to be done


def test_other_settings_are_refused_and_threads_may_change(training_set, network, tmp_path):
    options = {"model": network, "hold_out": MUD}
    with pytest.raises(Stop):
        train(training_set, tmp_path, **options, settings=QUICK, report=stop_after(1))
    for changed in ({"rate": 0.1}, {"seed": 1}, {"epochs": 4}):
        with pytest.raises(UsageError, match=f"but {next(iter(changed))} .* became"):
            other = Settings(**(vars(QUICK) | changed))
            train(training_set, tmp_path, **options, settings=other, resume=True)
    with pytest.raises(UsageError, match=r"but hold_out .* became"):
        train(
            training_set, tmp_path, model=network, hold_out=("grass",), resume=True, settings=QUICK
        )
    more = Settings(**(vars(QUICK) | {"workers": 3}))
    train(training_set, tmp_path, **options, settings=more, resume=True)


def test_killed_and_resumed_it_ends_as_if_it_had_not_been(stripes, training_set, network, tmp_path):
    settings = Settings(epochs=25, batch=4, rate=0.01, workers=1, seed=5)
    out = tmp_path / "killed"
    asked = ("--hold-out", "mud", "--epochs", 25, "--batch", 4, "--rate", 0.01, "--seed", 5)
    words = "train", f"{stripes}:train", "--model", network, *asked, "--out", out
    checkpoint = out / "training" / "checkpoint.pt"
    Apart(tmp_path / "apart", *words).killed_when(checkpoint.exists)
    done = torch.load(checkpoint, weights_only=True)["progress"]["epoch"]
    assert 1 <= done < 25
    (out / "training" / ".0123456789abcdef.part").write_text("killed while it wrote")
    options = {"model": network, "hold_out": MUD, "settings": settings}
    train(training_set, out, **options, resume=True)
    train(training_set, tmp_path / "whole", **options)
    assert same(weights(out), weights(tmp_path / "whole"))
    assert not list(out.rglob("*.part"))


def test_two_processes_end_with_the_weights_of_one(stripes, training_set, network, tmp_path):
    """Without batch norm, whose statistics are each process's own, nothing tells them apart."""
    network = network.replace("build", "without_norm")
    settings = Settings(epochs=3, batch=4, rate=0.01, workers=1, clip=0.5, class_weights=0.5)
    options = {"model": network, "hold_out": MUD, "settings": settings}
    train(training_set, tmp_path / "one", **options, validation=dm.open_dataset(f"{stripes}:val"))
    asked = ("--hold-out", "mud", "--epochs", 3, "--batch", 4, "--rate", 0.01, "--clip", 0.5)
    asked += ("--class-weights", "root", "--workers", 1, "--validation", f"{stripes}:val")
    words = "train", f"{stripes}:train", "--model", network, *asked, "--out", tmp_path / "two"
    said = two_of_them(tmp_path, *words)
    assert [code for code, _, _ in said] == [0, 0], said
    assert said[0][1].strip() == f"{network}@{tmp_path / 'two'}" and not said[1][1]
    assert not said[1][2], "only the first process speaks"
    alone, shared = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in alone:
        torch.testing.assert_close(alone[name], shared[name], rtol=1e-4, atol=1e-5)
    for one, two in zip(rows(tmp_path / "one"), rows(tmp_path / "two")):
        assert float(one["loss"]) == pytest.approx(float(two["loss"]), rel=1e-4)
        assert float(one["miou"]) == pytest.approx(float(two["miou"]), abs=5e-3)


def test_an_ensemble_has_members_of_their_own_seeds_and_resumes(
    training_set, validation_set, network, tmp_path
):
    options = {"members": 2, "model": network, "hold_out": MUD}
    options |= {"settings": QUICK, "validation": validation_set}
    seen = []

    def epoch(row):
        seen.append(row)
        if len(seen) == 4:
            raise Stop

    with pytest.raises(Stop):
        train(training_set, tmp_path / "m", **options, report=Reporter(epoch=epoch))
    trained = train(training_set, tmp_path / "m", **options, resume=True)
    folders = tuple(tmp_path / "m" / member for member in "12")
    assert trained.folders == folders
    assert trained.model == ",".join(f"{network}@{folder}" for folder in folders)
    assert len(trained.miou) == len(trained.epochs) == 2
    for member in (1, 2):
        del options["members"]
        alone = Settings(**(vars(QUICK) | {"seed": member - 1}))
        train(training_set, tmp_path / f"alone{member}", **(options | {"settings": alone}))
        options |= {"members": 2}
        assert same(weights(tmp_path / "m" / str(member)), weights(tmp_path / f"alone{member}"))
    assert not same(weights(tmp_path / "m" / "1"), weights(tmp_path / "m" / "2"))


def test_the_demo_network_is_trained_and_loaded_without_any_code(training_set, tmp_path):
    trained = train(
        training_set,
        tmp_path / "demo",
        settings=Settings(epochs=1, batch=4, crop=(64, 64), augment=False),
    )
    assert "its classifier was made anew" in trained.notes[0]
    about = json.loads((tmp_path / "demo" / "doubtmap.json").read_text())
    assert about["network"] == "demo" and about["class_names"][3] == "mud"
    assert about["doubtmap"] == dm.__version__ and about["recipe"] == "plain"
    assert trained.model == str(tmp_path / "demo")
    segmenter = dm.load(tmp_path / "demo")
    prediction = segmenter(training_set[0].image[None])
    assert prediction.native_logits.shape[1] == 4 and prediction.features is not None
    options = {"model": str(tmp_path / "demo"), "settings": Settings(epochs=1, batch=8)}
    assert train(training_set, tmp_path / "more", **options).notes == ()


def test_the_loss_that_is_not_finite_stops_it(training_set, network, tmp_path):
    with pytest.raises(ModelError, match=r"finite loss, got nan in epoch 1.*Lower --rate"):
        wild = network.replace("build", "wild")
        train(training_set, tmp_path, model=wild, hold_out=MUD, settings=QUICK)


def test_requests_that_cannot_work_are_refused(training_set, validation_set, network, tmp_path):
    def refused(kind, match, **options):
        asked = {"model": network, "hold_out": MUD, "settings": QUICK} | options
        with pytest.raises(kind, match=match):
            train(training_set, tmp_path / "no", **asked)
        assert not (tmp_path / "no" / "model.safetensors").exists()

    refused(UsageError, "at least 1 member, got 0", members=0)
    refused(UsageError, "a coefficient above 0, got -1", recipe=Spectral(-1))
    refused(UsageError, "a device such as 'cpu'", device="gpu")
    refused(ModelError, "the device cuda:7 to be there", device="cuda:7")
    refused(UsageError, "expected a network such as demo, segformer-b0", model="segformer-b9")
    refused(
        ModelError,
        "3 outputs, one for each of grass, stone, water, got 4",
        model=network.replace("build", "four"),
    )


@pytest.fixture
def with_lava(stripes, tmp_path):
    """The stripes, with a class that no pixel has."""
    folder = tmp_path / "data"
    folder.mkdir()
    source = Path(stripes.removeprefix("folder:"))
    for part in ("images", "labels"):
        (folder / part).symlink_to(source / part)
    text = (source / "doubtmap.toml").read_text()
    (folder / "doubtmap.toml").write_text(text + "\nlava = 4\n")
    return dm.open_dataset(f"folder:{folder}:train")


def test_a_class_without_labels_is_refused_where_it_would_have_to_be_learnt(with_lava, tmp_path):
    with pytest.raises(DataError, match=r"every class, found none of lava. .*--hold-out lava"):
        train(with_lava, tmp_path / "run", hold_out=MUD, settings=QUICK)


@pytest.mark.parametrize("exponent", [0.0, 0.5])
def test_a_network_keeps_a_class_without_labels_that_it_may_know(
    with_lava, network, tmp_path, exponent
):
    settings = Settings(**(vars(QUICK) | {"class_weights": exponent}))
    maker = network.replace("build", "four")
    options = {"hold_out": MUD, "settings": settings}
    first = train(with_lava, tmp_path / "1", model=maker, **options)
    assert any("no labelled pixel of lava" in n and "--hold-out lava" in n for n in first.notes)
    again = train(with_lava, tmp_path / "2", model=f"{maker}@{tmp_path / '1'}", **options)
    assert dm.load(f"{again.model}").class_names == ("grass", "stone", "water", "lava")
    assert all(bool(part.isfinite().all()) for part in weights(tmp_path / "2").values())


def test_no_labelled_pixel_at_all_is_refused(with_lava, network, tmp_path):
    labels = tmp_path / "data" / "labels"
    source = labels.resolve()
    labels.unlink()
    (labels / "train").mkdir(parents=True)
    for path in (source / "train").iterdir():
        Image.fromarray(np.full((24, 32), 255, np.uint8)).save(labels / "train" / path.name)
    with pytest.raises(DataError, match="found none of grass, stone, water, lava"):
        train(
            with_lava,
            tmp_path / "run",
            model=network.replace("build", "four"),
            hold_out=MUD,
            settings=QUICK,
        )


def test_batch_norm_of_one_value_is_said(training_set, tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(ModelError, match="Give --batch at least 2 images per process"):
        train(training_set, tmp_path, model="upernet-resnet18", settings=Settings(batch=1))


def test_dropout_before_the_classifier_trains_and_is_not_written(training_set, network, tmp_path):
    plain = network.replace("build", "without_norm")
    options = {"model": plain, "hold_out": MUD}
    names = []
    for rate in (None, 0.0, 0.5):
        settings = Settings(**(vars(QUICK) | {"dropout": rate}))
        train(training_set, tmp_path / str(rate), **options, settings=settings)
        names.append(weights(tmp_path / str(rate)))
    assert same(names[0], names[1]) and not same(names[0], names[2])
    assert names[0].keys() == names[2].keys()


def test_mixed_precision_on_the_cpu_is_near_full_precision(training_set, network, tmp_path):
    losses = []
    for precision in ("float32", "bfloat16"):
        settings = Settings(**(vars(QUICK) | {"precision": precision}))
        train(training_set, tmp_path / precision, model=network, hold_out=MUD, settings=settings)
        losses.append(float(rows(tmp_path / precision)[0]["loss"]))
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.02)
    assert all(x.dtype != torch.bfloat16 for x in weights(tmp_path / "bfloat16").values())
