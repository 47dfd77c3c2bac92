"""`fit`, `locations`, ensembles and dropout on the command line."""

import json

import pytest

from doubtmap.scores import Density


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fitted")


def test_fit_then_evaluate(run, folder):
    file = folder / "density.safetensors"
    code, out, err = run("fit", "density(certainty=16)", "demo", "synthetic:4", "--out", file)
    assert code == 0, err
    fitted = "over 56 features of merge.3, certainty 16"
    assert out == f"{file}: {fitted}; use it with --scores density:{file}\n"
    assert Density.load(file).certainty == 16
    code, out, err = run(
        "evaluate", "demo", "synthetic:2", "--scores", f"entropy,density:{file}", "--json",
        "--out", folder / "results", "--replicates", 20,
    )  # fmt: skip
    assert code == 0, err
    assert list(json.loads(out)["scores"]) == ["entropy", "density"]
    page = (folder / "results" / "report.html").read_text()
    assert "aleatoric doubt: entropy" in page
    assert "epistemic doubt: density" in page
    assert "single pixels" in page


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["entropy", "demo", "synthetic:1"], 2, "expected doubt, density, sum, wrong or segments"),
        (["density(at=up)", "demo", "synthetic:1"], 2, "at to be predicted or any"),
        (["density(layer=nowhere)", "demo", "synthetic:1"], 2, "name of a layer"),
        (["density", "demo,demo", "synthetic:1"], 1, "no features in common"),
        (["density(certainty=20000)", "demo", "synthetic:1"], 1, "effective pixels"),
    ],
)
def test_bad_fits(run, tmp_path, arguments, code, message):
    file = tmp_path / "density.safetensors"
    found, out, err = run("fit", *arguments, "--out", file)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
    assert not file.exists()


def test_a_score_that_was_not_fitted(run, tmp_path):
    code, _, err = run("evaluate", "demo", "synthetic:1", "--scores", "density", "--out", tmp_path)
    assert code == 2
    assert "doubtmap fit density MODEL DATA --out FILE" in err


def test_locations(run, tmp_path):
    code, out, err = run("locations", "demo", "synthetic:3", "--grid", 4, "--out", tmp_path)
    assert code == 0, err
    assert "the class tells more than the place" in out
    found = json.loads((tmp_path / "locations.json").read_text())
    assert len(found["distances"]) == len(found["classes"]) == 8
    assert (tmp_path / "locations.svg").read_text().startswith("<svg xmlns=")


@pytest.mark.parametrize(
    "options",
    [
        ["demo,demo"],
        ["demo", "--dropout-passes", "3", "--dropout-rate", "0.2"],
        ["demo", "--views", "mirror"],
    ],
)
def test_all_scores_of_several_networks_or_passes(run, tmp_path, options):
    code, out, err = run(
        "evaluate", *options, "synthetic:2", "--json", "--out", tmp_path, "--replicates", 20
    )
    assert code == 0, err
    figures = json.loads(out)
    assert {"mutual_information", "member_entropy", "member_spread"} < set(figures["scores"])
    assert {"gradient", "energy"}.isdisjoint(figures["scores"])
    assert any("energy: left out" in note for note in figures["notes"])


def test_the_seed_is_that_of_dropout_too(run, tmp_path):
    def information(seed):
        code, out, err = run(
            "evaluate", "demo", "--dropout-rate", "0.2", "synthetic:1", "--json",
            "--scores", "mutual_information", "--replicates", 20,
            "--seed", seed, "--out", tmp_path / str(seed),
        )  # fmt: skip
        assert code == 0, err
        return json.loads(out)["model"]["dropout"]["seed"]

    assert (information(3), information(4)) == (3, 4)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["demo", "--dropout-passes", "5"], 1, "Give --dropout-rate"),
        (["demo", "--dropout-rate", "1.5"], 2, "between 0 and 1"),
        (["demo", "--dropout-passes", "1"], 2, "two or more passes"),
        (["demo,demo", "--dropout-passes", "5"], 2, "one PyTorch network"),
        (["demo", "--views", "1"], 2, "Leave out 1"),
        (["demo", "--views", "mirror,mirror"], 2, "Leave out mirror"),
        (["demo", "--views", "up"], 2, "got 'up'"),
        (["demo", "--views", "nan"], 2, "0.125 to 8"),
        (["demo", "--views", "9"], 2, "0.125 to 8"),
        (["demo", "--views", "2", "--dropout-rate", "0.2"], 2, "or --dropout-passes"),
        (["demo", "--scores", "mutual_information"], 1, "MODEL1,MODEL2"),
    ],
)
def test_impossible_sampling(run, tmp_path, options, code, message):
    found, _, err = run("evaluate", *options, "synthetic:1", "--out", tmp_path)
    assert found == code
    assert message in err
