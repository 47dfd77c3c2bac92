"""Compiles the Triton kernels to the code of GPUs, without one: run by `test_triton.py`."""

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from doubtmap.kernels import triton_kernels

PLACES = {
    "row_below": "*i32",
    "row_weight": "*fp32",
    "column_below": "*i32",
    "column_weight": "*fp32",
}
WHOLE = (
    *("image_stride", "channel_stride", "row_stride", "column_stride"),
    *("rows", "columns", "pixels", "width", "tiles", "channels"),
)
REAL = ("p", "uniform_factor", "inverse_temperature")


def type_of(name, dtype):
    if name == "values":
        return f"*{dtype}"
    if name == "classes":
        return "*i64"
    return PLACES.get(name) or ("i32" if name in WHOLE else "fp32" if name in REAL else "*fp32")


def compiled(kernel, generation, dtype, resized, **constants):
    constants |= {"RESIZED": resized, "BLOCK": 512}
    constants |= {} if resized else dict.fromkeys(PLACES)
    names = kernel.arg_names
    types = {name: "constexpr" if name in constants else type_of(name, dtype) for name in names}
    source = ASTSource(kernel, types, {(names.index(k),): v for k, v in constants.items()})
    built = triton.compile(source, target=GPUTarget("cuda", generation, 32))
    assert built.asm["cubin"]
    print(kernel.__name__)


def main():
    both = {"STATISTICS": True, "DIVERGENCE": True}
    compiled(triton_kernels.statistics_kernel, 80, "fp32", False, **both)
    compiled(triton_kernels.statistics_kernel, 90, "bf16", True, **both)
    compiled(triton_kernels.norm_kernel, 80, "fp16", True, MAXIMUM=False)
    uniform = {"MAXIMUM": False, "UNIFORM": True, "PUBLISHED": False}
    compiled(triton_kernels.weight_kernel, 80, "fp32", True, **uniform)


if __name__ == "__main__":
    main()
