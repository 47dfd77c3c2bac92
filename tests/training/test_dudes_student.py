"""The folder of a student: what is in it, who takes it, and what it says."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_school import MUD, NAMES, QUICK, images_of

import doubtmap as dm
from doubtmap.engine.run import Run
from doubtmap.errors import ModelError
from doubtmap.evaluation.asking import scores_asked
from doubtmap.models import MonteCarloDropout
from doubtmap.models.distilled import FILE, Head, attach, head_of, with_head
from doubtmap.training import Dudes, Settings, train
from doubtmap.training.labels import Targets
from doubtmap.training.networks import starting_network


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
        found = scores_asked(Run(dm.load(model), validation_set, {}, (), None), "all")
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


def test_a_head_without_its_network_is_refused(student, tmp_path):
    module = dm.load(student[0]).source
    (tmp_path / FILE).write_bytes((student[1] / FILE).read_bytes())
    with pytest.raises(ModelError, match="expected the second head of the network beside it"):
        with_head(module, tmp_path)


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


def test_no_head_of_other_weights_is_left_beside_a_plain_network(school, training_set, tmp_path):
    options = {"model": school[2][0], "hold_out": MUD, "settings": QUICK}
    train(training_set, tmp_path, recipe=Dudes(school[2]), **options)
    (tmp_path / "training" / "checkpoint.pt").unlink()  # as if it had stopped before the first
    model = train(training_set, tmp_path, **options).model
    assert not (tmp_path / FILE).exists()
    assert dm.load(model)(torch.rand(1, 3, 24, 32)).layers == {}


def test_a_folder_called_demo_is_not_the_embedded_networks(
    stripes, school, training_set, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    settings = Settings(epochs=1, batch=4, crop=(24, 32))
    options = {"model": "demo", "hold_out": MUD, "settings": settings}
    train(training_set, "demo", recipe=Dudes(school[2]), **options)
    assert len(dm.load("./demo")(torch.rand(1, 3, 24, 32)).layers) == 1
    assert dm.load("demo")(torch.rand(1, 3, 24, 32)).layers == {}


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
