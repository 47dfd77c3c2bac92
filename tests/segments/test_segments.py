"""Segments against brute force, labels by hand, and the laws of tables."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from doubtmap import DataError, Prediction, UsageError, scores
from doubtmap.segments import Partition, SegmentTable, adjusted_iou, right_share, segment_table
from doubtmap.segments.table import OF_A_SCORE


def prediction_of(seed=0, classes=4, native=(6, 9), size=(24, 36)):
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(1, classes, *native, generator=generator)
    return Prediction(logits, size, class_names=tuple("abcdefgh"[:classes]))


def rows(text):
    return torch.tensor([[int(c) for c in row] for row in text.split()])


def partition_of(text):
    return Partition.of(rows(text))


def test_a_partition_covers_the_image_with_pixels_of_one_class():
    prediction = prediction_of()
    partition = Partition.of(prediction.classes[0])
    assert torch.equal(
        torch.from_numpy(partition.classes)[partition.labels.long()], prediction.classes[0]
    )
    assert partition.sizes.sum() == 24 * 36
    for one, (left, top, width, height) in enumerate(partition.boxes):
        where = (partition.labels == one).nonzero()
        assert (top, left) == tuple(where.amin(0).tolist())
        assert (top + height - 1, left + width - 1) == tuple(where.amax(0).tolist())


def test_one_segment_that_fills_the_image_is_all_edge():
    partition = Partition.of(torch.zeros(4, 5, dtype=torch.long))
    assert partition.sizes.tolist() == [[0, 20]]
    table = segment_table(Prediction(torch.tensor([[[[1.0]], [[0.0]]]]), (4, 5)), {})
    assert np.isfinite(table.features).all()


@pytest.mark.parametrize("kernels", ["compiled", "reference"])
def test_features_are_those_of_brute_force(kernels, monkeypatch):
    monkeypatch.setenv("DOUBTMAP_KERNELS", kernels)
    prediction = prediction_of(3)
    maps = {"entropy": scores.entropy(prediction)[0], "x": torch.rand(24, 36)}
    partition = Partition.of(prediction.classes[0])
    table = segment_table(prediction, maps, partition)
    labels = partition.labels.numpy()
    p = prediction.probabilities[0].double().numpy()
    for one in range(len(table)):
        inside, edge = labels == one, partition.edge.numpy()
        size, rim, core = inside.sum(), (inside & edge).sum(), (inside & ~edge).sum()
        assert table["size"][one] == size
        assert table["size_relative"][one] == pytest.approx(size / rim)
        for name, values in maps.items():
            values = values.double().numpy()
            whole, outer = values[inside], values[inside & edge]
            inner = values[inside & ~edge]
            expected = [whole.mean(), inner.mean() if core else np.nan, outer.mean()]
            expected += [whole.mean() * size / rim, inner.mean() * core / rim if core else 0]
            expected += [whole.var(), inner.var() if core else np.nan, outer.var()]
            expected += [whole.var() * size / rim, inner.var() * core / rim if core else 0]
            found = [table[f"{name}:{kind}"][one] for kind in OF_A_SCORE]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
        for k, letter in enumerate("abcd"):
            share = table[f"probability:{letter}"][one]
            assert share == pytest.approx(p[k][inside].mean(), abs=1e-5)


def test_maps_must_fit_and_be_finite():
    prediction = prediction_of()
    with pytest.raises(UsageError, match="image's size"):
        segment_table(prediction, {"x": torch.zeros(3, 4)})
    with pytest.raises(DataError, match="finite"):
        segment_table(prediction, {"x": torch.full((24, 36), torch.inf)})
    both = Prediction(prediction.native_logits.repeat(2, 1, 1, 1), (24, 36))
    with pytest.raises(UsageError, match="one image"):
        segment_table(both, {})


def test_iou_by_hand():
    # two predicted pieces of class 1 share one labelled thing of 6 pixels, 1 of them missed
    partition = partition_of("1101 1101 0000")
    label = rows("1111 1101 0000")
    left, zero, right = adjusted_iou(partition, label, torch.ones(3, 4, dtype=torch.bool))
    assert left == pytest.approx(4 / 5)  # the right piece's pixels are not held against it
    assert right == pytest.approx(2 / 3)
    assert zero == pytest.approx(5 / 6)


def test_a_segment_that_touches_nothing_of_its_class_has_zero():
    partition = partition_of("0022 0022")
    label = rows("0000 0000")
    everything = torch.ones(2, 4, dtype=torch.bool)
    assert adjusted_iou(partition, label, everything).tolist() == [0.5, 0.0]
    unknown = label.clone()
    unknown[:, 2:] = -2
    assert adjusted_iou(partition, unknown, everything).tolist() == [1.0, 0.0]


def test_void_counts_for_nothing_and_parts_what_it_lies_between():
    partition = partition_of("0000 1111")
    label, valid = rows("0000 1111"), torch.ones(2, 4, dtype=torch.bool)
    valid[:, 1] = False
    assert adjusted_iou(partition, label, valid).tolist() == [1.0, 1.0]
    valid[1] = False
    upper, lower = adjusted_iou(partition, label, valid)
    assert upper == 1.0
    assert np.isnan(lower)
    with pytest.raises(UsageError, match="segments' size"):
        adjusted_iou(partition, label[:1], valid[:1])


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_iou_is_the_definition(seed, height, width):
    random = np.random.default_rng(seed)
    guess = torch.from_numpy(random.integers(0, 3, (height, width)))
    label = torch.from_numpy(random.integers(-1, 3, (height, width)))
    valid = torch.from_numpy(random.random((height, width)) < 0.8)
    partition = Partition.of(guess)
    found = adjusted_iou(partition, label, valid)
    labels, keep = partition.labels.numpy(), valid.numpy()
    for one in range(len(partition)):
        k = (labels == one) & keep
        same = (label.numpy() == partition.classes[one]) & keep
        things, _ = ndimage.label(same, np.ones((3, 3)))
        touched = np.isin(things, np.setdiff1d(np.unique(things[k]), [0]))
        others = (guess.numpy() == partition.classes[one]) & (labels != one)
        expected = (k & touched).sum() / max((k | (touched & ~others)).sum(), 1)
        assert np.isnan(found[one]) if not k.any() else found[one] == pytest.approx(expected)


def test_perfect_segments_have_an_iou_of_one():
    classes = prediction_of(5).classes[0]
    found = adjusted_iou(Partition.of(classes), classes, torch.ones_like(classes, dtype=torch.bool))
    assert (found == 1).all()


def test_tables_join_and_are_written():
    tables = [segment_table(prediction_of(seed), {}) for seed in range(3)]
    tables = [replace(table, image_names=(name,)) for table, name in zip(tables, "xyz")]
    joined = SegmentTable.join(tables)
    assert len(joined) == sum(map(len, tables))
    assert joined.take(joined.image == 1)["size"].tolist() == tables[1]["size"].tolist()
    text = joined.to_csv({"extra": np.full(len(joined), np.nan)})
    assert text == text[: text.index("\n") + 1] + joined.to_csv(
        {"extra": np.full(len(joined), np.nan)}, header=False
    )
    lines = text.splitlines()
    assert len(lines) == 1 + len(joined)
    assert lines[0].startswith("image,segment,class,left,top,width,height,size,")
    assert lines[1].startswith("x,0,") and lines[1].endswith(",")
    with pytest.raises(UsageError, match="same features"):
        SegmentTable.join([tables[0], segment_table(prediction_of(classes=3), {})])
    with pytest.raises(UsageError, match="at least one image"):
        SegmentTable.join([])
    assert joined.only("size")["size"].tolist() == joined["size"].tolist()


def test_labels_may_be_bytes_with_255_for_void():
    partition = partition_of("0000 1111")
    label = torch.tensor([[0, 255, 0, 0], [1, 1, 1, 255]], dtype=torch.uint8)
    assert adjusted_iou(partition, label, label != 255).tolist() == [1.0, 1.0]


def test_a_partition_of_another_image_is_refused():
    with pytest.raises(UsageError, match="partition of this image"):
        segment_table(prediction_of(), {}, partition_of("0000 1111"))


@pytest.mark.parametrize("seed", range(4))
def test_the_published_target_is_their_formula(seed):
    """Theirs: of the touched components, pixels in other segments of any class leave the union."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randint(0, 3, (2, 5, 6), generator=generator)
    classes, label = draw.repeat_interleave(3, 1).repeat_interleave(2, 2)
    label = torch.where(torch.rand(label.shape, generator=generator) < 0.7, label, classes)
    valid = torch.rand(label.shape, generator=generator) < 0.9
    partition = Partition.of(classes)
    found = right_share(partition, label, valid)
    things = {
        value: ndimage.label((label == value) & valid, np.ones((3, 3)))[0] for value in range(3)
    }
    for one, own in enumerate(partition.classes):
        segment = (partition.labels.numpy() == one) & valid.numpy()
        others = (partition.labels.numpy() != one) & valid.numpy()
        thing = things[int(own)]
        touched = np.isin(thing, np.setdiff1d(thing[segment], [0]))
        union = segment | (touched & ~others)
        assert found[one] == pytest.approx((segment & touched).sum() / union.sum())
    adjusted = adjusted_iou(partition, label, valid)
    assert (found >= adjusted).all()
    assert ((found > 0) == (adjusted > 0)).all()
