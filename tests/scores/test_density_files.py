"""Fitted densities as files and by name, and the Mahalanobis distances that read them."""

import numpy as np
import pytest
import torch
from gaussian_frames import CHANNELS, flat, frames
from safetensors.torch import save_file

from doubtmap.errors import DataError, UsageError
from doubtmap.files import Content, Origin, write
from doubtmap.scores import Density, Mahalanobis
from doubtmap.scores.density import FILE
from doubtmap.scores.parsing import parse_fit, parse_scores


class TestFile:
    def test_what_is_read_is_what_was_written(self, tmp_path):
        pairs = frames()
        fitted = Density.fit(pairs, covariance="tied", prior=True, certainty=2.0)
        fitted.save(tmp_path / "density.safetensors")
        read = Density.load(tmp_path / "density.safetensors")
        assert torch.equal(read(pairs[0][0]), fitted(pairs[0][0]))
        assert (read.certainty, read.covariance, read.prior) == (2.0, "tied", True)
        anew = Density.load(tmp_path / "density.safetensors", at="any")
        assert not torch.equal(anew(pairs[0][0]), fitted(pairs[0][0]))

    def test_by_name(self, tmp_path):
        file = tmp_path / "density.safetensors"
        Density.fit(frames()).save(file)
        named = parse_scores(f"entropy,density(at=any):{file},mahalanobis:{file}")
        assert list(named) == ["entropy", "density(at=any)", "mahalanobis"]
        assert named["density(at=any)"].at == "any"

    def test_files_that_share_a_name_are_told_apart(self, tmp_path):
        for name in ("one", "two"):
            Density.fit(frames()).save(tmp_path / name)
        one, two = tmp_path / "one", tmp_path / "two"
        named = parse_scores(f"density:{one},density:{two},density(at=any):{two}")
        assert list(named) == ["density:one", "density:two", "density(at=any)"]
        with pytest.raises(UsageError, match="density:one is asked for twice"):
            parse_scores(f"density:{one},density:{one}")

    @pytest.mark.parametrize(
        ("text", "error", "message"),
        [
            ("density", UsageError, "learns from data: expected its file"),
            ("density:gone.safetensors", DataError, "doubtmap fit density MODEL DATA"),
            ("density(certainty=1):FILE", UsageError, "density takes covariance"),
            ("density(at=all):FILE", UsageError, "at to be predicted or any"),
            ("density(rank=2,project=2):FILE", UsageError, "rank or project"),
            ("density(rank=4):FILE", UsageError, "a number of the 4 channels"),
            ("density(rank=nan):FILE", UsageError, "a number of the 4 channels"),
            ("density(project=inf):FILE", UsageError, "a number of the 4 channels"),
            ("density(shrinkage=2):FILE", UsageError, r"shrinkage in \[0, 1\]"),
            ("density(prior=1):FILE", UsageError, "true or false"),
            ("entropy:FILE", UsageError, "takes no file"),
        ],
    )
    def test_bad_requests(self, text, error, message, tmp_path):
        file = tmp_path / "density.safetensors"
        Density.fit(frames()).save(file)
        with pytest.raises(error, match=message):
            parse_scores(text.replace("FILE", str(file)))

    def test_another_file(self, tmp_path):
        file = tmp_path / "density.safetensors"
        file.write_bytes(b"not a file of ours")
        with pytest.raises(DataError, match="cannot be read"):
            Density.load(file)

    @pytest.mark.parametrize("meta", [{}, {"doubtmap": "{}"}, {"doubtmap": "[]"}])
    def test_a_file_of_somebody_else(self, tmp_path, meta):
        file = tmp_path / "density.safetensors"
        save_file({"x": torch.zeros(1)}, file, meta)
        with pytest.raises(DataError, match="--out FILE"):
            Density.load(file)

    def test_a_file_with_parts_missing(self, tmp_path):
        file = tmp_path / "density.safetensors"
        write(file, FILE, Content({}, {"mean": torch.zeros(1)}, Origin()))
        with pytest.raises(DataError, match="it lacks layer"):
            Density.load(file)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("entropy", "learn from data"),
            ("density:FILE", "learn from data"),
            ("mahalanobis", "Fit density instead"),
        ],
    )
    def test_only_scores_that_learn_are_fitted(self, text, message):
        with pytest.raises(UsageError, match=message):
            parse_fit(text)


class TestMahalanobis:
    def test_is_the_smallest_distance_to_a_class(self, tmp_path):
        pairs = frames()
        density = Density.fit(pairs, scale="none")
        density.save(tmp_path / "d")
        z = pairs[0][0].features[0].flatten(1).T.double()
        precision = density.gaussians.shrunk("tied", 1e-3)[0].inverse()
        centred = z[:, None] - density.gaussians.mean
        squared = torch.einsum("ncd,de,nce->nc", centred, precision, centred)
        with pytest.raises(UsageError, match="shrinkage"):
            Mahalanobis.load(tmp_path / "d", shrinkage=-1)
        found = Mahalanobis.load(tmp_path / "d")(pairs[0][0])
        np.testing.assert_allclose(found.flatten(), squared.amin(1), rtol=1e-4, atol=1e-4)
        assert (found >= 0).all()

    def test_relative_subtracts_the_distance_to_all_as_one(self, tmp_path):
        pairs = frames()
        density = Density.fit(pairs, scale="none", certainty=0)
        density.save(tmp_path / "d")
        z, _, _ = flat(pairs)
        mean, covariance = density.gaussians.overall
        np.testing.assert_allclose(mean, z.mean(0), rtol=1e-6)
        np.testing.assert_allclose(covariance, np.cov(z.T, ddof=0), rtol=1e-5)
        absolute = Mahalanobis.load(tmp_path / "d")(pairs[0][0])
        relative = Mahalanobis.load(tmp_path / "d", relative=True)(pairs[0][0])
        shrunk = 0.999 * covariance + 0.001 * covariance.trace() / CHANNELS * torch.eye(CHANNELS)
        centred = pairs[0][0].features[0].flatten(1).T.double() - mean
        background = torch.einsum("nd,de,ne->n", centred, shrunk.inverse(), centred)
        np.testing.assert_allclose(
            (absolute - relative).flatten(), background, rtol=1e-4, atol=1e-3
        )
