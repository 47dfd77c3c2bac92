"""`doubtmap train` draws its log after each epoch, for those who watch."""

import pytest

from doubtmap.errors import DataError
from doubtmap.training.folder import Folder
from doubtmap.training.pictures import loss_chart


@pytest.fixture
def asked(stripes, network, tmp_path):
    quick = ["--hold-out", "mud", "--epochs", 3, "--batch", 4, "--workers", 1]
    return ["train", f"{stripes}:train", "--model", network, *quick, "--out", tmp_path / "run"]


@pytest.fixture
def stopping(monkeypatch):
    """Let the run end in the third epoch of one of its folders."""

    def stop(folder):
        whole = Folder.save_log

        def save_log(self, rows):
            if self.path == folder and len(rows) == 3:
                raise DataError("The disk is full.")
            whole(self, rows)

        monkeypatch.setattr(Folder, "save_log", save_log)

    return stop


def drawn(folder):
    """The epochs of a folder's log, which is drawn beside it."""
    log = (folder / "training" / "log.csv").read_text()
    assert (folder / "training" / "log.svg").read_text() == loss_chart(log)
    return len(log.splitlines()) - 1


def test_a_run_that_stops_leaves_the_curves_of_its_epochs(run, asked, stopping, tmp_path):
    stopping(tmp_path / "run")
    assert run(*asked)[0] == 1
    assert drawn(tmp_path / "run") == 2
    assert not list(tmp_path.rglob("*.part"))


def test_each_member_has_its_own_curves(run, asked, stopping, tmp_path):
    stopping(tmp_path / "run" / "2")
    assert run(*asked, "--recipe", "ensemble", "--members", 2)[0] == 1
    assert [drawn(tmp_path / "run" / member) for member in "12"] == [3, 2]


def test_a_run_that_goes_on_draws_what_is_missing(run, asked, tmp_path):
    """Killed after its last epoch was logged and before it was drawn."""
    assert run(*asked)[0] == 0 and drawn(tmp_path / "run") == 3
    (tmp_path / "run" / "training" / "log.svg").unlink()
    assert run(*asked, "--resume")[0] == 0 and drawn(tmp_path / "run") == 3
