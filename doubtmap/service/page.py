"""The page of a service: an image is dropped on it, and classes and doubt are looked at."""

from __future__ import annotations

import json
from importlib import resources

from markupsafe import Markup

from doubtmap.reports.colours import class_colours, ramp
from doubtmap.reports.page import by_hash, framed, header
from doubtmap.service.answers import Answering
from doubtmap.service.limits import Limits

_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; img-src blob: data:; "
    "connect-src 'self'; style-src 'unsafe-inline'"
)


def page(answering: Answering, limits: Limits) -> tuple[bytes, str]:
    """The page, and the content security policy that it is to be served with.

    Args:
        answering: the network and its scores.
        limits: that the page tells.
    """
    about = {
        "names": answering.class_names,
        "colours": class_colours(answering.classes, answering.class_names).tolist(),
        "ramp": ramp().tolist(),
        "scales": answering.scales,
        "thresholds": answering.thresholds,
    }
    several = "s" if len(answering.scores) > 1 else ""
    content = framed(
        answering.name,
        header(
            "serve",
            "How far to trust each pixel",
            f"The network {answering.name}, with the score{several} {', '.join(answering.scores)}: "
            f"higher is more doubt.",
        ),
        Markup(_file("page.html")).format(
            about=json.dumps(about),
            megapixels=limits.megapixels,
            megabytes=limits.megabytes,
            address="http://HOST:PORT/doubt",
        ),
        script=_file("page.js"),
        style=_file("page.css"),
        policy=_POLICY,
    )
    loads = _POLICY.partition("; style-src")[0]
    return content, f"{loads}; {by_hash(content)}; frame-ancestors 'none'"


def _file(name: str) -> str:
    return resources.files("doubtmap.service").joinpath(name).read_text("utf-8")
