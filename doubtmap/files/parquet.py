"""Tables as Parquet, for data bases and data frames, of the rows that JSON or CSV have.

Reference:
    Apache Parquet, https://parquet.apache.org
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from doubtmap.errors import UsageError
from doubtmap.files.writing import utf8, write_atomically

INSTALL = 'pip install "doubtmap[table]"'


def check_parquet() -> None:
    """Refuse, before any work, what cannot be written.

    Raises:
        UsageError: without pyarrow.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"--parquet: expected pyarrow, which writes it, found none. Install it with: {INSTALL}"
        ) from error


def columns_of(content: bytes) -> dict[str, list[str]]:
    """The columns of a Parquet file as text, by name.

    Raises:
        ImportError: without pyarrow.
        ValueError: for what is no such file.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        found = pyarrow.parquet.read_table(pyarrow.BufferReader(content))
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError("it does not begin and end as one") from error
    return {name: list(map(str, found[name].to_pylist())) for name in found.column_names}


def write_parquet(path: Path, rows: Iterable[Mapping[str, Any]], asked: bool = True) -> None:
    """Write rows as a table; what lies in a table inside a row has a column `OUTER.INNER`.

    A column without a single value is one of numbers; what a row lacks is null.

    Args:
        path: of the file.
        rows: of numbers, texts, lists of numbers, None, and mappings of these.
        asked: whether the user wants it; otherwise the one of an earlier run is removed.

    Raises:
        UsageError: without pyarrow.
        DataError: where it cannot be written.
    """
    if not asked:
        path.unlink(missing_ok=True)
        return
    check_parquet()
    import pyarrow
    import pyarrow.parquet

    flat = [dict(_flat(row)) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    columns = []
    for name in names:
        column = pyarrow.array([row.get(name) for row in flat])
        empty = pyarrow.types.is_null(column.type)
        columns.append(column.cast(pyarrow.float64()) if empty else column)
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(columns, names=names), stream)
    write_atomically(path, stream.getvalue())


def _flat(row: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a row, and of tables inside it; odd bytes of texts as `utf8` spells them."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{start}{name}.")
        else:
            yield f"{start}{name}", utf8(value).decode() if isinstance(value, str) else value
