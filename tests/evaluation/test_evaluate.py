"""Whole runs: figures against scikit-learn on all pixels at once, void, unknowns, notes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, jaccard_score, roc_auc_score

import doubtmap as dm
from doubtmap.datasets import UNKNOWN, VOID, Sample
from doubtmap.engine.run import Run
from doubtmap.errors import UsageError
from doubtmap.evaluation.asking import Options, scores_asked
from doubtmap.evaluation.cases import Cases
from doubtmap.metrics import Patches

SCORES = "max_softmax,entropy,gradient(p=1)"


class Streets:
    """A data set that hands out given samples."""

    component_sizes = None

    def __init__(self, samples, class_names, name="given"):
        self.samples, self.class_names, self.name = samples, class_names, name

    def __len__(self):
        return len(self.samples)

    def sample_name(self, index):
        return f"sample{index}"

    def __getitem__(self, index):
        found = self.samples[index]
        if isinstance(found, Exception):
            raise found
        return found


def all_pixels(segmenter, dataset, score):
    doubts, labels, classes = [], [], []
    for index in range(len(dataset)):
        sample = dataset[index]
        prediction = segmenter(sample.image[None])
        doubts.append(score(prediction)[0].numpy().ravel())
        labels.append(sample.label.numpy().ravel())
        classes.append(prediction.classes[0].numpy().ravel())
    return map(np.concatenate, (doubts, labels, classes))


def test_patches_by_region_are_those_of_all_images(figures, segmenter, streets):
    """Areas of the accumulator over masks, where all patches of an image are of one kind."""
    patches = {part: Patches(4) for part in ("with_unknown", "all")}
    for index in range(len(streets)):
        sample = streets[index]
        prediction, label = segmenter(sample.image[None]), sample.label[None].long()
        right, doubt = prediction.classes == label, dm.scores.entropy(prediction)
        patches["all"].update(doubt, right, label >= 0)
        patches["with_unknown"].update(doubt, right, (label >= 0) | (label == UNKNOWN))
    wrong = figures["scores"]["entropy"]["wrong"]
    assert wrong["pavpu_area"] == pytest.approx(patches["all"].areas().pavpu_area, abs=1e-3)
    expected = patches["with_unknown"].areas()
    assert wrong["with_unknown"]["pavpu_area"] == pytest.approx(expected.pavpu_area, abs=1e-3)
    assert set(wrong["inside"]) == set(wrong["border"]) == set(wrong["per_pixel"])


@pytest.fixture
def figures(segmenter, streets):
    return dm.evaluate(segmenter, streets, SCORES, replicates=50).figures


def test_figures_are_those_of_all_pixels_in_one_pot(figures, segmenter, streets):
    doubt, label, classes = all_pixels(segmenter, streets, dm.scores.entropy)
    counted, known = label != VOID, label >= 0
    unknown = figures["scores"]["entropy"]["unknown"]
    exact = average_precision_score(label[counted] == UNKNOWN, doubt[counted])
    assert unknown["auprc_bounds"][0] <= exact <= unknown["auprc_bounds"][1]
    exact = roc_auc_score(label[counted] == UNKNOWN, doubt[counted])
    assert unknown["auroc_bounds"][0] <= exact <= unknown["auroc_bounds"][1]
    wrong = figures["scores"]["entropy"]["wrong"]
    exact = average_precision_score(label[known] != classes[known], doubt[known])
    assert wrong["auprc_bounds"][0] <= exact <= wrong["auprc_bounds"][1]
    present = np.union1d(label[known], classes[known])
    exact = jaccard_score(label[known], classes[known], labels=present, average="macro")
    assert figures["segmentation"]["miou"] == pytest.approx(exact)
    assert figures["data"]["pixels"] == {
        "known": known.sum(),
        "unknown": (label == UNKNOWN).sum(),
        "void": (label == VOID).sum(),
    }


def test_means_by_predicted_class_and_what_remains_are_those_of_all_pixels(
    figures, segmenter, streets
):
    doubt, label, classes = all_pixels(segmenter, streets, dm.scores.entropy)
    found, names = figures["scores"]["entropy"], streets.class_names
    counted, known = label != VOID, label >= 0
    for index, name in enumerate(names):
        own = counted & (classes == index)
        mean = found["by_predicted_class"]["mean"][name]
        assert mean == (pytest.approx(doubt[own].mean(dtype=float)) if own.any() else None)
    means = [mean for mean in found["by_predicted_class"]["mean"].values() if mean is not None]
    assert found["by_predicted_class"]["mean_of_classes"] == pytest.approx(np.mean(means))
    removal, order = found["removal"], np.argsort(doubt[known], kind="stable")
    assert removal["miou"][0] == pytest.approx(figures["segmentation"]["miou"])
    assert removal["risk"][0] == pytest.approx(1 - figures["segmentation"]["accuracy"])
    for share, miou, risk, left in zip(*removal.values()):
        kept = order[: round((1 - share) * known.sum())]
        own, said = label[known][kept], classes[known][kept]
        present = np.union1d(own, said)
        exact = jaccard_score(own, said, labels=present, average="macro")
        assert left == len(present)
        assert (miou, risk) == pytest.approx((exact, (own != said).mean()), abs=5e-3)


def test_means_are_held_against_another_evaluation(segmenter, streets, tmp_path):
    results = dm.evaluate(segmenter, streets, "max_softmax,entropy", replicates=20)
    results.save(tmp_path)
    theirs = results.figures["scores"]["max_softmax"]["by_predicted_class"]["mean"]

    def held(against, data=streets, network=segmenter):
        options = Options(against=str(against))
        found = dm.evaluate(network, data, "entropy,margin", replicates=20, options=options)
        return {n: s["by_predicted_class"] for n, s in found.figures["scores"].items()}

    same = held(tmp_path)
    assert same["entropy"]["error"] == 0 and "error" not in same["margin"]
    for name, own in held(f"{tmp_path}:max_softmax").items():
        gaps = [abs(m - theirs[c]) for c, m in own["mean"].items() if m is not None]
        assert own["error"] == pytest.approx(np.mean(gaps)) and own["error"] > 0, name
        assert own["against"] == f"{tmp_path}: max_softmax"
    with pytest.raises(UsageError, match="of the score nothing, got max_softmax, entropy"):
        held(f"{tmp_path}:nothing")
    (tmp_path / "results.json").write_text(
        (tmp_path / "results.json").read_text().replace('"entropy": {', '"energy": {')
    )
    with pytest.raises(UsageError, match=r"of one of the scores entropy, margin, got max_softmax"):
        held(tmp_path)
    results.save(tmp_path)
    with pytest.raises(UsageError, match="of the same 1 images"):
        held(tmp_path, Streets([streets[0]], streets.class_names))
    file = tmp_path / "results.json"
    text, first = file.read_text(), streets.class_names[0]
    file.write_text(text.replace(f'"{first}"', '"another"'))
    with pytest.raises(UsageError, match="of the same classes with their means, got other or none"):
        held(tmp_path)
    file.write_text(text.replace("by_predicted_class", "of_an_older_version"))
    with pytest.raises(UsageError, match=r"Evaluate both with this version"):
        held(f"{tmp_path}:entropy")


def test_each_unknown_class_is_held_against_the_known_pixels_alone(segmenter, streets):
    names = (*streets.class_names, "dog", "cone", "never")
    dog, cone = len(names) - 3, len(names) - 2
    samples = [streets[index] for index in range(4)]
    for place, sample in enumerate(samples):
        sample.label[20:30, 10 : 20 + place] = dog
        sample.label[40:50, 50:60] = cone if place else UNKNOWN
    dataset = Streets(samples, names)
    asked = {"unknown": names[-3:], "replicates": 20}
    found = dm.evaluate(segmenter, dataset, "entropy", **asked).figures
    counts = found["data"]["unknown_classes"]
    unknown = found["scores"]["entropy"]["unknown"]
    doubt, label, _ = all_pixels(segmenter, dataset, dm.scores.entropy)
    known = (label >= 0) & (label < dog)
    for name, value in (("dog", dog), ("cone", cone), ("unnamed", UNKNOWN)):
        own, keep = unknown["by_class"][name], known | (label == value)
        truth, scores = label[keep] == value, doubt[keep]
        for key, exact in (
            ("auprc", average_precision_score(truth, scores)),
            ("auroc", roc_auc_score(truth, scores)),
            ("recall", (doubt[label == value] > unknown["threshold"]).mean()),
        ):
            low, high = own[f"{key}_bounds"]
            assert low <= exact <= high and own[key] == pytest.approx(exact, abs=1e-4)
        assert own["auprc_interval"] is None or len(own["auprc_interval"]) == 2
        assert counts[name]["pixels"] == truth.sum()
    assert counts["cone"]["images"] == 3 and counts["never"]["pixels"] == 0
    assert set(unknown["by_class"]["never"].values()) == {None}
    assert any("unknown.by_class.never: no pixel" in note for note in found["notes"])
    alone = dm.evaluate(segmenter, dataset, "entropy", unknown="dog", replicates=5).figures
    assert "by_class" not in alone["scores"]["entropy"]["unknown"]


def test_every_headline_figure_has_an_interval_that_is_not_upside_down(figures):
    intervals = [figures["segmentation"]["miou_interval"], figures["calibration"]["ece_interval"]]
    for score in figures["scores"].values():
        intervals += [score["unknown"][f"{name}_interval"] for name in ("auprc", "auroc", "fpr95")]
        intervals += [score["wrong"][f"{name}_interval"] for name in ("auprc", "auroc", "aurc")]
    assert all(low <= high for low, high in intervals)
    pairs = {tuple(row["scores"]) for row in figures["differences"]}
    assert ("max_softmax", "entropy") in pairs
    kinds = {row["figure"] for row in figures["differences"]}
    assert kinds == {f"{of}.{name}" for of in ("unknown", "wrong") for name in ("auprc", "fpr95")}


def test_the_difference_of_a_score_to_itself_is_nothing(segmenter, streets):
    twice = {"a": dm.scores.entropy, "b": dm.scores.entropy}
    rows = dm.evaluate(segmenter, streets, twice, replicates=50).figures["differences"]
    assert rows
    assert all(row["difference"] == 0 and row["interval"] == [0, 0] for row in rows)


def test_all_may_stand_in_a_list_with_functions(segmenter, streets):
    def mine(prediction):
        return -dm.scores.entropy(prediction)

    found = scores_asked(Run(segmenter, streets, {}, (), None), ["all", mine])
    assert list(found) == [*dm.scores.STATELESS, "mine"]
    assert list(scores_asked(Run(segmenter, streets, {}, (), None), mine)) == ["mine"]


def test_void_counts_for_nothing(segmenter, streets):
    samples = [streets[index] for index in range(3)]
    hidden = [s.label.clone() for s in samples]
    scrambled = []
    for sample, label in zip(samples, hidden):
        label[:20] = VOID
        image = sample.image.clone()
        scrambled.append(Sample(sample.name, image, label))
    names = streets.class_names
    before = dm.evaluate(segmenter, Streets(scrambled, names), "entropy", replicates=20).figures
    doubt, label, _ = all_pixels(segmenter, Streets(scrambled, names), dm.scores.entropy)
    keep = label != VOID
    exact = average_precision_score(label[keep] == UNKNOWN, doubt[keep])
    low, high = before["scores"]["entropy"]["unknown"]["auprc_bounds"]
    assert low <= exact <= high
    assert before["data"]["pixels"]["void"] >= 3 * 20 * 96


def test_known_and_unknown_alone_give_no_segmentation_figures(segmenter, streets):
    samples = []
    for index in range(3):
        sample = streets[index]
        binary = torch.where(sample.label == UNKNOWN, UNKNOWN, -3).to(torch.int16)
        samples.append(Sample(sample.name, sample.image, binary))
    figures = dm.evaluate(segmenter, Streets(samples, ()), "entropy", replicates=20).figures
    assert figures["segmentation"]["miou"] is None
    assert figures["calibration"]["ece"] is None
    assert figures["scores"]["entropy"]["wrong"]["auprc"] is None
    assert figures["scores"]["entropy"]["unknown"]["auprc"] > 0
    assert any("no pixel has a class" in note for note in figures["notes"])


def test_without_unknown_pixels_their_figures_are_null_and_a_note_says_why(segmenter):
    streets = dm.datasets.open_dataset("synthetic:2")
    known = [streets[i] for i in range(2)]
    known = [Sample(s.name, s.image, torch.where(s.label < 0, VOID, s.label)) for s in known]
    dataset = Streets(known, streets.class_names)
    figures = dm.evaluate(segmenter, dataset, "entropy", replicates=20).figures
    assert figures["scores"]["entropy"]["unknown"]["auprc"] is None
    assert any("unknown" in note for note in figures["notes"])


def test_a_bad_image_ends_the_run_or_is_counted(segmenter, streets):
    broken = dm.DataError("sample1.png: cannot be read")
    dataset = Streets([streets[0], broken, streets[1]], streets.class_names)
    with pytest.raises(dm.DataError, match=r"sample1\.png"):
        dm.evaluate(segmenter, dataset, "entropy", replicates=20)
    figures = dm.evaluate(segmenter, dataset, "entropy", replicates=20, skip_bad=True).figures
    assert figures["data"]["images"] == 2
    assert figures["data"]["skipped"] == {"sample1": "sample1.png: cannot be read"}


def test_all_images_bad_is_an_error(segmenter, streets):
    dataset = Streets([dm.DataError("gone")], streets.class_names)
    with pytest.raises(dm.DataError, match="none of the 1 images"):
        dm.evaluate(segmenter, dataset, "entropy", skip_bad=True)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_named(segmenter, streets, bad):
    def broken(prediction):
        return torch.full_like(dm.scores.entropy(prediction), bad)

    with pytest.raises(dm.DataError, match="broken: expected finite"):
        dm.evaluate(segmenter, streets, [broken])


def test_a_score_of_another_shape_is_named(segmenter, streets):
    def small(prediction):
        return dm.scores.entropy(prediction)[:, ::2]

    with pytest.raises(dm.DataError, match="small: expected a map of shape"):
        dm.evaluate(segmenter, streets, [small])


def test_components_are_those_at_the_threshold_of_the_best_f1(segmenter, streets):
    figures = dm.evaluate(segmenter, streets, "entropy", replicates=20).figures
    found = figures["scores"]["entropy"]["unknown"]
    components = dm.metrics.Components()
    sizes = streets.component_sizes or dm.datasets.ComponentSizes(50, 10)
    for index in range(len(streets)):
        sample = streets[index]
        doubt = dm.scores.entropy(segmenter(sample.image[None]))[0]
        components.update(
            doubt > found["threshold"],
            sample.label == UNKNOWN,
            sample.label != VOID,
            sizes.predicted,
            sizes.labelled,
        )
    assert (found["siou"], found["f1"]) == (components.siou, components.f1)


def test_examples_show_most_doubt_and_most_missed(segmenter, streets):
    results = dm.evaluate(segmenter, streets, "entropy", replicates=20, options=Options(examples=2))
    assert [example.reason for example in results.examples] == ["most missed"] * 2 + [
        "most doubt"
    ] * 2
    missed = [row["scores"]["entropy"]["missed"] for row in results.figures["images"]]
    assert results.examples[0].name == streets.sample_name(int(np.argmax(missed)))
    doubts = [float(dm.scores.entropy(segmenter(streets[i].image[None])).mean()) for i in range(6)]
    names = [streets.sample_name(int(at)) for at in np.argsort(doubts)[::-1]]
    others = [name for name in names if name not in [e.name for e in results.examples[:2]]]
    assert [example.name for example in results.examples[2:]] == others[:2]


def test_per_image_figures_are_means_over_images(segmenter, streets):
    values = []
    for index in range(len(streets)):
        one = Streets([streets[index]], streets.class_names)
        doubt, label, _ = all_pixels(segmenter, one, dm.scores.entropy)
        keep = label != VOID
        if (label == UNKNOWN).any():
            values.append(roc_auc_score(label[keep] == UNKNOWN, doubt[keep]))
    figures = dm.evaluate(segmenter, streets, "entropy", replicates=20).figures
    found = figures["scores"]["entropy"]["unknown"]["auroc_per_image"]
    assert found == pytest.approx(np.mean(values), abs=1e-3)


def test_all_scores_are_those_that_the_network_can_give(segmenter, streets):
    figures = dm.evaluate(segmenter, streets, "all", replicates=20).figures
    assert set(figures["scores"]) == set(dm.scores.STATELESS)

    class Stripes(torch.nn.Module):
        def forward(self, x):
            return torch.cat([x.mean(1, keepdim=True) * k for k in range(8)], 1)

    blind = dm.load(Stripes(), classes=streets.class_names)
    figures = dm.evaluate(blind, streets, "all", replicates=20).figures
    assert set(figures["scores"]) == set(dm.scores.STATELESS) - {"gradient"}
    assert any(note.startswith("gradient: left out") for note in figures["notes"])
    with pytest.raises(dm.ModelError, match="gradient: needs the network's features"):
        dm.evaluate(blind, streets, "gradient", replicates=20)


class Named(Streets):
    """Streets under names of their own."""

    def __init__(self, streets, names):
        samples = [replace(streets[at], name=name) for at, name in enumerate(names)]
        super().__init__(samples, streets.class_names)

    def sample_name(self, index):
        return self.samples[index].name


def test_figures_by_sequence_are_those_of_the_images_whose_names_say_so(segmenter, streets):
    def by(field):
        return Options(cases=Cases(field))

    names = ["night_01", "day_01", "day_02", "day_03"]
    named = Named(streets, names)
    found = dm.evaluate(segmenter, named, "entropy", replicates=20, options=by("sequence"))
    groups = found.figures["by"]["cases"]
    assert {name: group["images"] for name, group in groups.items()} == {"day": 3, "night_01": 1}
    alone = dm.evaluate(segmenter, Named(streets, names[:1]), "entropy", replicates=20)
    assert groups["night_01"]["scores"]["entropy"]["auroc"] == pytest.approx(
        alone.figures["scores"]["entropy"]["wrong"]["auroc"], abs=1e-9
    )
    with pytest.raises(UsageError, match=r"have sequence \(by their names\)"):
        dm.evaluate(segmenter, named, "entropy", replicates=20, options=by("town"))
