"""Bytes, flags, native logits and other formats, run as they are run elsewhere."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import doubtmap as dm
import doubtmap.runtime
from doubtmap.calibration.temperature import Temperature
from doubtmap.decisions import Threshold
from doubtmap.deploy import repository, tensorrt
from doubtmap.deploy.export import Form, export
from doubtmap.deploy.graph import Graph
from doubtmap.deploy.parity import Parity, _take
from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.files import Origin
from doubtmap.models import load
from doubtmap.scores import divergence, energy, entropy, margin, max_softmax
from doubtmap.scoring import probe_logits

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

NONE = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
SCORES = {"entropy": entropy, "max_softmax": max_softmax}


class Divided(nn.Module):
    """A quarter of the size, of sides that are multiples of 16 only."""

    def __init__(self):
        super().__init__()
        self.down, self.classifier = nn.Conv2d(3, 6, 4, 4), nn.Conv2d(6, 5, 1)
        with torch.no_grad():
            self.classifier.weight *= 6

    def forward(self, x):
        if x.shape[-2] % 16 or x.shape[-1] % 16:
            raise RuntimeError("Wrong input shape")
        said = self.classifier(self.down(x))
        return nn.functional.interpolate(said, x.shape[-2:], mode="bilinear")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return load(Divided(), **NONE)


def pictures(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def threshold_of(network, score="entropy", at=1.2):
    found = probe_logits(network)
    return Threshold(
        score,
        float(np.float32(at)),
        "unknown",
        "f1",
        origin=Origin(fingerprint=tuple(found.tolist())),
    )


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("doubts", ["float", "uint8"])
def test_numpy_images_go_in_and_named_maps_come_out(tmp_path, network, native, doubts):
    path, limit = tmp_path / "net.onnx", threshold_of(network)
    form = Form(doubts=doubts, native=native, input="uint8")
    export(network, SCORES, path, form, threshold=limit)
    opened = doubtmap.runtime.load(path)
    images = pictures(2, 3, 41, 70)
    found, prediction = opened(images), network(torch.from_numpy(images))
    assert list(found) == ["classes", "entropy", "max_softmax", "flags"]
    assert np.array_equal(found["classes"], prediction.classes.numpy())
    assert np.array_equal(found["flags"], limit.flag(entropy(prediction)).numpy())
    assert 0 < found["flags"].mean() < 1
    for name, score in SCORES.items():
        values, near = found[name], 1e-4
        if doubts == "uint8":
            low, step = opened.scale(name)
            assert values.dtype == np.uint8
            values, near = low + step * values, step / 2 + 1e-4
        assert np.abs(values - score(prediction).numpy()).max() <= near


def test_native_files_hold_logits_alone_and_are_models_again(tmp_path, network):
    path = tmp_path / "net.onnx"
    export(network, SCORES, path, Form(native=True), calibrator=Temperature(temperature=2.0))
    names = [output.name for output in onnx.load(str(path)).graph.output]
    assert names == ["native_logits"]
    found = doubtmap.runtime.load(path)(pictures(1, 3, 33, 50))
    images = torch.from_numpy(pictures(1, 3, 33, 50))
    wanted = Temperature(temperature=2.0)(network(images))
    assert np.abs(found["entropy"] - entropy(wanted).numpy()).max() < 1e-4
    again = load(str(path))(images)  # filled up to a multiple of 16, as the network wants it
    torch.testing.assert_close(entropy(again), entropy(wanted), rtol=0, atol=1e-4)


def test_cameras_give_the_colours_last(tmp_path, network):
    export(network, SCORES, tmp_path / "net.onnx", Form(native=True))
    opened = doubtmap.runtime.load(tmp_path / "net.onnx", threads=1)
    frame = pictures(40, 52, 3)
    wanted = opened(np.ascontiguousarray(frame.transpose(2, 0, 1)[None]))
    for given in (frame, frame[None], frame[None].transpose(0, 3, 1, 2) / np.float32(255)):
        found = opened(given)
        assert all(np.allclose(found[name], wanted[name], atol=1e-5) for name in wanted)
    for bad, said in (
        (frame[..., :2], r"expected images \(B, 3, H, W\)"),
        (frame.astype(np.int64), "expected uint8 images or float"),
        (frame.tolist(), "expected uint8 images or float"),
        (frame.astype(np.float32), r"float images in \[0, 1\], got values from 0 to 255"),
        (np.full((1, 3, 40, 52), np.nan), "got values from nan to nan"),
    ):
        with pytest.raises(UsageError, match=said):
            opened(bad)
    with pytest.raises(UsageError, match="--doubts uint8"):
        opened.scale("entropy")
    assert opened.class_names == () and opened.about["version"] == dm.__version__


def test_a_file_of_one_size_says_which_it_takes(tmp_path, network):
    export(network, SCORES, tmp_path / "net.onnx", Form(size=(32, 48)))
    opened = doubtmap.runtime.load(tmp_path / "net.onnx")
    with pytest.raises(UsageError, match=r"images of 32x48 pixels.*got 41x70"):
        opened(pictures(1, 3, 41, 70))
    opened.about["size"] = None
    with pytest.raises(DataError, match=r"1 of 41x70, of which onnxruntime said \S.*Give others"):
        opened(pictures(1, 3, 41, 70))


def test_images_that_are_resized_have_native_logits_too(tmp_path):
    segmenter = load(Divided(), input_size=(24, 50), **NONE)
    export(segmenter, SCORES, tmp_path / "net.onnx", Form(native=True))
    images = torch.from_numpy(pictures(1, 3, 37, 61))
    found = doubtmap.runtime.load(tmp_path / "net.onnx")(images.numpy())
    assert np.abs(found["entropy"] - entropy(segmenter(images)).numpy()).max() < 1e-4


@pytest.mark.parametrize(
    "scores, form, said",
    [
        ({"energy": energy}, {"doubts": "uint8"}, "energy has none. Take wrong:FILE"),
        ({"gradient": dm.scores.gradient}, {"native": True}, "expected some of max_softmax"),
        (SCORES, {"native": True, "format": "pt2"}, "which doubtmap.runtime reads, got pt2"),
        (SCORES, {"doubts": "int4"}, "--doubts: expected float or uint8, got int4"),
        (SCORES, {"input": "half"}, "--input: expected float or uint8"),
        (SCORES, {"format": "pt2"}, r"ends in \.pt2, as those of --format pt2 do, got net\.onnx"),
        ({"flags": entropy}, {}, "names of their own, got flags"),
        ({"images": entropy}, {}, "names of their own, got images"),
    ],
)
def test_what_cannot_be_says_what_to_do(tmp_path, network, scores, form, said):
    with pytest.raises(UsageError, match=said):
        export(network, scores, tmp_path / "net.onnx", Form(**form))


def test_thresholds_and_calibrators_of_others_are_refused(tmp_path, network):
    with pytest.raises(UsageError, match="--threshold: expected margin among the scores"):
        export(network, SCORES, tmp_path / "n.onnx", threshold=threshold_of(network, "margin"))
    torch.manual_seed(1)
    other = threshold_of(load(Divided(), **NONE))
    with pytest.raises(ModelError, match="expected the network that it was chosen for"):
        export(network, SCORES, tmp_path / "n.onnx", threshold=other)
    mark = Origin(fingerprint=other.origin.fingerprint)
    with pytest.raises(ModelError, match="expected the network that it was fitted for"):
        fitted = Temperature(temperature=2.0, origin=mark)
        export(network, SCORES, tmp_path / "n.onnx", calibrator=fitted)
    seven = Temperature(temperature=2.0, channels=7)
    with pytest.raises((UsageError, ModelError), match="7"):
        export(network, SCORES, tmp_path / "n.onnx", calibrator=seven)


def test_files_of_others_are_refused_by_the_runtime(tmp_path):
    path = tmp_path / "net.onnx"
    export(load(Divided(), **NONE), SCORES, path)
    model = onnx.load(str(path))
    del model.metadata_props[:]
    onnx.save(model, str(path))
    with pytest.raises(ModelError, match="got one that says nothing of doubtmap"):
        doubtmap.runtime.load(path)
    path.write_bytes(b"no graph")
    with pytest.raises(ModelError, match=r"net.onnx: expected an ONNX file that onnxruntime"):
        doubtmap.runtime.load(path)


def test_the_runtime_knows_no_pytorch_and_is_small(tmp_path, network):
    """From the import to the maps, in a process of its own."""
    export(network, SCORES, tmp_path / "net.onnx", Form(native=True, doubts="uint8"))
    code = """if True:
        import resource, sys, time
        import numpy, onnxruntime
        def memory():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        before, start = memory(), time.process_time()
        import doubtmap.runtime
        took = time.process_time() - start
        doubtmap.runtime.pixels.library()
        megabytes = memory() - before
        found = doubtmap.runtime.load(sys.argv[1])(numpy.zeros((1, 3, 32, 48), numpy.uint8))
        heavy = {"torch", "scipy", "PIL", "typer", "onnx"} & set(sys.modules)
        print(took, megabytes, sorted(found), heavy or "nothing")
    """
    words = [sys.executable, "-c", code, str(tmp_path / "net.onnx")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    took, megabytes, said = done.stdout.strip().split(" ", 2)
    assert said == "['classes', 'entropy', 'max_softmax'] nothing"
    assert float(took) < 0.2 and float(megabytes) < 40


def test_a_folder_of_triton_says_what_the_file_takes(tmp_path, network):
    out, form = tmp_path / "models" / "net.v2", Form("triton", "uint8", doubts="uint8")
    export(network, SCORES, out, form, threshold=threshold_of(network))
    assert sorted(path.name for path in out.iterdir()) == ["1", "config.pbtxt", "parity.json"]
    made = repository.read((out / "config.pbtxt").read_text())
    assert made["name"] == "net.v2" and made["backend"] == "onnxruntime"
    (given,) = made["input"]
    assert given == {"name": "images", "data_type": "TYPE_UINT8", "dims": [3, -1, -1]}
    session = runtime.InferenceSession(str(out / "1" / "model.onnx"))
    kinds = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}
    there = [(each.name, kinds[each.type], len(each.shape)) for each in session.get_outputs()]
    here = [(each["name"], each["data_type"], 1 + len(each["dims"])) for each in made["output"]]
    assert here == there and [name for name, *_ in here] == ["classes", *SCORES, "flags"]


def test_the_configuration_is_one_of_the_server(tmp_path, network):
    """As NVIDIA's own description of the message reads it."""
    found = importlib.util.find_spec("tritonclient")
    if found is None or not found.submodule_search_locations:
        pytest.skip("no tritonclient is here, which brings the description of the message")
    folder = found.submodule_search_locations[0]
    place = f"{folder}/grpc/model_config_pb2.py"
    described = importlib.util.spec_from_file_location("model_config_pb2", place)
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    from google.protobuf import json_format, text_format

    form = Form("triton", size=(32, 48), logits=True)
    export(network, SCORES, tmp_path / "net", form)
    text = (tmp_path / "net" / "config.pbtxt").read_text()
    theirs = text_format.Parse(text, module.ModelConfig())
    read = json_format.MessageToDict(theirs, preserving_proto_field_name=True)
    ours = repository.read(text)
    assert read["name"] == ours["name"] and read["max_batch_size"] == repository.BATCH
    for port in ("input", "output"):
        for a, b in zip(read[port], ours[port], strict=True):
            assert [int(side) for side in a["dims"]] == b["dims"] and a["name"] == b["name"]
            assert a["data_type"] == b["data_type"]


@pytest.mark.parametrize(
    "text", ["name", "name: [1, 2", "input {", 'name: "x', "a: }", "\x00"], ids=repr
)
def test_half_a_configuration_is_refused(text):
    with pytest.raises(ModelError, match=r"config\.pbtxt: expected"):
        repository.read(text)


def test_names_with_odd_characters_come_back():
    made = {"name": 'a "b" \\ c\nd', "input": [{"dims": [3, -1]}], "empty": {}}
    assert repository.read(repository.text_of(made)) == made
    assert repository.read("a: 1 # no more\n b { c: X }") == {"a": 1, "b": {"c": "X"}}


def test_openvino_runs_it_and_it_is_a_model_again(tmp_path, network):
    pytest.importorskip("openvino")
    scores = {"entropy": entropy, "margin": margin, "divergence": divergence}
    form = Form("openvino", logits=True)
    found = export(network, scores, tmp_path / "net.xml", form)
    assert found.images == 12 and (tmp_path / "net.bin").is_file()
    images = torch.from_numpy(pictures(2, 3, 41, 70))
    again = load(str(tmp_path / "net.xml"))
    torch.testing.assert_close(entropy(again(images)), entropy(network(images)), rtol=0, atol=1e-4)
    assert json.loads((tmp_path / "parity.json").read_text())["file"] == "net.xml"


def test_a_threshold_at_the_threshold_is_a_tie(network):
    graph, seen = Graph(network, {"entropy": entropy}), torch.zeros(1, 3, 32, 48)
    seen[..., 20:] = torch.rand(28)
    prediction = network(seen)
    at = float(entropy(prediction)[0, 0, 0])
    graph.doubts = {"entropy": doubtmap.runtime.Doubt(threshold=at)}
    wanted = graph.said(prediction)
    for shift, ties in ((0.0, True), (0.1, False)):
        graph.doubts = {"entropy": doubtmap.runtime.Doubt(threshold=at + shift)}
        found, other = Parity(), dict(wanted)
        other["flags"] = 1 - other["flags"]
        said = _take(found, other, wanted, prediction, graph)
        assert (found.ties > 0) == ties
        assert "flags differs" in said  # elsewhere, where no tie excuses it


@pytest.mark.parametrize("form", [Form(), Form(input="uint8", doubts="uint8"), Form(native=True)])
def test_the_parser_of_tensorrt_knows_every_operator(tmp_path, network, form):
    """As its documentation has it; no card is here."""
    fitted = threshold_of(network)
    export(network, SCORES, tmp_path / "net.onnx", form, threshold=fitted)
    assert doubtmap.runtime.load(tmp_path / "net.onnx").about["tensorrt"] == []


def test_what_tensorrt_excludes_is_named():
    from onnx import TensorProto, helper

    bytes = [helper.make_tensor_value_info(name, TensorProto.UINT8, [1]) for name in "ac"]
    nodes = [
        helper.make_node("Resize", ["a"], ["b"], mode="cubic", antialias=1),
        helper.make_node("Bernoulli", ["b"], ["c"]),
    ]
    graph = helper.make_graph(nodes, "g", bytes[:1], bytes[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)])
    said = ["opset 22, where it reads 9 to 20", "Resize with antialiasing", "Resize by cubic"]
    assert tensorrt.refused(model) == [*said, "the operator Bernoulli"]
    graph.value_info.append(helper.make_tensor_value_info("b", TensorProto.UINT8, [1]))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("ours", 1)])
    assert tensorrt.refused(model)[::4] == ["operators of ours", "bytes within the graph"]


def test_a_quantised_file_is_a_model_whose_doubt_can_be_measured(tmp_path, network):
    quantization = pytest.importorskip("onnxruntime.quantization")
    plain, small = tmp_path / "net.onnx", tmp_path / "int8.onnx"
    export(network, SCORES, plain, Form(native=True))
    images = [{"images": np.float32(pictures(1, 3, 32, 48)) / 255}, None]

    class Images(quantization.CalibrationDataReader):
        def get_next(self):
            return images.pop(0)

    quantization.quantize_static(str(plain), str(small), Images())
    given = torch.from_numpy(pictures(1, 3, 48, 64))
    found, wanted = (entropy(load(str(path))(given)) for path in (small, plain))
    assert 0 < (found - wanted).abs().mean() < 0.2
    assert doubtmap.runtime.load(small)(given.numpy())["entropy"].shape == (1, 48, 64)


def test_the_command_writes_all_of_it(tmp_path):
    from typer.testing import CliRunner

    from doubtmap.cli.app import app
    from doubtmap.decisions import save_threshold

    save_threshold(threshold_of(load("demo"), at=0.4), tmp_path / "entropy.json")
    out = tmp_path / "models" / "demo"
    words = ["export", "demo", "--scores", "entropy", "--doubts", "uint8", "--format", "triton"]
    limit = ["--threshold", str(tmp_path / "entropy.json"), "--native", "--out", str(out)]
    found = CliRunner().invoke(app, [*words, *limit])
    assert found.exit_code == 0, found.output
    assert (
        "its bytes differ by at most" in found.output
        and f"parity.json in {out}" not in found.output
    )
    opened = doubtmap.runtime.load(out / "1" / "model.onnx")
    assert list(opened(pictures(1, 3, 32, 48))) == ["classes", "entropy", "flags"]
    found = CliRunner().invoke(app, [*words, "--native", "--out", str(tmp_path / "x.xml")])
    assert found.exit_code == 0  # the named format, not the end of the name


def test_onnx_runtime_in_cpp_says_the_same(network, tmp_path):
    """The example of docs/, by the library of the Python package and headers that are here."""
    include = Path(os.environ.get("ONNXRUNTIME_INCLUDE", "/usr/include/onnxruntime"))
    if not (include / "onnxruntime_cxx_api.h").exists():
        pytest.skip("no headers of ONNX Runtime: name their folder in ONNXRUNTIME_INCLUDE")
    library = next(Path(runtime.__file__).parent.glob("capi/libonnxruntime.so*"))
    program = tmp_path / "doubts"
    source = Path(__file__).parents[2] / "docs" / "examples" / "doubts_onnx.cpp"
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (tmp_path / name).symlink_to(library)
    words = ["c++", "-std=c++17", f"-I{include}", source, f"-L{tmp_path}", "-lonnxruntime"]
    subprocess.run([*words, f"-Wl,-rpath,{tmp_path}", "-o", program], check=True)
    export(network, SCORES, tmp_path / "net.onnx")
    image = pictures(48, 64, 3)
    (tmp_path / "image.rgb").write_bytes(image.tobytes())
    words = [program, tmp_path / "net.onnx", tmp_path / "image.rgb", "48", "64"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    prediction = network(torch.from_numpy(image).permute(2, 0, 1)[None])
    counts = torch.bincount(prediction.classes.flatten(), minlength=5).tolist()
    lines = [line.rsplit(" ", 1) for line in told.splitlines()]
    assert {name: int(x) for name, x in lines if name.startswith("class")} == {
        f"class {at}": count for at, count in enumerate(counts) if count
    }
    export(network, SCORES, tmp_path / "bytes.onnx", Form(doubts="uint8"))
    other = [program, tmp_path / "bytes.onnx", *words[2:]]
    refused = subprocess.run(other, capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and refused.stderr.startswith("entropy: expected floats")
    doubts = {name: float(x) for name, x in lines if not name.startswith("class")}
    wanted = {name: float(score(prediction).mean()) for name, score in SCORES.items()}
    assert doubts == pytest.approx(wanted, rel=1e-4)
