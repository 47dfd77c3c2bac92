"""`--recipe dudes`: teachers, a student's folder, its cache, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import doubtmap as dm
from doubtmap.engine.run import Run, possible_scores
from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.models import MonteCarloDropout
from doubtmap.models.distilled import FILE, Head, attach, head_of, with_head
from doubtmap.training import Dudes, Reporter, Settings, train
from doubtmap.training.augment import NONE
from doubtmap.training.batches import Batches
from doubtmap.training.labels import Targets
from doubtmap.training.networks import starting_network
from doubtmap.training.teachers import TARGETS, Cache, Teachers, fingerprints

NAMES = ("grass", "stone", "water")
MUD = ("mud",)
QUICK = Settings(epochs=2, batch=4, rate=0.02, workers=1)
CPU = torch.device("cpu")


def taught(network, folder, name):
    return f"{network}@{folder}/{name}"


@pytest.fixture(scope="module")
def school(stripes, tmp_path_factory):
    """Three teachers, `1`, `2` and `3`, and the network's maker."""
    folder = tmp_path_factory.mktemp("school")
    network = f"python:{stripes.removeprefix('folder:')}/net.py:build"
    data = dm.open_dataset(f"{stripes}:train")
    train(data, folder, model=network, hold_out=MUD, settings=QUICK, members=3)
    names = tuple(taught(network, folder, name) for name in "123")
    torch.manual_seed(0)
    for (
        name
    ) in "23":  # weights that disagree, which so short a training from one seed does not give
        weights = load_file(folder / name / "model.safetensors")
        weights["4.weight"] += 0.7 * torch.randn_like(weights["4.weight"])
        save_file(weights, folder / name / "model.safetensors")
    return folder, network, names


@pytest.fixture(scope="module")
def stranger(school, stripes, tmp_path_factory):
    """Two networks of other classes."""
    folder = tmp_path_factory.mktemp("strangers")
    data, settings = dm.open_dataset(f"{stripes}:train"), Settings(epochs=1, batch=4)
    options = {"model": school[1], "hold_out": ("water",), "settings": settings}
    train(data, folder, members=2, **options)
    return folder


def images_of(dataset):
    return [dataset[index].image[None].float() / 255 for index in range(len(dataset))]


@pytest.fixture(scope="module")
def student(stripes, school, tmp_path_factory):
    """What `--model` takes: a student of the three, and its folder."""
    folder = tmp_path_factory.mktemp("student")
    data = dm.open_dataset(f"{stripes}:train")
    settings = Settings(epochs=60, batch=4, rate=0.02, workers=1)
    recipe = Dudes(school[2], cache=folder / "cache")
    options = {"model": school[2][0], "hold_out": MUD, "settings": settings}
    trained = train(data, folder / "net", recipe=recipe, **options)
    return trained.model, folder / "net"


def test_a_student_says_what_its_teachers_disagree_about(student, school, validation_set):
    network, teachers = dm.load(student[0]), dm.load(",".join(school[2]))
    own, theirs = [], []
    for image in images_of(validation_set):
        own.append(dm.scores.distilled(network(image)).flatten())
        theirs.append(dm.scores.member_spread(teachers(image)).flatten())
    own, theirs = torch.cat(own), torch.cat(theirs)
    constant = (theirs - theirs.mean()).square().mean()
    assert theirs.std() > 0.02 and (own - theirs).square().mean() < 0.7 * constant
    assert torch.corrcoef(torch.stack([own, theirs]))[0, 1] > 0.5


def test_the_network_of_a_students_folder_is_a_plain_one(student, school):
    model, folder = student
    assert {path.name for path in folder.iterdir()} == {
        "doubtmap.json", "model.safetensors", FILE, "training",
    }  # fmt: skip
    plain = starting_network(school[1], NAMES).network
    plain.load_state_dict(load_file(folder / "model.safetensors"))
    image = torch.rand(1, 3, 24, 32)
    alone = dm.load(plain, classes=NAMES)(image)
    assert torch.equal(alone.native_logits, dm.load(model)(image).native_logits)
    assert alone.layers == {}
    meta = json.loads((folder / "training" / "settings.json").read_text())["recipe"]
    assert meta["teachers"] == list(school[2]) and meta["target"] == "spread"


def test_all_scores_of_a_student_have_distilled_among_them(student, school, validation_set):
    for model, there in ((student[0], True), (school[2][0], False)):
        found = possible_scores(Run(dm.load(model), validation_set, {}, (), None))
        assert "entropy" in found and ("distilled" in found) == there


def test_evaluate_measures_distilled(student, validation_set):
    metrics = pytest.importorskip("sklearn.metrics")
    network, targets = dm.load(student[0]), Targets.of(validation_set, NAMES)
    doubt, wrong = [], []
    for index in range(len(validation_set)):
        sample = validation_set[index]
        prediction, label = network(sample.image[None]), targets(sample)
        doubt.append(dm.scores.distilled(prediction)[0][label >= 0])
        wrong.append((prediction.classes[0] != label)[label >= 0])
    exact = metrics.roc_auc_score(torch.cat(wrong), torch.cat(doubt))
    results = dm.evaluate(network, validation_set, ["entropy", "distilled"], replicates=2)
    found = results.figures["scores"]["distilled"]["wrong"]["auroc"]
    assert found == pytest.approx(exact, abs=1e-4)


def test_other_wrappers_do_not_pretend_to_have_a_head(student, school):
    image = torch.rand(1, 3, 24, 32)
    several = dm.load(",".join(school[2]))
    for segmenter in (several, MonteCarloDropout(dm.load(student[0]), 2)):
        with pytest.raises(ModelError, match="distilled: needs a network with a second head"):
            dm.scores.distilled(segmenter(image))


def test_a_head_belongs_to_its_weights(student, school, tmp_path):
    _, folder = student
    for name in ("doubtmap.json", FILE):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    weights = load_file(folder / "model.safetensors")
    weights["4.bias"] += 1
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="second head of the network beside it, got one of other"):
        dm.load(f"{school[1]}@{tmp_path}")
    (tmp_path / FILE).write_bytes((folder / FILE).read_bytes()[:-3])
    with pytest.raises(ModelError, match=r"second head of a student, but it cannot be read"):
        dm.load(f"{school[1]}@{tmp_path}")
    (tmp_path / FILE).unlink()
    plain = dm.load(f"{school[1]}@{tmp_path}")
    assert plain(torch.rand(1, 3, 24, 32)).layers == {}


def test_two_heads_on_one_network_are_told_apart(student, school, training_set, tmp_path):
    hashes = set()
    for seed in (0, 1):
        recipe = Dudes(school[2], freeze=True, hidden=6 * seed)
        settings = Settings(epochs=1, batch=4, workers=1)
        options = {"model": school[2][0], "hold_out": MUD, "settings": settings}
        model = train(training_set, tmp_path / str(seed), recipe=recipe, **options).model
        segmenter = dm.load(model)
        hashes.add(segmenter.description["sha256"])
        (said,) = segmenter(torch.rand(1, 3, 24, 32)).layers.values()
        assert said.shape == (1, 1, 12, 16) and said.std() > 0
        weights = load_file(tmp_path / str(seed) / "model.safetensors")
        before = load_file(school[0] / "1" / "model.safetensors")
        assert all(torch.equal(part, before[name]) for name, part in weights.items())
    assert len(hashes) == 2


def test_a_head_that_hears_inner_layers_is_written_and_read(school, training_set, tmp_path):
    recipe = Dudes(school[2], freeze=True, hidden=5, layers=("0", "1"))
    settings = Settings(epochs=2, batch=4, workers=1)
    options = {"model": school[2][0], "hold_out": MUD, "settings": settings}
    model = train(training_set, tmp_path / "net", recipe=recipe, **options).model
    segmenter, image = dm.load(model), torch.rand(1, 3, 24, 32)
    network = segmenter.source.backend.module
    head = head_of(network)
    assert head.layers == {"0": 8, "1": 8}
    prediction = dm.load(model).listening(["0", "1"])(image)
    said = head.say(prediction.features, prediction.layers)
    silent = {name: 0 * part for name, part in prediction.layers.items()}
    assert (said - head.say(prediction.features, silent)).abs().max() > 1e-3
    own = prediction.to_size(said)[:, 0].sigmoid()
    torch.testing.assert_close(dm.scores.distilled(segmenter(image)), own)
    plain = dm.load(school[2][0]).source.backend.module
    with pytest.raises(ModelError, match="a network with the layers of the second head, but "):
        attach(plain, Head("4", 8, 5, layers={"nine": 8}))


@pytest.mark.parametrize("kind", TARGETS)
def test_the_cache_holds_what_the_teachers_say_of_the_image(kind, school, training_set, tmp_path):
    teachers = Teachers(school[2], kind, NAMES)
    cache = Cache(tmp_path, teachers)
    told = []
    cache.fill(training_set, CPU, told=lambda *done: told.append(done))
    assert told == [(n, 8) for n in range(1, 9)]
    sample = training_set[3]
    said = teachers(sample.image[None].float() / 255)[0]
    kept = cache(sample)
    if kind == "mean":
        assert kept.shape == (3, 6, 8)
        blocks = said.unfold(1, 4, 4).unfold(2, 4, 4).mean((-1, -2))
        torch.testing.assert_close(kept, blocks, atol=1e-3, rtol=1e-3)
    else:
        torch.testing.assert_close(kept, said, atol=1e-3, rtol=1e-3)


def test_teachers_are_asked_once_about_an_image(school, training_set, tmp_path, monkeypatch):
    cache = Cache(tmp_path, Teachers(school[2], "spread", NAMES))
    cache.fill(training_set, CPU, part=(0, 2))
    assert len([*tmp_path.rglob("*.safetensors")]) == 4
    cache.fill(training_set, CPU, part=(1, 2))
    asked = []
    monkeypatch.setattr(Teachers, "__call__", lambda self, x: asked.append(x))
    cache.fill(training_set, CPU)
    assert not asked


def test_other_teachers_or_pixels_never_meet_an_old_file(school, training_set, tmp_path):
    sample = training_set[0]
    cache = Cache(tmp_path, Teachers(school[2], "spread", NAMES))
    fewer = Cache(tmp_path, Teachers(school[2][:2], "spread", NAMES))
    other = Cache(tmp_path, Teachers(school[2], "entropy", NAMES))
    order = Cache(tmp_path, Teachers(school[2][::-1], "spread", NAMES))
    paths = {one.path(sample) for one in (cache, fewer, other, order)}
    paths |= {cache.path(training_set[1])}
    assert len(paths) == 5
    with pytest.raises(DataError, match="what the teachers say of"):
        cache(sample)
    cache.fill(training_set, CPU, part=(0, 8))
    content = cache.path(sample).read_bytes()
    for damaged in (content[:-5], b"", b"\xff" * 40):
        cache.path(sample).write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read"):
            cache(sample)


def test_a_target_in_another_order_of_classes_is_the_same_class(school):
    image = torch.rand(1, 3, 24, 32)
    ours = Teachers(school[2], "mean", NAMES)(image)
    turned = Teachers(school[2], "mean", ("water", "Grass", "stone"))(image)
    torch.testing.assert_close(turned, ours[:, [2, 0, 1]])


def test_batches_carry_the_cached_target(school, training_set, tmp_path):
    cache = Cache(tmp_path, Teachers(school[2], "spread", NAMES))
    cache.fill(training_set, CPU)
    targets = Targets.of(training_set, NAMES)
    batches = Batches(training_set, targets, 4, (24, 32), augmentation=NONE, carried=cache)
    images, _ = next(iter(batches.epoch(0)))
    on_line = cache.teachers(images[:, :3])
    assert images.shape == (4, 4, 24, 32)
    torch.testing.assert_close(images[:, 3:], on_line, atol=1e-3, rtol=1e-3)


def test_a_cache_needs_teachers_that_can_be_recognised(school):
    teachers = Teachers(school[2], "spread", NAMES)
    for member in teachers.ensemble.members:
        member.source = replace(member.source, sha256=None)
    with pytest.raises(UsageError, match="--cache: expected teachers whose weights are one file"):
        _ = teachers.identity


def test_teachers_without_class_names_are_refused(network, school):
    with pytest.raises(UsageError, match=r"student's classes \(grass, stone, water\), got unnamed"):
        Teachers([network, f"{network.rpartition(':')[0]}:without_norm"], "spread", NAMES)


def test_a_resumed_student_is_that_of_an_unbroken_run(school, training_set, tmp_path):
    class Stopped(Exception):
        pass

    def stop(row):
        if row["epoch"] == 2:
            raise Stopped

    settings = Settings(epochs=4, batch=4, workers=1)
    recipe = Dudes(school[2], cache=tmp_path / "cache")
    options = {"recipe": recipe, "model": school[2][0], "hold_out": MUD, "settings": settings}
    train(training_set, tmp_path / "whole", **options)
    with pytest.raises(Stopped):
        train(training_set, tmp_path / "parts", report=Reporter(epoch=stop), **options)
    train(training_set, tmp_path / "parts", resume=True, **options)
    for name in ("model.safetensors", FILE):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    fewer = options | {"recipe": Dudes(school[2][:2], cache=tmp_path / "cache")}
    with pytest.raises(UsageError, match="expected the settings of the run"):
        train(training_set, tmp_path / "parts", resume=True, **fewer)


def test_a_students_own_folder_is_not_written_over_its_teacher(school, training_set):
    options = {"model": school[2][0], "hold_out": MUD, "settings": QUICK}
    with pytest.raises(UsageError, match="expected no run there, found one"):
        train(training_set, school[0] / "1", recipe=Dudes(school[2]), **options)


def test_frozen_training_needs_a_network_that_knows_its_classes(
    school, training_set, validation_set, tmp_path
):
    recipe = Dudes(school[2], freeze=True)
    options = {"recipe": recipe, "hold_out": MUD, "settings": QUICK}
    with pytest.raises(UsageError, match="--freeze: expected a network that was trained for grass"):
        train(training_set, tmp_path / "b", model="demo", **options)
    options["validation"] = validation_set
    with pytest.raises(UsageError, match=r"mIoU does not change. Leave --validation out"):
        train(training_set, tmp_path / "c", model=school[2][0], **options)
    for useless in ({"freeze": True}, {"hidden": 8}):
        with pytest.raises(UsageError, match="got mean, for which the network itself is trained"):
            Dudes(school[2], target="mean", **useless)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"class_weights": 0.5}, "expected no --class-weights, since nothing is learnt from"),
        ({"dropout": 0.1}, "expected no --dropout-rate, since the network is not in training"),
    ],
)
def test_settings_without_effect_on_a_frozen_network_are_refused(
    school, training_set, setting, sentence, tmp_path
):
    settings = Settings(epochs=1, batch=4, **setting)
    options = {"model": school[2][0], "hold_out": MUD, "settings": settings}
    with pytest.raises(UsageError, match=sentence):
        train(training_set, tmp_path, recipe=Dudes(school[2], freeze=True), **options)


def test_a_network_that_a_python_file_loads_by_itself_can_get_a_head(
    school, training_set, network, tmp_path
):
    options = {"model": network, "hold_out": MUD, "settings": QUICK}
    torch.manual_seed(3)
    trained = train(training_set, tmp_path / "a", recipe=Dudes(school[2], freeze=True), **options)
    image = torch.rand(1, 3, 24, 32)
    assert dm.scores.distilled(dm.load(trained.model)(image)).std() > 0
    rows = (tmp_path / "a" / "training" / "log.csv").read_text().splitlines()
    rates = [float(row.split(",")[2]) for row in rows[1:]]
    assert rows[0].split(",")[2] == "rate" and 0 < rates[-1] < rates[0] <= QUICK.rate


def test_a_frozen_networks_own_rate_is_that_of_a_head(school):
    start = starting_network(school[2][0], NAMES)
    rates = [
        Dudes(school[2], hidden=n, freeze=f).rate(start) for n in (0, 8) for f in (True, False)
    ]
    assert rates == [0.02, 1e-4, 0.006, 1e-4]


def test_a_run_does_not_go_on_with_other_teachers_in_the_same_place(school, training_set, tmp_path):
    for name in "12":
        shutil.copytree(school[0] / name, tmp_path / name)
    names = tuple(taught(school[1], tmp_path, name) for name in "12")
    options = {"recipe": Dudes(names), "model": school[2][0], "hold_out": MUD, "settings": QUICK}
    train(training_set, tmp_path / "out", **options)
    train(training_set, tmp_path / "out", resume=True, **options)
    weights = load_file(tmp_path / "2" / "model.safetensors")
    weights["4.bias"] += 1
    save_file(weights, tmp_path / "2" / "model.safetensors")
    with pytest.raises(UsageError, match=r"expected the settings of the run .*but teachers "):
        train(training_set, tmp_path / "out", resume=True, **options)


def test_a_cache_is_not_read_for_teachers_whose_code_changed(school, stripes, tmp_path):
    code = tmp_path / "net.py"
    code.write_text(Path(stripes.removeprefix("folder:"), "net.py").read_text())
    names = [taught(f"python:{code}:build", school[0], name) for name in "12"]
    before = Teachers(names, "spread", NAMES).identity
    assert Teachers(names, "spread", NAMES).identity == before
    code.write_text(code.read_text() + "\n# another way\n")
    assert Teachers(names, "spread", NAMES).identity != before


@pytest.mark.parametrize("changed", ["code", "mean"])
def test_a_run_does_not_go_on_with_teachers_whose_code_or_normalisation_changed(
    changed, school, stripes, training_set, tmp_path
):
    code = tmp_path / "net.py"
    code.write_text(Path(stripes.removeprefix("folder:"), "net.py").read_text())
    for name in "12":
        shutil.copytree(school[0] / name, tmp_path / name)
    names = tuple(taught(f"python:{code}:build", tmp_path, name) for name in "12")
    options = {"recipe": Dudes(names), "model": school[2][0], "hold_out": MUD, "settings": QUICK}
    train(training_set, tmp_path / "out", **options)
    train(training_set, tmp_path / "out", resume=True, **options)
    if changed == "code":
        code.write_text(code.read_text() + "\n# another way\n")
    else:
        about = tmp_path / "2" / "doubtmap.json"
        about.write_text(json.dumps(json.loads(about.read_text()) | {"mean": [0.4, 0.4, 0.4]}))
    with pytest.raises(UsageError, match=r"expected the settings of the run .*but teachers "):
        train(training_set, tmp_path / "out", resume=True, **options)


def test_a_teacher_that_a_python_file_loads_by_itself_is_known_by_that_file(network, tmp_path):
    code = tmp_path / "net.py"
    code.write_text(Path(network.removeprefix("python:").rpartition(":")[0]).read_text())
    before = fingerprints([f"python:{code}:build"])
    code.write_text(code.read_text() + "\n# another way\n")
    assert fingerprints([f"python:{code}:build"]) != before and fingerprints(()) == []


def test_no_head_of_other_weights_is_left_beside_a_plain_network(school, training_set, tmp_path):
    options = {"model": school[2][0], "hold_out": MUD, "settings": QUICK}
    train(training_set, tmp_path, recipe=Dudes(school[2]), **options)
    (tmp_path / "training" / "checkpoint.pt").unlink()  # as if it had stopped before the first
    model = train(training_set, tmp_path, **options).model
    assert not (tmp_path / FILE).exists()
    assert dm.load(model)(torch.rand(1, 3, 24, 32)).layers == {}


def test_teachers_who_were_let_go_are_opened_again(school):
    teachers, image = Teachers(school[2], "mutual_information", NAMES), torch.rand(1, 3, 24, 32)
    said, identity = teachers(image), teachers.identity
    teachers.let_go()
    assert teachers.ensemble.members == () and teachers.identity == identity
    assert torch.equal(teachers(image), said)


def test_a_folder_called_demo_is_not_the_embedded_networks(
    stripes, school, training_set, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    settings = Settings(epochs=1, batch=4, crop=(24, 32))
    options = {"model": "demo", "hold_out": MUD, "settings": settings}
    train(training_set, "demo", recipe=Dudes(school[2]), **options)
    assert len(dm.load("./demo")(torch.rand(1, 3, 24, 32)).layers) == 1
    assert dm.load("demo")(torch.rand(1, 3, 24, 32)).layers == {}


def test_a_head_without_its_network_is_refused(student, tmp_path):
    module = dm.load(student[0]).source
    (tmp_path / FILE).write_bytes((student[1] / FILE).read_bytes())
    with pytest.raises(ModelError, match="expected the second head of the network beside it"):
        with_head(module, tmp_path)


@pytest.fixture
def asked(stripes, network):
    return ["train", f"{stripes}:train", "--model", network, "--hold-out", "mud", "--epochs", 1,
            "--batch", 4, "--workers", 1, "--recipe", "dudes"]  # fmt: skip


@pytest.mark.parametrize("target", ["spread", "mean"])
def test_the_command_prints_a_model_that_loads(
    run, asked, school, stripes, target, validation_set, tmp_path
):
    options = ["--target", target, "--mask-void", "--cache", tmp_path / "cache"]
    code, out, err = run(
        *asked, "--teachers", ",".join(school[2]), *options, "--out", tmp_path / "run"
    )
    assert code == 0 and "epoch 1: " in err
    segmenter = dm.load(out.strip())
    prediction = segmenter(images_of(validation_set)[0])
    assert (tmp_path / "run" / FILE).exists() == (target == "spread")
    if target == "spread":
        assert dm.scores.distilled(prediction).shape == (1, 24, 32)
        assert segmenter.source.notes[-1].endswith("disagree about: spread.")
    image = Path(stripes.removeprefix("folder:"), "images", "val", "00.png")
    options = ["--scores", "distilled", "--format", "npy", "--out", tmp_path / "maps"]
    code, _, err = run("score", out.strip(), image, *options)
    assert code == (0 if target == "spread" else 1)
    if target == "spread":
        drawn = torch.from_numpy(np.load(tmp_path / "maps" / "distilled" / "00.npy"))
        torch.testing.assert_close(drawn.float(), dm.scores.distilled(prediction)[0])
    else:
        assert "distilled: needs a network with a second head" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("teachers", "options", "code", "sentence"),
    [
        (1, [], 2, "--teachers: expected two or more networks, got 1."),
        (0, [], 2, "--teachers: expected two or more networks, got 0."),
        ("twice", [], 2, "got the same weights twice"),
        ("others", [], 2, "student's classes (grass, stone, water), got grass, stone, mud."),
        ("mixed", [], 2, "ensemble: expected the classes of the first member"),
        (3, ["--target", "spred"], 2, "--target: expected one of spread, mutual_information"),
        (3, ["--hidden", -1], 2, "--hidden: expected a number of channels, or 0"),
        (3, ["--target", "mean", "--freeze"], 2, "--freeze: expected a target that"),
        (3, ["--recipe", "plain"], 2, "--recipe: expected dudes, the only one with --teachers"),
        (0, ["--recipe", "plain", "--freeze"], 2, "--freeze, --mask-void, --hidden, --layers and"),
        (3, ["--recipe", "nflowjs", "--freeze"], 2, "--recipe: expected dudes, the only one with"),
        (0, ["--recipe", "spectral", "--folds", 2], 2, "--recipe: expected dudes, the only one"),
        (3, ["--freeze-flow"], 2, "--recipe: expected nflowjs, the only one with --negatives"),
        (3, ["--coefficient", 9], 2, "--recipe: expected spectral, the only one with --coeff"),
        (3, ["--members", 3], 2, "--recipe: expected ensemble, the only one with --members, got"),
        (0, ["--recipe", "plain", "--coefficient", 9], 2, "got plain. Give --recipe spectral, or"),
        (3, ["--layers", "2"], 2, "--layers: expected a hidden layer of the second head"),
        (3, ["--layers", "9", "--hidden", 4], 2, "layer: expected the name of a layer of this"),
        (3, ["--layers", "4", "--hidden", 4], 1, "to call 4 before its classifier, but it did"),
        (3, ["--folds", 2], 2, "--folds: expected a number of folds from 2 on, and --cache"),
        (3, ["--folds", 0], 2, "--folds: expected a number of folds"),
        (3, ["--folds", 2, "--cache", "c"], 2, "as many networks for each of 2 folds"),
        (3, ["--without-fold", "3/2"], 2, "--without-fold: expected a fold and their number"),
        ("missing", [], 2, "Check the path"),
    ],
)
def test_failures_are_one_sentence(
    run, asked, school, stranger, teachers, options, code, sentence, tmp_path
):
    folder, network, names = school
    given = {
        "twice": [names[0], names[1], names[0]],
        "others": [taught(network, stranger, name) for name in "12"],
        "mixed": [names[0], "demo"],
        "missing": [names[0], str(folder / "none")],
    }.get(teachers, names[: teachers if isinstance(teachers, int) else 0])
    result, out, err = run(
        *asked, "--teachers", ",".join(given), *options, "--out", tmp_path / "run"
    )
    assert (result, out) == (code, "")
    last = err.strip().splitlines()[-1]
    assert last.startswith("doubtmap: ") and sentence in last


def test_a_plain_network_asked_for_distilled_fails_with_a_sentence(run, tmp_path):
    code, out, err = run(
        "evaluate", "demo", "synthetic:1", "--scores", "distilled", "--out", tmp_path / "out"
    )
    assert (code, out) == (1, "")
    assert "doubtmap: distilled: needs a network with a second head" in err.splitlines()[-1]


@pytest.fixture(scope="module")
def segformer(tmp_path_factory):
    """A folder of transformers."""
    transformers = pytest.importorskip("transformers")
    names = dict(enumerate(NAMES))
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=12, id2label=names, label2id={v: k for k, v in names.items()},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("segformer") / "net"
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_hugging_face_student_is_still_one_for_other_tools(
    school, segformer, training_set, tmp_path, capfd
):
    settings = Settings(epochs=1, batch=4, rate=0.02, workers=1, crop=(64, 64))
    options = {"model": str(segformer), "hold_out": MUD, "settings": settings}
    trained = train(training_set, tmp_path / "net", recipe=Dudes(school[2]), **options)
    segmenter, image = dm.load(trained.model), torch.rand(1, 3, 64, 64)
    prediction = segmenter(image)
    (said,) = prediction.layers.values()
    assert said.shape == (1, 1, 16, 16) and said.std() > 0
    assert dm.scores.distilled(prediction).shape == (1, 64, 64)
    capfd.readouterr()
    from transformers import AutoModelForSemanticSegmentation

    other, loading = AutoModelForSemanticSegmentation.from_pretrained(
        tmp_path / "net", output_loading_info=True
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert "distilled" not in capfd.readouterr().err
    assert torch.equal(dm.load(other, classes=NAMES)(image).classes, prediction.classes)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_frozen_student_of_a_folder_that_resizes_says_so(
    school, segformer, training_set, tmp_path
):
    shutil.copytree(segformer, tmp_path / "resizing")
    said = {"do_resize": True, "size": {"height": 32, "width": 64}}
    (tmp_path / "resizing" / "preprocessor_config.json").write_text(json.dumps(said))
    settings = Settings(epochs=1, batch=4, workers=1, crop=(64, 64))
    for model, count in ((segformer, 0), (tmp_path / "resizing", 1)):
        options = {"model": str(model), "hold_out": MUD, "settings": settings}
        recipe = Dudes(school[2], freeze=True)
        notes = train(training_set, tmp_path / f"out{count}", recipe=recipe, **options).notes
        assert len(notes) == count
    assert "resizes images ([32, 64]) before it sees them, the student takes them as" in notes[0]
