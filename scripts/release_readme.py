"""Let the links and pictures of README lead to the repository, for pages that show README alone.

python scripts/release_readme.py https://HOST/OWNER/NAME COMMIT
"""

import re
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def absolute(text: str, repository: str, commit: str) -> str:
    """README with whole addresses: pictures as files, all else as pages."""
    text = text.replace("(../../actions/", f"({repository}/actions/")
    text = re.sub(r"(!\[[^]]*\]\()(?!https?:)", rf"\1{repository}/raw/{commit}/", text)
    return re.sub(r"(?<!!)(\[[^]]*\]\()(?!https?:|#)", rf"\1{repository}/blob/{commit}/", text)


if __name__ == "__main__":
    README.write_text(absolute(README.read_text(), *sys.argv[1:3]))
