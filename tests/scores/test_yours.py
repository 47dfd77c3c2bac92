"""Scores of the user's own: from a Python file, and from installed packages."""

import pickle
import sys

import pytest
import torch

import doubtmap as dm
from doubtmap.engine.settings import score_settings
from doubtmap.errors import ModelError, UsageError
from doubtmap.prediction import Prediction, digest_of
from doubtmap.scores.parsing import open_scores, parse_scores
from doubtmap.scores.wrong import Wrong

FILE = '''
import torch
import beside_it

def second(prediction, weight=1.0):
    """The second largest probability."""
    return weight * prediction.probabilities.topk(2, 1).values[:, 1] + beside_it.ZERO

def plain(prediction):
    return (1 - prediction.probabilities.amax(1))[0].numpy()
plain.probability_of_wrong = True

def native(prediction):
    return prediction.native_logits[:, 0]

def raises(prediction):
    raise KeyError("nothing there")

class Powered:
    def __init__(self, power=2):
        self.power = power

    def __call__(self, prediction):
        return dm_entropy(prediction) ** self.power

from doubtmap.scores import entropy as dm_entropy
number = 3
'''


@pytest.fixture
def file(tmp_path):
    (tmp_path / "beside_it.py").write_text("ZERO = 0\n")
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    yield path
    sys.modules.pop("beside_it", None)


@pytest.fixture
def prediction():
    return Prediction(
        3 * torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(0)), (10, 12)
    )


def test_functions_and_classes_of_a_file_are_scores(file, prediction):
    named = parse_scores(f"entropy,python:{file}:second(weight=0.5),python:{file}:Powered(power=3)")
    assert list(named) == ["entropy", "second(weight=0.5)", "Powered(power=3)"]
    _, half, powered = (score(prediction) for score in named.values())
    torch.testing.assert_close(half, 0.5 * prediction.probabilities.sort(1).values[:, -2])
    torch.testing.assert_close(powered, dm.scores.entropy(prediction) ** 3)
    plain = parse_scores(f"python:{file}:plain")["plain"]
    assert plain.probability_of_wrong and plain(prediction).shape == (1, 10, 12)


def test_it_is_sent_as_its_text_and_told_apart_by_its_code(file, prediction):
    score = parse_scores(f"python:{file}:second")["second"]
    again = pickle.loads(pickle.dumps(score))
    assert torch.equal(again(prediction), score(prediction)) and again.code == score.code
    before = score_settings({"second": score})
    (file.parent / "beside_it.py").write_text("ZERO = 1\n")
    changed = parse_scores(f"python:{file}:second")["second"]
    assert digest_of(changed) != digest_of(score)
    assert score_settings({"second": changed}) != before == score_settings({"second": again})
    other = parse_scores(f"python:{file}:second(weight=2)").popitem()[1]
    assert digest_of(other) != digest_of(changed)


def test_it_can_be_fused_and_written(file, prediction, tmp_path):
    texts = [f"python:{file}:second", "entropy"]
    label = prediction.classes.clone()
    label[:, :3] = (label[:, :3] + 1) % 4
    fitted = Wrong.fit([(prediction, label)], [(prediction, label)], open_scores(texts))
    fitted.save(tmp_path / "wrong.safetensors")
    again = parse_scores(f"wrong:{tmp_path / 'wrong.safetensors'}")["wrong"]
    torch.testing.assert_close(again(prediction), fitted(prediction))


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("", UsageError, "Add the function's name"),
        (":secnd", UsageError, "expected a function secnd in .*, found second, plain, native"),
        (":number", UsageError, "expected a function number"),
        (":second(weight)", UsageError, "expected arguments as in FUNCTION"),
        (":Powered(other=1)", ModelError, "expected a score, but the function raised TypeError"),
    ],
)
def test_what_is_no_score_is_told_at_once(file, name, error, told):
    with pytest.raises(error, match=told):
        parse_scores(f"python:{file}{name}")


def test_a_file_that_raises_or_is_not_there(tmp_path):
    (tmp_path / "bad.py").write_text("1 / 0\n")
    with pytest.raises(ModelError, match="expected a score, but the file raised ZeroDivisionError"):
        parse_scores(f"python:{tmp_path / 'bad.py'}:f")
    with pytest.raises(UsageError, match=r"expected a file .*nowhere.py, found none"):
        parse_scores(f"python:{tmp_path / 'nowhere.py'}:f")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("native", r"shape \(1, 10, 12\), .* got \(1, 5, 6\). prediction.to_size resizes"),
        ("raises", "expected a map of doubt, but it raised KeyError: 'nothing there'"),
    ],
)
def test_what_it_gives_is_checked(file, prediction, name, told):
    score = parse_scores(f"python:{file}:{name}")[name]
    with pytest.raises(ModelError, match=told):
        score(prediction)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that brings two scores, of which one cannot be imported."""
    (tmp_path / "sharp.py").write_text(
        "def sharpness(prediction, of=1.0):\n    return of * prediction.probabilities.amax(1)\n"
    )
    about = tmp_path / "sharp-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: sharp\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[doubtmap.scores]\nsharpness = sharp:sharpness\ngone = sharp:gone\nentropy = sharp:gone\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("package")
def test_installed_packages_bring_scores(prediction):
    named = parse_scores("entropy,sharpness(of=2)")
    torch.testing.assert_close(
        named["sharpness(of=2)"](prediction), 2 * prediction.probabilities.amax(1)
    )
    assert named["entropy"] is dm.scores.entropy  # ours cannot be taken
    with pytest.raises(ModelError, match="gone is of an installed package, sharp:gone"):
        parse_scores("gone")
    with pytest.raises(UsageError, match="Did you mean sharpness"):
        parse_scores("sharpnes")


def test_the_command_takes_it(file, run, tmp_path):
    out = tmp_path / "out"
    line = ["evaluate", "demo", "synthetic:2", "--scores", f"entropy,python:{file}:second"]
    code, _, error = run(*line, "--out", out)
    assert code == 0, error
    assert (out / "results.json").read_text().count('"second"')
