"""What the text of an option means: numbers, sizes, ranges and names with commas."""

from __future__ import annotations

from typing import Literal

from doubtmap.errors import UsageError
from doubtmap.option import read_names


def read_numbers(flag: str, text: str) -> tuple[float, ...]:
    """Numbers separated by commas, one for each band.

    Raises:
        UsageError: for anything else.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{flag}: expected numbers such as 0.5,0.5,0.5, got {text}.") from None


def read_range(text: str | None) -> tuple[float, float] | None:
    """The values that are black and white, of `--range`.

    Raises:
        UsageError: for anything but two numbers, the lower first.
    """
    if text is None:
        return None
    numbers = read_numbers("--range", text)
    if len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise UsageError(f"--range: expected LOW,HIGH such as 0,4095, got {text}.")
    return numbers[0], numbers[1]


def read_whole_numbers(flag: str, text: str) -> tuple[int, ...]:
    """Whole numbers separated by commas.

    Raises:
        UsageError: for anything else.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{flag}: expected whole numbers such as 1,2,3, got {text}.") from None


def read_input_size(flag: str, text: str) -> tuple[int, int] | Literal["image"]:
    """`HxW` or `image`.

    Raises:
        UsageError: for anything else.
    """
    return "image" if text == "image" else read_size(flag, text, ", or 'image'")


def read_views(flag: str, text: str) -> tuple[float | str, ...]:
    """`mirror`, factors, or both, with commas.

    Raises:
        UsageError: for anything else, factors below 1/8 or above 8, or one given twice.
    """
    found: list[float | str] = []
    for part in (part.strip().removesuffix("x") for part in text.split(",")):
        try:
            view: float | str = "mirror" if part == "mirror" else float(part)
        except ValueError:
            view = 0.0
        if isinstance(view, float) and not 1 / 8 <= view <= 8:
            raise UsageError(
                f"{flag}: expected mirror, or factors from 0.125 to 8 of the images' sides, such "
                f"as mirror,2, got {part!r}."
            )
        if view == 1 or view in found:
            raise UsageError(
                f"{flag}: expected each view once, beside the image as it is, got {text}. Leave "
                f"out {part}."
            )
        found.append(view)
    return tuple(found)


def read_size(flag: str, text: str, other: str = "") -> tuple[int, int]:
    """`HxW`.

    Args:
        flag: what gave it.
        text: of it.
        other: what might have been given, too.

    Raises:
        UsageError: for anything else.
    """
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise UsageError(f"{flag}: expected HxW such as 512x1024{other}, got {text}.")
    return int(height), int(width)


def names(text: str) -> list[str]:
    """Names separated by commas."""
    return list(read_names("", text))
