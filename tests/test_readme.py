"""The README's Python runs as it stands, and every command and score is told."""

import re
from pathlib import Path

import typer

from doubtmap.cli import app

README = Path(__file__).parents[1] / "README.md"


def test_the_ten_lines_of_python_run(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    exec(code, {})
    assert 0 < float(capsys.readouterr().out) < 1


def test_every_command_is_told():
    commands = typer.main.get_command(app).list_commands(None)
    rows = re.findall(r"^\| .* \| .* \|$", README.read_text(), re.MULTILINE)
    assert set(commands) <= {name for row in rows for name in re.findall(r"`doubtmap (\w+)", row)}


def test_every_score_has_its_row():
    from doubtmap.scores import OF_MEMBERS, STATELESS
    from doubtmap.scores.parsing import FITTED

    text = (README.parent / "docs" / "scores.md").read_text()
    assert all(f"| `{name}` |" in text for name in (*STATELESS, *OF_MEMBERS, *FITTED))
