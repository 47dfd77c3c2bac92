"""Repeated evaluations: mean, deviation, and going on after a kill."""

import statistics

import pytest
import torch
from photographs import box, photograph

import doubtmap as dm
from doubtmap.datasets import Pasted, Sample, open_outlines
from doubtmap.engine.settings import data_settings
from doubtmap.evaluation.asking import Options
from doubtmap.evaluation.repeats import evaluate_passes, summarised

SCORES = "entropy,max_logit"


class Killed(Exception):
    """Stands for the end of the process."""


class Noise:
    """Three images of noise, labelled at random."""

    class_names = ("road", "sky")
    component_sizes = None

    def __init__(self, seed):
        self.name, self.seed = f"noise@{seed}", seed

    def __len__(self):
        return 3

    def sample_name(self, index):
        return f"frame{index}"

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(10 * self.seed + index)
        image = torch.randint(256, (3, 24, 32), generator=generator, dtype=torch.uint8)
        label = torch.randint(-2, 2, (24, 32), generator=generator, dtype=torch.int16)
        return Sample(self.sample_name(index), image, label)


@pytest.fixture
def passes():
    return [Noise(seed) for seed in (3, 4, 5)]


def killed_in_pass(number, stage="pixels"):
    seen = []

    def progress(at_stage, done, total):
        if (at_stage, done) == (stage, 2):
            seen.append(1)
            if len(seen) == number:
                raise Killed

    return progress


def without_times(results):
    return results.figures | {"seconds": None}


def test_mean_and_deviation_over_the_passes(segmenter, passes):
    options = {"unknown": (), "replicates": 20}
    results = evaluate_passes(segmenter, passes[:2], SCORES, **options)
    alone = [dm.evaluate(segmenter, each, SCORES, replicates=20).figures for each in passes[:2]]
    summary = results.figures["passes"]
    assert (summary["count"], summary["data"]) == (2, ["noise@3", "noise@4"])
    for score in ("entropy", "max_logit"):
        for key in ("auprc", "auroc", "fpr95", "siou", "f1"):
            values = [each["scores"][score]["unknown"][key] for each in alone]
            found = summary["scores"][score]["unknown"][key]
            assert found["values"] == values
            assert found["mean"] == pytest.approx(sum(values) / 2)
            assert found["deviation"] == pytest.approx(statistics.stdev(values))
    assert summary["segmentation"]["miou"]["values"] == [f["segmentation"]["miou"] for f in alone]
    first = {key: value for key, value in alone[0].items() if key not in ("seconds", "notes")}
    assert {key: results.figures[key] for key in first} == first
    assert any("of the first of 2 passes" in note for note in results.figures["notes"])


def test_one_pass_is_an_evaluation(segmenter, passes):
    one = evaluate_passes(segmenter, passes[:1], "entropy", replicates=20)
    assert without_times(one) == without_times(
        dm.evaluate(segmenter, passes[0], "entropy", replicates=20)
    )
    with pytest.raises(dm.UsageError, match="at least 1 pass"):
        evaluate_passes(segmenter, [], "entropy")


@pytest.mark.parametrize("number", [1, 3])
def test_a_resumed_run_does_no_pass_again(segmenter, fresh_segmenter, passes, tmp_path, number):
    options = {"replicates": 20, "out": tmp_path}
    with pytest.raises(Killed):
        evaluate_passes(segmenter, passes, "entropy", progress=killed_in_pass(number), **options)
    with pytest.raises(dm.UsageError, match="not finished"):
        evaluate_passes(segmenter, passes, "entropy", **options)
    with pytest.raises(dm.UsageError, match=r"passes.* differ"):
        evaluate_passes(segmenter, passes[::-1][:2] + passes[:1], "entropy", resume=True, **options)
    seen, saved = [], []
    results = evaluate_passes(
        fresh_segmenter(),
        passes,
        "entropy",
        resume=True,
        options=Options(save=saved.append),
        progress=lambda *state: seen.append(state),
        **options,
    )
    again = [done for stage, done, _ in seen if stage == "pixels"]
    assert again == [2, 3] + [0, 1, 2, 3] * (3 - number)
    assert saved == [results] and "passes" in saved[0].figures
    assert not (tmp_path / ".passes").exists()
    unbroken = evaluate_passes(segmenter, passes, "entropy", replicates=20)
    assert results.figures["passes"] == unbroken.figures["passes"]


def test_other_objects_or_draws_are_another_run(tmp_path):
    photograph(tmp_path, "a", [(16, box(0, 0, 9, 9)), (15, box(5, 5, 9, 9))])
    outlines = open_outlines(str(tmp_path))
    runs = [
        Noise(3),
        Pasted(Noise(3), outlines),
        Pasted(Noise(3), outlines, seed=1),
        Pasted(Noise(3), outlines, smallest=0.1),
        Pasted(Noise(3), outlines, void_known=True),
        Pasted(Noise(3), outlines.only(["dog"])),
    ]
    assert len({str(data_settings(run)) for run in runs}) == len(runs)
    assert data_settings(runs[1]) == data_settings(Pasted(Noise(3), open_outlines(str(tmp_path))))


def test_a_figure_that_a_pass_lacks_has_no_mean():
    def figures(auprc):
        unknown = dict.fromkeys(("auprc", "auroc", "fpr95", "siou", "ppv", "f1"), auprc)
        return {
            "segmentation": {"miou": 0.5, "accuracy": 0.75},
            "scores": {"entropy": {"unknown": unknown}},
        }

    found = summarised([figures(0.25), figures(None)], ["a", "b"])["scores"]["entropy"]["unknown"]
    assert found["auprc"] == {"mean": None, "deviation": None, "values": [0.25, None]}
    alone = summarised([figures(0.25)], ["a"])["scores"]["entropy"]["unknown"]["auprc"]
    assert alone == {"mean": 0.25, "deviation": None, "values": [0.25]}
