"""Builds the per-pixel pass in C where there is a compiler; everything else is in pyproject.toml.

Without a compiler the installation succeeds all the same, and PyTorch does the work.
"""

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

SOURCES = ("pixels", "doubtmap_pixels", "segments", "sums")
HEADERS = ("pixels", "pixels_tile", "doubtmap_pixels")
FAST = [
    "-std=c11",
    "-O3",
    "-g0",
    "-fopenmp-simd",
    # The file handles infinities by their bits, so that minimum and maximum are one instruction.
    "-ffinite-math-only",
    "-fno-signed-zeros",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
]


class BuildPixels(build_ext):
    """Compile with OpenMP, and where the compiler has none, without."""

    def build_extension(self, ext: Extension) -> None:
        """Build one extension."""
        unix = self.compiler.compiler_type in ("unix", "mingw32", "cygwin")
        ext.extra_compile_args = FAST if unix else ["/O2", "/fp:fast"]
        ext.libraries = ["m"] if self.compiler.compiler_type in ("unix", "cygwin") else []
        openmp = ["-fopenmp"] if unix else ["/openmp:experimental"]
        try:
            self._build_with(ext, openmp, openmp if unix else [])
        except (CompileError, LinkError):
            self._build_with(ext, [], [])

    def _build_with(self, ext: Extension, compile_args: list[str], link_args: list[str]) -> None:
        kept = ext.extra_compile_args
        ext.extra_compile_args, ext.extra_link_args = [*kept, *compile_args], link_args
        try:
            super().build_extension(ext)
        finally:
            ext.extra_compile_args = kept

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """None of Python's: the library is loaded through ctypes."""
        return []


setup(
    cmdclass={"build_ext": BuildPixels},
    ext_modules=[
        Extension(
            "doubtmap.kernels.pixels",
            [f"doubtmap/kernels/{name}.c" for name in SOURCES],
            depends=[f"doubtmap/kernels/{name}.h" for name in HEADERS],
            optional=True,
        )
    ],
)
