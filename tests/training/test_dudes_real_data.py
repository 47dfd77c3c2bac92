from dataclasses import replace

import pytest
import torch

import doubtmap as dm
from doubtmap.models.distilled import Head, attach
from doubtmap.training.dudes import classifier_of
from doubtmap.training.networks import starting_network
from doubtmap.training.teachers import Cache, Teachers

pytestmark = pytest.mark.real_data


def test_a_head_on_a_real_network_changes_no_prediction(shared):
    folder, names = shared / "models" / "camvid9", ()
    image = dm.open_dataset(f"camvid:{shared}/data/camvid:val")[0].image[None, :, 100:292, :256]
    plain = dm.load(folder)
    names = plain.class_names
    start = starting_network(str(folder), names)
    classifier, channels, align_corners = classifier_of(start)
    assert (classifier, channels, align_corners) == ("decode_head.classifier", 64, False)
    attach(start.network, Head(classifier, channels, hidden=8))
    student = dm.load(start.network, classes=names, mean=start.mean, std=start.std)
    prediction = student(image)
    assert torch.equal(prediction.native_logits, plain(image).native_logits)
    assert torch.allclose(dm.scores.distilled(prediction), torch.tensor(0.05))


def test_real_teachers_say_the_spread_of_their_ensemble(shared, tmp_path):
    names = [str(shared / "models" / "camvid9-ensemble" / str(i)) for i in (1, 2)]
    ensemble = dm.load(",".join(names))
    sample = dm.open_dataset(f"camvid:{shared}/data/camvid:val")[3]
    sample = replace(sample, image=sample.image[:, 100:292, 100:356])
    teachers = Teachers(names, "spread", ensemble.class_names)
    spread = dm.scores.member_spread(ensemble(sample.image[None]))
    assert spread.max() > 0.3
    torch.testing.assert_close(teachers(sample.image[None].float() / 255)[:, 0], spread)
    cache = Cache(tmp_path, teachers)
    other = Teachers(names[::-1], "spread", ensemble.class_names)
    assert cache.path(sample) != Cache(tmp_path, other).path(sample)
