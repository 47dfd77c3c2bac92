"""The page over runs as a folder of files, for any web server."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from doubtmap.errors import DataError
from doubtmap.files import alone, sweep, write_atomically
from doubtmap.viewer.contents import addresses, index_content, page_files, readable
from doubtmap.viewer.gathering import Gathered


@alone
def write_static(
    gathered: Gathered, out: Path, progress: Callable[[str, int, int], None] | None = None
) -> str:
    """Write the page and all that it shows; what cannot be read is left out and counted.

    Args:
        gathered: the runs.
        out: folder, made if it is not there; `index.html` is written last.
        progress: told after each image.

    Returns:
        One sentence about what was written.

    Raises:
        DataError: for a folder that cannot be written.
    """
    lost: list[str] = []
    sweep(out)
    (out / "index.html").unlink(missing_ok=True)
    for image in range(len(gathered.names)):
        for address in addresses(gathered, image):
            content = readable(gathered, address)
            if isinstance(content, str):
                lost.append(content)
            else:
                write_atomically(out / address, content, option="--static")
        if progress:
            progress("view", image + 1, len(gathered.names))
    if len(lost) >= 2 * len(gathered.names) and not any((out / "images").glob("*.jpg")):
        raise DataError(f"{out}: no image of the runs can be read, as of {lost[0]}")
    write_atomically(out / "index.json", index_content(gathered, "browser"), option="--static")
    for address, content in page_files().items():
        if address != "index.html":
            write_atomically(out / address, content, option="--static")
    write_atomically(out / "index.html", page_files()["index.html"], option="--static")
    left = f"; {len(lost)} files could not be made, the first since {lost[0]}" if lost else ""
    return (
        f"{len(gathered.names)} images: {out / 'index.html'}, for any web server, such as "
        f"python -m http.server --directory {shlex.quote(str(out))}{left}"
    )
