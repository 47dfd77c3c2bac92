"""A data set of one's own, described by a `doubtmap.toml` in its folder.

```toml
name = "dubai"                    # optional: how results call it
root = "/data/dubai"              # optional: where the files lie; else beside this one
images = "images/{frame}.jpg"     # fields in braces, or * ? ** as in a shell; or a list of them
labels = "labels/{frame}.png"     # {stem}, {folder} and {file} of the image are fields too
range = [0, 2047]                 # optional: black and white of images of more than 8 bits
bands = [4, 3, 2]                 # optional: which are red, green and blue, from 1
void = 255                        # a value or a list; also: known, unknown
other = "void"                    # optional: what every other value means
split = "test"                    # the default, where there are splits

[splits]                          # optional, where images has no {split}: fields by name
train = { frame = ["tile1_*", "tile2_*"] }
test = { frame = "tile3_*" }

[classes]                         # in the order of the class indices
land = 0
vegetation = [1, 7]
road = "#6ec1e4"                  # or a colour, [110, 193, 228], or colours; or a polygon's name

[components]                      # optional: smallest components that count, in pixels
predicted = 500
labelled = 100
```
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from doubtmap.datasets.dataset import KNOWN, UNKNOWN, VOID, ComponentSizes
from doubtmap.datasets.labels import (
    HIGHEST_VALUE,
    LOWEST_VALUE,
    LabelValues,
    colour_value,
    value_text,
)
from doubtmap.datasets.layouts import Layout
from doubtmap.datasets.patterns import fields_of, misnamed_field
from doubtmap.errors import DataError
from doubtmap.names import plain_name

FILE_NAME = "doubtmap.toml"
LABEL_MAP = "labelmap.txt"
"""CVAT's list of classes and colours, which stands for a description where there is none."""

_KEYS = (
    *("name", "root", "images", "labels", "classes", "known", "unknown", "void", "other"),
    *("split", "splits", "components", "range", "bands"),
)
FILLED = ("stem", "folder", "file")
"""Fields that every image fills."""
_CVAT: dict[str, Any] = {
    "images": [f"{folder}/{{path}}.{{suffix}}" for folder in ("JPEGImages", "images", "data")],
    "labels": "SegmentationClass/{path}.png",
    "classes": LABEL_MAP,
}
"""CVAT's export of segmentation masks, with the images that were asked for beside them."""
_MEANINGS = {"known": KNOWN, "unknown": UNKNOWN, "void": VOID}


def read_description(folder: Path) -> tuple[Path, Layout]:
    """Read the layout of a folder from its `doubtmap.toml`.

    Args:
        folder: folder of the data set.

    Returns:
        The folder where the files lie, and the layout, its `title` the data set's name.

    Raises:
        DataError: the file or its `root` is missing, or something in it is wrong.
    """
    path = folder / FILE_NAME
    if not path.is_file() and (folder / LABEL_MAP).is_file():
        path = folder / LABEL_MAP
    if not path.is_file():
        raise DataError(
            f"{path}: expected a description of the data set, found none. Write one with images, "
            f"labels and [classes] (doubtmap check {folder} begins one for masks), or name "
            "the layout that the folder has."
        )
    try:
        if path.name == LABEL_MAP:
            return folder, _layout(_CVAT, folder)
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        return _root(content, folder), _layout(content, folder)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DataError(f"{path}: expected TOML, got a mistake: {error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text, got other bytes ({error}).") from error
    except _Mistake as error:
        raise DataError(f"{path}: {error}") from error


def parsed_description(text: str, folder: Path) -> Layout:
    """The layout that the text of a description means, for a folder.

    Raises:
        DataError: for a text that is no description.
    """
    try:
        return _layout(tomllib.loads(text), folder)
    except (tomllib.TOMLDecodeError, RecursionError, _Mistake) as error:
        raise DataError(f"{folder}: expected a description, got a mistake: {error}") from error


class _Mistake(Exception):
    """Something wrong in a description; becomes a `DataError` that names the file."""


def _root(content: dict[str, Any], folder: Path) -> Path:
    """Where the files lie; a relative `root` starts at the description's folder."""
    root = folder / Path(_text(content, "root") or ".").expanduser()
    if not root.is_dir():
        raise _Mistake(f'expected root = "{content["root"]}" to be a folder, found none at {root}.')
    return root


def _layout(content: dict[str, Any], folder: Path) -> Layout:
    _check_keys(content, _KEYS, "")
    images = _patterns(content, "images")
    labels = _patterns(content, "labels")
    _check_fields(images, labels)
    layout = Layout(
        title=_text(content, "name") or folder.resolve().name,
        images=images,
        labels=labels,
        values=_values(content, folder),
        parts=_parts(content, images),
        default_split=_text(content, "split"),
        component_sizes=_component_sizes(content),
        range=_range(content),
        bands=_bands(content),
    )
    if layout.default_split and not layout.has_splits:
        raise _Mistake(
            f'split = "{layout.default_split}" needs a {{split}} in images, or [splits]. Add it, '
            "or leave split out."
        )
    return layout


def _range(content: dict[str, Any]) -> tuple[float, float] | None:
    value = content.get("range")
    if value is None:
        return None
    numbers = [n for n in value if type(n) in (int, float)] if isinstance(value, list) else []
    if len(numbers) != 2 or len(value) != 2 or not numbers[0] < numbers[1]:
        raise _Mistake(f"expected range = [LOW, HIGH] as in [0, 2047], got {value!r}.")
    return float(numbers[0]), float(numbers[1])


def _bands(content: dict[str, Any]) -> tuple[int, ...]:
    value = content.get("bands", [])
    entries = value if isinstance(value, list) else [value]
    if len(entries) not in (0, 1, 3) or not all(type(n) is int and n > 0 for n in entries):
        raise _Mistake(
            f"expected bands as one number or three, from 1, as in [4, 3, 2], got {value!r}."
        )
    return tuple(entries)


def _values(content: dict[str, Any], folder: Path) -> LabelValues:
    classes = _classes(content, folder)
    other = _text(content, "other")
    if other is not None and other not in _MEANINGS:
        raise _Mistake(f'expected other = "known", "unknown" or "void", got "{other}".')
    triples = bool(classes) and all(map(_is_colour, classes.values()))
    meanings = {key: content.get(key, []) for key in _MEANINGS}
    named = {**{f"classes.{name}": value for name, value in classes.items()}, **meanings}
    raw = {key: _raw_values(value, key, triples) for key, value in named.items()}
    codes = _greys(_without_clashes(raw)) if triples else raw
    values = LabelValues(
        classes={name: codes[f"classes.{name}"] for name in classes},
        **{key: codes[key] for key in _MEANINGS},
        other=None if other is None else _MEANINGS[other],
        texts=dict(_texts_of(named, list(classes))),
    )
    _check_values(values)
    return values


def _classes(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The table of classes, a list of polygons' names, or CVAT's file of colours."""
    classes = content.get("classes", {})
    if isinstance(classes, str):
        return read_label_map(folder / classes)
    if isinstance(classes, list) and all(isinstance(name, str) and name for name in classes):
        return {name: name for name in classes}
    if not isinstance(classes, dict):
        raise _Mistake(f"expected classes as a table of name = value, got {classes!r}.")
    return classes


def read_label_map(path: Path) -> dict[str, Any]:
    """Classes and colours of CVAT's `labelmap.txt`: lines `name:R,G,B:parts:actions`."""
    classes: dict[str, Any] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _Mistake(f"expected a list of colours in {path.name}, got none ({error}).") from error
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        parts = rest.partition(":")[0].split(",")
        if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
            raise _Mistake(f"expected lines of name:R,G,B:: in {path.name}, got {line!r}.")
        classes[name] = {"colour": [int(part) for part in parts]}
    return classes


def _is_triple(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(type(part) is int and 0 <= part <= 255 for part in value)
    )


def _is_colour(value: object) -> bool:
    """Whether a class is described by a colour or colours, in any form, or by a bare triple."""
    if isinstance(value, list) and not _is_triple(value):
        return bool(value) and all(map(_is_colour, value))
    return _is_triple(value) or isinstance(value, dict) or str(value).startswith("#")


def _raw_values(value: object, key: str, triples: bool) -> tuple[int, ...]:
    """Numbers and colours; a bare triple is both, where all classes are colours."""
    if isinstance(value, dict):
        value = value.get("colour", value.get("color", value))
        value = [value] if _is_triple(value) else value
    elif triples and _is_triple(value):
        return (*_triple([value]), *_integers(value, key))
    entries = value if isinstance(value, list) else [value]
    if not entries and key.startswith("classes."):
        raise _Mistake(f"expected at least one value for {key}, got an empty list.")
    found: list[int] = []
    for entry in entries:
        if isinstance(entry, str):
            found += _colour(entry, key)
        elif _is_triple(entry):
            found += _triple([entry])
        else:
            found += _integers(entry, key)
    return tuple(found)


def _triple(entries: list[Any]) -> list[int]:
    return [colour_value(*entry) for entry in entries]


def _colour(text: str, key: str) -> list[int]:
    """The colour that a text is; none for the name of polygons."""
    if not text.startswith("#"):
        return []
    digits = text[1:]
    if len(digits) != 6 or any(c not in "0123456789abcdefABCDEF" for c in digits):
        raise _Mistake(f'expected {key} as a colour such as "#804080", got "{text}".')
    return [colour_value(*bytes.fromhex(digits))]


def _without_clashes(raw: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Triples are colours alone where, read as numbers, one would stand twice."""
    numbers = [value for values in raw.values() for value in values if value <= HIGHEST_VALUE]
    if len(set(numbers)) == len(numbers):
        return raw
    return {
        key: tuple(value for value in values if value > HIGHEST_VALUE)
        if key.startswith("classes.") or any(value > HIGHEST_VALUE for value in values)
        else values
        for key, values in raw.items()
    }


def _greys(raw: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Where all classes are colours, numbers that are void and the like are greys, too."""
    of_classes = [v for key, values in raw.items() if key.startswith("classes.") for v in values]
    if not of_classes or min(of_classes) <= HIGHEST_VALUE:
        return raw
    greys = {
        key: [colour_value(value, value, value) for value in values if 0 <= value <= 255]
        for key, values in raw.items()
    }
    listed = {value for values in raw.values() for value in values}
    return {
        key: (*values, *(grey for grey in greys[key] if grey not in listed))
        for key, values in raw.items()
    }


def _texts_of(named: dict[str, Any], classes: list[str]) -> Iterator[tuple[str, int]]:
    """What polygons call a class or meaning, and the label that it is."""
    for key, value in named.items():
        label = _MEANINGS[key] if key in _MEANINGS else classes.index(key[len("classes.") :])
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, str) and not entry.startswith("#"):
                yield plain_name(entry), label


def _check_values(values: LabelValues) -> None:
    if not (values.classes or values.known or values.unknown or values.texts):
        raise _Mistake(
            "expected [classes], known or unknown values, got none. Say what the label values "
            "mean, as in [classes] with road = 0."
        )
    spelled: dict[str, str] = {}
    for name in values.class_names:
        twin = spelled.setdefault(plain_name(name), name)
        if twin != name:
            raise _Mistake(
                f"the classes {twin} and {name} are the same name: case, _, - and space make no "
                "difference. Merge or rename them."
            )
    meanings: dict[int, str] = {}
    for value, name, _ in values.described():
        if value in meanings:
            raise _Mistake(
                f"the value {value_text(value)} is listed for both {meanings[value]} and {name}. "
                "List it once."
            )
        meanings[value] = name


def _integers(value: object, key: str) -> tuple[int, ...]:
    """A value or a list of values, checked."""
    values = value if isinstance(value, list) else [value]
    for entry in values:
        if type(entry) is not int or not LOWEST_VALUE <= entry <= HIGHEST_VALUE:
            raise _Mistake(
                f"expected {key} as whole numbers of {LOWEST_VALUE} to {HIGHEST_VALUE}, one or a "
                f'list, or as colours such as "#804080", got {entry!r}.'
            )
    return tuple(values)


def _parts(
    content: dict[str, Any], images: tuple[str, ...]
) -> dict[str, dict[str, tuple[str, ...]]]:
    """The splits by the images' fields."""
    splits = content.get("splits", {})
    if not isinstance(splits, dict) or not all(isinstance(v, dict) and v for v in splits.values()):
        raise _Mistake(
            'expected splits as tables of fields, as in [splits] with train = { tile = ["1", "2"] '
            f"}}, got {splits!r}."
        )
    fields = {*FILLED, *fields_of(images[0]).intersection(*map(fields_of, images))}
    for split, wanted in splits.items():
        _check_keys(wanted, sorted(fields), f"splits.{split}.")
    return {
        split: {field: _texts(value, f"splits.{split}.{field}") for field, value in wanted.items()}
        for split, wanted in splits.items()
    }


def _texts(value: object, key: str) -> tuple[str, ...]:
    """A text or a list of texts, checked."""
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(entry, str) and entry for entry in values):
        raise _Mistake(f'expected {key} as text or a list of it, as in "tile1", got {value!r}.')
    return tuple(values)


def _component_sizes(content: dict[str, Any]) -> ComponentSizes | None:
    if "components" not in content:
        return None
    sizes = content["components"]
    if not isinstance(sizes, dict):
        raise _Mistake(f"expected components as a table, got {sizes!r}.")
    _check_keys(sizes, ("predicted", "labelled"), "components.")
    for key, size in sizes.items():
        if type(size) is not int or size < 0:
            raise _Mistake(f"expected components.{key} as a number of pixels, got {size!r}.")
    return ComponentSizes(**sizes)


def _patterns(content: dict[str, Any], key: str) -> tuple[str, ...]:
    value = content.get(key)
    entries = value if isinstance(value, list) else [value]
    patterns = [entry for entry in entries if isinstance(entry, str) and entry]
    if not patterns or len(patterns) < len(entries):
        got = "nothing" if value is None else repr(value)
        raise _Mistake(f'expected {key} as a path pattern, as in "{key}/{{frame}}.png", got {got}.')
    for pattern in patterns:
        if "\\" in pattern:
            raise _Mistake(f'expected / between folders in {key}, got "{pattern}". Write / for \\.')
        rooted = PurePosixPath(pattern).is_absolute() or PureWindowsPath(pattern).is_absolute()
        if rooted or ".." in PurePosixPath(pattern).parts:
            raise _Mistake(f'expected {key} inside the folder, got "{pattern}".')
        if (name := misnamed_field(pattern)) is not None:
            raise _Mistake(
                f"expected fields in {key} that are letters, digits and _, as in {{frame}}, got "
                f'"{{{name}}}". Rename it.'
            )
    return tuple(patterns)


def _check_fields(images: tuple[str, ...], labels: tuple[str, ...]) -> None:
    given = set(FILLED)
    if reserved := given.intersection(*map(fields_of, images)):
        raise _Mistake(
            f"{{{reserved.pop()}}} in images is filled by doubtmap. Choose another field name."
        )
    for label in labels:
        for pattern in images:
            missing = fields_of(label) - fields_of(pattern) - given
            if missing:
                raise _Mistake(
                    f'labels "{label}" uses {{{sorted(missing)[0]}}}, which images "{pattern}" '
                    "lacks. Use fields of images, or {stem}, {folder}, {file}."
                )


def _text(content: dict[str, Any], key: str) -> str | None:
    value = content.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise _Mistake(f'expected {key} as text, as in {key} = "...", got {value!r}.')
    return value


def _check_keys(content: Iterable[str], allowed: Sequence[str], prefix: str) -> None:
    for key in content:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, 1)
            hint = f" Did you mean {prefix}{near[0]}?" if near else ""
            raise _Mistake(f"expected only the keys {', '.join(allowed)}, got {prefix}{key}.{hint}")
