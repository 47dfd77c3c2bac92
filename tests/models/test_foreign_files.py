"""Files and folders of other run times: opened, or what they are and the way out."""

import json
import shutil
import warnings
import zipfile

import pytest
import torch
from torch import nn

from doubtmap.errors import ModelError, UsageError
from doubtmap.models import load

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network of five classes as an ONNX file, and the network."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 5, 1)).eval()
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    axes = {"x": [0, 2, 3]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter that needs no other library
        torch.onnx.export(
            network, (torch.rand(1, 3, 32, 48),), path, dynamo=False, opset_version=17,
            input_names=["x"], dynamic_axes=axes,
        )  # fmt: skip
    return path, network


@pytest.mark.parametrize(
    ("suffix", "what", "way"),
    [
        ("engine", "a TensorRT engine", "to ONNX"),
        ("plan", "a TensorRT engine", "to ONNX"),
        ("tflite", "a TensorFlow Lite file", "tf2onnx reads .tflite"),
        ("mlmodel", "a Core ML file", "to ONNX"),
        ("keras", "a Keras file", "format='onnx'"),
        ("hdf5", "a Keras or HDF5 file", "format='onnx'"),
        ("pb", "a TensorFlow graph", "tf2onnx"),
        ("ort", "an onnxruntime-only file", ".onnx file it was made from"),
        ("pte", "an ExecuTorch program", ".pt2 file"),
        ("gguf", "a file of weights in GGUF", "python:FILE.py:FUNCTION"),
        ("joblib", "a pickle, which runs any code", "state_dict"),
        ("safetensors", "a file of weights", "python:FILE.py:FUNCTION(weights=FILE)"),
        ("ckpt", "a checkpoint", "python:FILE.py:FUNCTION"),
        ("rknn", "compiled for a device", "to ONNX"),
        ("npz", "arrays", "saved:FOLDER"),
        ("py", "Python code", "python:FILE.py:FUNCTION"),
        ("unheard", "a file of a kind that is not known", "to ONNX"),
    ],
)
def test_files_that_are_not_opened_say_what_they_are_and_the_way(tmp_path, suffix, what, way):
    (path := tmp_path / f"net.{suffix}").write_bytes(b"\0abc" * 20)
    with pytest.raises(UsageError) as raised:
        load(path)
    assert f"{path}', {what}" in str(raised.value).replace('"', "'") and way in str(raised.value)
    with pytest.raises(UsageError, match="Check the path"):
        load(tmp_path / f"missing.{suffix}")


@pytest.mark.parametrize(
    ("files", "what", "way"),
    [
        ({"saved_model.pb": ""}, "a TensorFlow SavedModel", "tf2onnx"),
        ({"plans.json": "{}"}, "a folder of nnU-Net", "saved:FOLDER"),
        ({"dataset.json": "{}", "fold_0/x": ""}, "a folder of nnU-Net", "saved:FOLDER"),
        ({"s.py": "model = dict()\n", "i.pth": ""}, "mmsegmentation (s.py)", "init_model"),
        ({"adapter_config.json": "{}"}, "an adapter without its network", "merge_and_unload"),
        ({"config.json": "{}", "model.weights.h5": ""}, "a Keras file", "format='onnx'"),
        ({"config.json": "{}", "tf_model.h5": ""}, "the weights tf_model.h5", "from_tf=True"),
        ({"checkpoint-100/config.json": "{}"}, "networks inside", "checkpoint-100"),
        ({"best.pt": ""}, "the checkpoint best.pt only", "python:FILE.py:FUNCTION"),
        ({"notes.txt": ""}, "without config.json, with notes.txt in it", "Check the path"),
        ({"a.onnx": "", "b.onnx": ""}, "2 exported networks", "Pass one of them"),
    ],
)
def test_folders_that_are_not_opened_say_what_they_are_and_the_way(tmp_path, files, what, way):
    for name, content in files.items():
        (path := tmp_path / name).parent.mkdir(exist_ok=True)
        path.write_text(content)
    with pytest.raises(UsageError) as raised:
        load(tmp_path)
    assert what in str(raised.value) and way in str(raised.value)


def test_pickles_are_told_apart_without_being_opened(tmp_path):
    torch.save(nn.Conv2d(3, 4, 1), tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "yolo.pt", "w") as archive:
        archive.writestr("best/data.pkl", b"cultralytics.nn.tasks\nSegmentationModel")
    with pytest.raises(UsageError, match="a whole network, a pickle, which runs any code"):
        load(tmp_path / "whole.pt")
    with pytest.raises(UsageError, match=r"of Ultralytics, a pickle.*load\(YOLO\(FILE\)\)"):
        load(tmp_path / "yolo.pt")


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_folder_of_optimum_is_read_with_its_processor(tmp_path, exported, as_folder):
    path, network = exported
    (tmp_path / "onnx").mkdir()
    for name in ("model.onnx", "model_quantized.onnx"):
        shutil.copy(path, tmp_path / "onnx" / name)
    names = {str(number): f"class {number}" for number in range(5)}
    config = {"model_type": "segformer", "id2label": names}
    settings = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    settings |= {"size": {"height": 64, "width": 48}, "resample": 2}
    settings |= dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), True)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    segmenter = load(tmp_path if as_folder else tmp_path / "onnx" / "model.onnx")
    assert segmenter.class_names == tuple(names.values())
    image = torch.rand(1, 3, 64, 48)
    with torch.no_grad():
        expected = network((image - 0.5) / 0.25)
    torch.testing.assert_close(segmenter(image).native_logits, expected, atol=1e-4, rtol=1e-4)
    assert segmenter.description["input_size"] == [64, 48]


def test_a_processor_that_does_not_normalise_by_its_class_is_followed(tmp_path, exported):
    pytest.importorskip("transformers")
    shutil.copy(exported[0], tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "mobilevit"}')
    said = {"feature_extractor_type": "MobileViTFeatureExtractor", "do_resize": False}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    assert load(tmp_path).description["mean"] == [0, 0, 0]


@pytest.mark.parametrize("task", ["segment", "detect", "semantic"])
def test_onnx_files_of_ultralytics_by_their_task(tmp_path, exported, task):
    model = onnx.load(str(exported[0]))
    said = {
        "author": "Ultralytics",
        "task": task,
        "names": "{0: 'a', 1: 'b', 2: 'c', 3: 'd', 4: 'e'}",
    }
    for key, value in said.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, str(path := tmp_path / "yolo.onnx"))
    if task != "semantic":
        with pytest.raises(UsageError, match=f"one of Ultralytics for the task {task}"):
            load(path)
        return
    segmenter = load(path)
    assert segmenter.class_names == tuple("abcde")
    assert segmenter.description["mean"] == [0, 0, 0] and segmenter.description["std"] == [1, 1, 1]


class OnTokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 12, 4, 4), nn.Linear(12, 5)

    def forward(self, x):
        features = self.body(x).relu()
        batch, _, height, width = features.shape
        rows = features.flatten(2).transpose(1, 2)
        return self.head(rows).transpose(1, 2).reshape(batch, 5, height, width)


OPENVINO_NETWORKS = {
    "1x1": lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 5, 1)),
    "3x3": lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 5, 3, 1, 1)),
    "tokens": OnTokens,
}


@pytest.mark.parametrize("make", OPENVINO_NETWORKS.values(), ids=OPENVINO_NETWORKS)
@pytest.mark.parametrize("half", [False, True])
def test_openvino_networks_are_the_module_with_features(tmp_path, make, half):
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    torch.manual_seed(0)
    network, x = make().eval(), torch.rand(2, 3, 32, 48)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter that needs no other library
        torch.onnx.export(network, (x,), tmp_path / "n.onnx", dynamo=False, opset_version=17)
    model = openvino.Core().read_model(str(tmp_path / "n.onnx"))
    openvino.save_model(model, str(tmp_path / "n.xml"), compress_to_fp16=half)
    (tmp_path / "n.onnx").unlink()
    plain = {"mean": (0, 0, 0), "std": (1, 1, 1)}
    ours, own = load(tmp_path, **plain)(x), load(network, **plain)(x)
    close = {"atol": 2e-3 if half else 1e-5, "rtol": 1e-3 if half else 1e-5}
    torch.testing.assert_close(ours.native_logits, own.native_logits, **close)
    torch.testing.assert_close(ours.features, own.features, **close)
    assert ours.window == own.window


def test_openvino_files_that_cannot_be_read(tmp_path):
    pytest.importorskip("openvino", reason="openvino is not installed")
    (tmp_path / "n.xml").write_text("<net/>")
    with pytest.raises(ModelError, match=r"expected weights beside it, in n\.bin"):
        load(tmp_path / "n.xml")
    (tmp_path / "n.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="but it cannot be read"):
        load(tmp_path / "n.xml")
    with pytest.raises(UsageError, match=r"the weights of an OpenVINO network\. Pass .*n\.xml"):
        load(tmp_path / "n.bin")
