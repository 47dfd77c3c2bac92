"""What was sent, as an image that the network takes; nothing of it is written anywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from doubtmap.datasets.rasters import TooLargeError, raster_of
from doubtmap.datasets.reading import Rendering, rendered
from doubtmap.errors import DataError
from doubtmap.service.limits import Limits, Refusal, check_images

NAME = Path("image")
"""What messages call an image that was sent; names that come with one are not looked at."""
_ENDS = "Send an image as the body, or as a file of a form (multipart/form-data)."
_KINDS = (
    *("", "application/octet-stream", "application/x-www-form-urlencoded", "image/png"),
    *("image/jpeg", "image/jpg", "image/webp", "image/bmp", "image/gif", "image/tiff", "image/jp2"),
    *("image/avif", "image/heic", "image/heif", "image/x-portable-pixmap", "image/*"),
)
"""Types of what is taken for an image; the second and third are what clients send unasked."""


def image_of(content: bytes, rendering: Rendering, limits: Limits) -> Tensor:
    """Read an image that was sent.

    Args:
        content: of an image file, whose beginning decides the format.
        rendering: how it becomes what the network takes.
        limits: on its pixels, asked of the header before anything is decoded.

    Returns:
        `(K, H, W)` uint8.

    Raises:
        Refusal: 413 for too many pixels, 400 for what cannot be read.
    """
    try:
        image = rendered(raster_of(content, NAME, limits.pixels), NAME, rendering)
    except TooLargeError as error:
        raise Refusal(413, str(error)) from error
    except DataError as error:
        raise Refusal(400, str(error)) from error
    check_images(limits, 1, *image.shape[-2:])
    return image


def file_in(content: bytes, kind: str) -> bytes:
    """The image in a request's body.

    Args:
        content: the body.
        kind: its `Content-Type`.

    Raises:
        Refusal: 415 for a body of another kind, 400 for a form without one file, or damaged.
    """
    said = kind.partition(";")[0].strip().lower()
    if said == "multipart/form-data":
        return _file_of_form(content, kind)
    if said not in _KINDS:
        raise Refusal(415, f"expected an image such as image/png, got {said[:80]!r}. {_ENDS}")
    if not content:
        raise Refusal(400, f"expected an image, got an empty body. {_ENDS}")
    return content


class _Form:
    """The files of a form, as its parser comes to them."""

    def __init__(self) -> None:
        self.files: list[bytearray] = []
        self._name = self._value = b""
        self._is_file = False

    def calls(self) -> dict[str, Callable[..., None]]:
        """What the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._field,
            "on_header_value": self._text,
            "on_header_end": self._header,
            "on_part_data": self._data,
        }

    def _begin(self) -> None:
        self._is_file = False

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _text(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header(self) -> None:
        if self._name.lower() == b"content-disposition" and b"filename" in self._value.lower():
            self._is_file = True
            self.files.append(bytearray())
        self._name = self._value = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.files[-1] += data[start:end]


def _file_of_form(content: bytes, kind: str) -> bytes:
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    form = _Form()
    boundary = parse_options_header(kind)[1].get(b"boundary", b"")
    try:
        if not 1 <= len(boundary) <= 70:
            raise FormParserError("its boundary is missing or too long")
        parser = MultipartParser(boundary, form.calls())
        parser.write(content)
        parser.finalize()
    except FormParserError as error:
        raise Refusal(400, f"expected a form with a file, got a damaged one ({error}).") from error
    if len(form.files) != 1 or not form.files[0]:
        found = sum(map(bool, form.files))
        raise Refusal(400, f"expected one file in the form, got {found}. {_ENDS}")
    return bytes(form.files[0])
