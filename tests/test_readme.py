"""The README's Python runs as it stands."""

import re
from pathlib import Path

import typer

from doubtmap.cli import app
from doubtmap.streets import synthetic
from doubtmap.streets.synthetic import SyntheticStreets

README = Path(__file__).parents[1] / "README.md"


def test_the_ten_lines_of_python_run(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    exec(code, {})
    assert 0 < float(capsys.readouterr().out) < 1


def test_every_command_has_its_row():
    commands = typer.main.get_command(app).list_commands(None)
    told = re.findall(r"^\| `(\w+)` \| .* \|$", README.read_text(), re.MULTILINE)
    assert set(commands) <= set(told)


def test_the_printed_table_is_what_the_command_prints(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(synthetic, "SyntheticStreets", SyntheticStreets)  # of their usual size
    line, printed = re.search(
        r"^    \$ doubtmap (evaluate .*)\n((?:    .*\n|\n)+)", README.read_text(), re.MULTILINE
    ).groups()
    code, said, _ = run(*line.split())
    assert code == 0
    assert said.split() == printed.split()


def test_every_score_has_its_row_and_every_link_its_file():
    from doubtmap.scores import OF_MEMBERS, STATELESS
    from doubtmap.scores.parsing import FITTED

    text = README.read_text()
    assert all(f"| `{name}` |" in text for name in (*STATELESS, *OF_MEMBERS, *FITTED))
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (README.parent / target).exists(), target
