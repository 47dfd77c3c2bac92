"""Builds the per-pixel pass in C where there is a compiler; everything else is in pyproject.toml.

Without a compiler the installation succeeds all the same, and PyTorch does the work.
"""

import os
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCES = ("pixels", "doubtmap_pixels", "segments", "sums", "tables", "pixels_threads")
HEADERS = (
    *("pixels", "pixels_tile", "pixels_squares", "pixels_observed", "pixels_threads"),
    *("doubtmap_pixels", "sums"),
)
FAST = [
    "-std=c11",
    "-O3",
    "-g0",
    "-fopenmp-simd",  # its loops for vectors; threads are our own
    # The file handles infinities by their bits, so that minimum and maximum are one instruction.
    "-ffinite-math-only",
    "-fno-signed-zeros",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
]
FAST_OF_MICROSOFT = ["/std:c11", "/O2", "/fp:fast", "/openmp:experimental"]


class BuildPixels(build_ext):
    """Compile one library that is loaded through ctypes, and so the same for every Python."""

    def build_extension(self, ext: Extension) -> None:
        """Build one extension."""
        kind = self.compiler.compiler_type
        ext.extra_compile_args = FAST_OF_MICROSOFT if kind == "msvc" else FAST
        if kind in ("unix", "cygwin"):
            ext.libraries, ext.extra_link_args = ["m"], ["-pthread"]
        super().build_extension(ext)

    def get_ext_filename(self, fullname: str) -> str:
        """Without the name of a Python, as compiled.py looks for it."""
        return str(Path(*fullname.split("."))) + (".dll" if os.name == "nt" else ".so")

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """None of Python's: the library is loaded through ctypes."""
        return []


class WheelForEveryPython(bdist_wheel):
    """One wheel a platform."""

    def get_tag(self) -> tuple[str, str, str]:
        """Tag of the wheel's name."""
        return "py3", "none", super().get_tag()[2]


setup(
    cmdclass={"build_ext": BuildPixels, "bdist_wheel": WheelForEveryPython},
    ext_modules=[
        Extension(
            "doubtmap.kernels.pixels",
            [f"doubtmap/kernels/{name}.c" for name in SOURCES],
            depends=[f"doubtmap/kernels/{name}.h" for name in HEADERS],
            optional=True,
        )
    ],
)
