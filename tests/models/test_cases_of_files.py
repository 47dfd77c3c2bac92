"""ONNX files and exported programs of many kinds, held to the network that they were made from."""

import warnings

import pytest
import torch
from cases import NONE, Net, at_full, binary, check, corners, full, net, up

from doubtmap.files.archives import TRIED
from doubtmap.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIDES = ((1, 32, 48), (2, 48, 32))
FIXED = ((1, 32, 48), (2, 32, 48))
FREE = {0: "b", 2: "h", 3: "w"}


def onnx_file(path, opset=17, axes=FREE, given=None, names=("y",), after=lambda path: None):
    """A way to bring a network: by PyTorch's older exporter, which is quick."""

    def bring(network):
        wanted = next(network.parameters()).dtype
        x = torch.rand(1, 3, 32, 48).to(wanted) if given is None else given
        free = {"x": axes} if axes else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own deprecations
            torch.onnx.export(
                network.eval(), (x,), path, dynamo=False, opset_version=opset, input_names=["x"],
                output_names=[*names], dynamic_axes=free,
            )  # fmt: skip
        after(path)
        return path

    return bring


def program(path, dtype=torch.float32, save=True):
    """A way to bring a network: an exported program of one size."""

    def bring(network):
        made = torch.export.export(network.eval(), (torch.rand(1, 3, 32, 48).to(dtype),))
        if not save:
            return made
        torch.export.save(made, path)
        return path

    return bring


def last(n, x):
    z = up(n.low(x.permute(0, 3, 1, 2)), x.shape[1:3])
    return z.permute(0, 2, 3, 1)


def inside(n, x):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return n.full((x - mean) / std)


class Half(Net):
    def __init__(self, forwards):
        super().__init__(forwards)
        self.half()


class Double(Net):
    def __init__(self, forwards):
        super().__init__(forwards)
        self.double()


def half(n, x):
    return full(n, x.half())


def of_bytes(n, x):
    return inside(n, x.float() / 255)


def of_255(n, x):
    mean, std = (255 * torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return n.full((x - mean) / std)


BYTES = (255 * torch.rand(1, 3, 32, 48)).byte()
ON_LAST = torch.rand(1, 32, 48, 3)
NCHW, NHWC = FREE, {0: "b", 1: "h", 2: "w"}
ONNX = {
    **{f"opset {n}": (net(at_full), {"opset": n}) for n in (11, 17, 20)},
    "one size": (net(at_full, batches=FIXED, notes=("accepts only 32x48",)), {"axes": None}),
    "batches of one": (net(at_full), {"axes": {2: "h", 3: "w"}}),
    "a quarter": (net(lambda n, x: n.low(x)), {}),
    "aligned corners": (net(lambda n, x: n.full(x, True), truth=corners), {}),
    "3x3": (net(at_full, at={"k": 3}), {}),
    "softmax": (net(lambda n, x: n.full(x).softmax(1), notes=("probabilities",)), {}),
    "one channel": (net(at_full, at={"classes": 1}, truth=binary, notes=("one channel",)), {}),
    "one channel, a probability": (
        net(
            lambda n, x: n.full(x).sigmoid(), at={"classes": 1}, truth=binary,
            notes=("one channel, the probability",),
        ), {},
    ),
    "one sigmoid a class": (net(lambda n, x: n.full(x).sigmoid(), near=1e-3), {}),
    "class map": (net(lambda n, x: n.full(x).argmax(1), "class map.*export"), {}),
    "class map in bytes": (
        net(lambda n, x: n.full(x).argmax(1).to(torch.uint8), "class map.*export"), {},
    ),
    "class map and logits": (
        net(lambda n, x: (n.full(x).argmax(1), n.full(x))), {"names": ("map", "y")},
    ),
    "aux and out": (
        net(lambda n, x: (n.full(x) * -0.3, n.full(x)), notes=("Of several outputs 'out'",)),
        {"names": ("aux", "out")},
    ),
    "a and b": (
        net(lambda n, x: (n.low(x).relu() - 1, n.low(x).relu() + 1), r"got a .*, b .*--output"),
        {"names": ("a", "b")},
    ),
    "a and b, said": (
        net(lambda n, x: (n.full(x).sin(), n.full(x)), options={"output": "b"}),
        {"names": ("a", "b")},
    ),
    "YOLO's boxes and prototypes": (
        net(
            lambda n, x: (
                n.low(x).flatten(2)[:, :1].repeat(1, 42, 1), n.low(x)[:, :1].repeat(1, 32, 1, 1),
            ), "instance segmentation",
        ), {"names": ("output0", "output1")},
    ),
    "colours and classes last": (net(last, notes=("last axis",)), {"axes": NHWC, "given": ON_LAST}),
    "colours and classes last, one size": (
        net(last, batches=FIXED), {"axes": None, "given": ON_LAST},
    ),
    "classes last": (net(lambda n, x: n.full(x).permute(0, 2, 3, 1), notes=("last axis",)), {}),
    "a fifth axis": (net(lambda n, x: n.full(x)[:, :, None]), {}),
    "normalises inside": (
        net(inside, says={"normalisation": "the graph normalises inside"}), {},
    ),
    "normalises bytes inside": (net(of_255), {}),
    "takes bytes": (net(of_bytes, near=1e-3), {"given": BYTES}),
    "4 bands, images of 3": (
        net(at_full, "images of 4 bands, got 3", at={"bands": 4}),
        {"given": torch.rand(1, 4, 32, 48)},
    ),
    "4 bands": (
        net(
            at_full, at={"bands": 4}, bands=4,
            options={"mean": (0.5,) * 4, "std": (0.25,) * 4},
        ), {"given": torch.rand(1, 4, 32, 48)},
    ),
    "1 band": (
        net(at_full, at={"bands": 1}, bands=1, options={"mean": (0.5,), "std": (0.25,)}),
        {"given": torch.rand(1, 1, 32, 48)},
    ),
    "float16": (net(lambda n, x: n.low(x), truth=half, kind=Half, near=3e-3), {}),
    "float64": (net(lambda n, x: n.low(x), "Export it again, in float32", kind=Double), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", ONNX)
def test_onnx(name, tmp_path):
    case, how = ONNX[name]
    check(case, onnx_file(tmp_path / "n.onnx", **how))


def quantised(way):
    """Eight bits by onnxruntime's tools."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        quantize_dynamic,
        quantize_static,
    )

    class Images(CalibrationDataReader):
        def __init__(self):
            self.left = [{"x": 4 * torch.rand(1, 3, 32, 48).numpy() - 2} for _ in range(2)]

        def get_next(self):
            return self.left.pop() if self.left else None

    def after(path):
        if way == "dynamic":
            return quantize_dynamic(path, path)
        return quantize_static(path, path, Images(), quant_format=QuantFormat[way])

    return after


def run_by_onnxruntime(path):
    """The file's own answer, which eight bits make another than the network's."""
    import onnxruntime

    def truth(n, x):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])

    return truth


@pytest.mark.parametrize("way", ["dynamic", "QDQ", "QOperator"])
@pytest.mark.parametrize("softmax", [False, True], ids=["logits", "softmax"])
def test_onnx_of_eight_bits(way, softmax, tmp_path):
    own = run_by_onnxruntime(tmp_path / "n.onnx")

    def truth(n, x):
        z = own(n, x)
        return z / z.sum(1, keepdim=True) if softmax else z.softmax(1)

    forwards = (lambda n, x: n.full(x).softmax(1)) if softmax else at_full
    case = net(forwards, "", truth=truth, near=2e-2, batches=FIXED)
    check(case, onnx_file(tmp_path / "n.onnx", axes={0: "b"}, after=quantised(way)))


PROGRAMS = {
    "logits": net(at_full, batches=FIXED),
    "a dict": net(lambda n, x: {"out": n.full(x), "aux": n.low(x)}, batches=FIXED),
    "one channel": net(at_full, at={"classes": 1}, truth=binary, batches=FIXED),
    "class map": net(lambda n, x: n.full(x).argmax(1), "class map.*export"),
    "float16": net(lambda n, x: n.low(x), truth=half, kind=Half, near=3e-3, batches=FIXED),
    "normalises inside": net(inside, options=NONE, truth=lambda n, x: inside(n, x).softmax(1),
        batches=FIXED),
}  # fmt: skip


@pytest.mark.skipif(
    not torch.__version__.startswith(TRIED), reason="this PyTorch's reader of .pt2 was not tried"
)
@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name, tmp_path):
    case = PROGRAMS[name]
    dtype = torch.float16 if case.truth is half else torch.float32
    check(case, program(tmp_path / "n.pt2", dtype))


def test_program_as_an_object():
    check(PROGRAMS["logits"], program(None, save=False))


def test_the_module_of_a_program():
    module = lambda network: program(None, save=False)(network).module()  # noqa: E731
    check(net(at_full, "", batches=((1, 32, 48), (1, 32, 48))), module)
