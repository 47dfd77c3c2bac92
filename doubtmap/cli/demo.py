"""`doubtmap demo`: the whole job on the embedded network and scenes."""

from __future__ import annotations

from pathlib import Path

from doubtmap.cli.commands import as_command, command_line
from doubtmap.cli.options import Limit, Out, Seed, opened, seeded
from doubtmap.cli.telling import tell


def demo(out: Out = Path("demo"), limit: Limit = None, seed: Seed = 0) -> None:
    """The whole job on the embedded network and scenes, in about a minute."""
    from doubtmap.evaluation.asking import Options
    from doubtmap.evaluation.evaluate import evaluate
    from doubtmap.evaluation.report import write_evaluation
    from doubtmap.evaluation.table import print_figures
    from doubtmap.models import load
    from doubtmap.progress import progress_bar
    from doubtmap.scores import STATELESS

    seeded(seed)
    scores = f"{','.join(STATELESS)},gradient(p=0.5,label=uniform)"
    with progress_bar() as progress:
        results = evaluate(
            load("demo"),
            opened("synthetic:24", seed, limit),
            scores,
            seed=seed,
            options=Options(command=command_line()),
            progress=progress,
        )
    write_evaluation(results, out)
    print_figures(results.figures)
    tell(f"Open {out / 'report.html'} to see where the network is wrong.")


EXAMPLE = """
doubtmap demo
doubtmap demo --out demo --limit 4
doubtmap demo --seed 7 --out other-streets
"""
command = as_command("demo", demo, EXAMPLE)
