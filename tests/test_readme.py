"""The README's Python runs as it stands."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_ten_lines_of_python_run(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    exec(code, {})
    assert 0 < float(capsys.readouterr().out) < 1


def test_every_score_has_its_row_and_every_link_its_file():
    from doubtmap.scores import OF_MEMBERS, STATELESS
    from doubtmap.scores.parsing import FITTED

    text = README.read_text()
    assert all(f"| `{name}` |" in text for name in (*STATELESS, *OF_MEMBERS, *FITTED))
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (README.parent / target).exists(), target
