"""Nothing in a `.pt2` file runs when it is opened: files made to run code are refused before."""

import copy
import io
import json
import pickle
import re
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.export import Dim

from doubtmap.errors import ModelError
from doubtmap.files import archives
from doubtmap.files.expressions import Refused, check_guard, check_size
from doubtmap.models import exported as exported_room
from doubtmap.models import load

VERSION = ".".join(torch.__version__.split(".")[:2])
pytestmark = pytest.mark.skipif(
    VERSION not in archives.TRIED, reason="attacks are made for the versions that are tried"
)
MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"
CONSTANTS, SAMPLES = "data/constants/model_constants_config.json", "data/sample_inputs/model.pt"


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3, padding="same"), nn.Conv2d(4, 5, 1)

    def forward(self, x):
        y = self.head(F.gelu(self.body(F.max_pool2d(x, 2)), approximate="tanh"))
        return {"out": F.interpolate(y, size=x.shape[-2:], mode="bilinear")}


def exported(network, shapes, path, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            network.eval(), (torch.rand(2, 3, 16, 24),), dynamic_shapes=shapes
        )
        torch.export.save(program, path, **more)


@pytest.fixture(scope="module")
def genuine(tmp_path_factory):
    path = tmp_path_factory.mktemp("genuine") / "network.pt2"
    exported(Network(), ({2: Dim.DYNAMIC, 3: Dim.DYNAMIC},), path)
    return path


@pytest.fixture(scope="module")
def members(genuine):
    with zipfile.ZipFile(genuine) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def written(path, members, compression=zipfile.ZIP_STORED, root="network/"):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(root + name, data)


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (Path(self.target),)


def target_of(payload):
    return re.search(r"'([^']+bad)'", payload)[1]


def sized(text):
    """An attack by the expression of a size; `$` stands for Python that makes the file."""

    def change(model, _, payload):
        meta = model["graph_module"]["graph"]
        symbol = next(v for v in meta["sym_int_values"].values() if "as_expr" in v)
        symbol["as_expr"]["expr_str"] = text.replace("$", payload)

    return change


def first_node(model):
    return model["graph_module"]["graph"]["nodes"][0]


def called(target):
    """An attack by a node that calls a function of Python's."""

    def change(model, _, payload):
        node = copy.deepcopy(first_node(model))
        argument = {"name": "", "arg": {"as_string": f"touch {target_of(payload)}"}, "kind": 1}
        node |= {"target": target, "inputs": [argument], "outputs": [], "name": "bad"}
        model["graph_module"]["graph"]["nodes"].insert(0, node)

    return change


def guarded(text):
    def change(model, _, payload):
        model["guards_code"] = [text.replace("$", payload)]

    return change


def named(model, _, payload):
    """A name that ends the line of source that it is written into."""
    text, old = json.dumps(model), model["graph_module"]["graph"]["outputs"][0]["as_tensor"]["name"]
    name = json.dumps(f"{old} = 0; {payload}; z")
    model.update(json.loads(text.replace(json.dumps(old), name)))


def keyworded(model, _, payload):
    signature = model["graph_module"]["module_call_graph"][0]["signature"]
    signature["forward_arg_names"] = [f"x={payload}"]


def parameter(model, members, payload):
    old, new = '"body.weight"', json.dumps(f'body."+str({payload})+"')
    model.update(json.loads(json.dumps(model).replace(old, new)))
    members[WEIGHTS] = members[WEIGHTS].replace(old.encode(), new.encode())


def tree(kind, context):
    def change(model, _, payload):
        leaf = {"type": None, "context": None, "children_spec": []}
        spec = {"type": kind, "context": context, "children_spec": [leaf]}
        model["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = json.dumps(
            [1, spec]
        )

    return change


def keyed(model, _, payload):
    signature = model["graph_module"]["module_call_graph"][0]["signature"]
    signature["in_spec"] = signature["in_spec"].replace('"[]"', json.dumps(f'["a\': {payload}"]'))


def pickled(place):
    def change(model, members, payload):
        meta = {"path_name": place, "is_param": False, "use_pickle": True, "tensor_meta": None}
        folder = "constants" if place.startswith(("custom", "opaque", "tensor")) else "weights"
        config = CONSTANTS if folder == "constants" else WEIGHTS
        members[config] = json.dumps({"config": {"bad": meta}}).encode()
        data = io.BytesIO()
        torch.save({"x": Touch(target_of(payload))}, data)
        opaque = place.startswith("opaque")
        members[f"data/{folder}/{place}"] = (
            pickle.dumps(Touch(target_of(payload))) if opaque else data.getvalue()
        )

    return change


def sampled(legacy):
    def change(model, members, payload):
        data = io.BytesIO()
        torch.save(
            {"x": Touch(target_of(payload))}, data, _use_new_zipfile_serialization=not legacy
        )
        members[SAMPLES] = data.getvalue()

    return change


def other(name):
    def change(model, members, payload):
        members[name] = pickle.dumps(Touch(target_of(payload)))

    return change


def typed(model, _, payload):
    """A hint that is no number is evaluated as an expression, too."""
    values = model["graph_module"]["graph"]["sym_int_values"].values()
    next(v for v in values if "as_expr" in v)["as_expr"]["hint"] = {"as_int": payload}


def side(model, _, payload):
    values = model["graph_module"]["graph"]["tensor_values"].values()
    next(iter(values))["sizes"][0] = {"as_expr": {"expr_str": payload}}


def ranged(model, _, payload):
    model["range_constraints"] = {payload: {"min_val": 1, "max_val": 9}}


def counted(model, _, payload):
    model["range_constraints"] = {"u99999999999": {"min_val": 1, "max_val": 9}}


def function_of(model, _, payload):
    first_node(model)["metadata"]["source_fn_stack"] = f"a,torch.{payload}"


def huge_weight(model, members, payload):
    config = json.loads(members[WEIGHTS])
    next(iter(config["config"].values()))["tensor_meta"]["sizes"] = [{"as_int": 1 << 50}]
    members[WEIGHTS] = json.dumps(config).encode()
    members["data/weights/weight_0"] = b""


def object_of_classes(model, _, payload):
    model["graph_module"]["graph"]["custom_obj_values"] = {
        "x": {"name": "x", "class_fqn": "__torch__.torch.classes.x"}
    }


def deep(model, members, payload):
    members[MODEL] = b"[" * 200_000


ATTACKS = {
    "import": sized("$"),
    "in a symbol": sized("Symbol('s0', positive=$)"),
    "as a symbol's name": sized("Symbol($)"),
    "in a call": sized("Max(Integer(1), Add(Integer(2), $))"),
    "lambda": sized("(lambda: $)()"),
    "dunder": sized("().__class__.__base__.__subclasses__()"),
    "attribute of a symbol": sized("Symbol('s0').func.__globals__"),
    "exec": sized('exec("$")'),
    "eval": sized('eval("$")'),
    "sympify inside": sized('sympify("$")'),
    "lambdify": sized('lambdify([], "$")()'),
    "comprehension": sized("[$ for _ in [1]]"),
    "walrus": sized("(a := $)"),
    "conditional": sized("$ if 1 else 2"),
    "format": sized("f'{$}'"),
    "subscript": sized("[$][0]"),
    "unicode": sized("\uff45val('1')"),
    "comment": sized("Integer(1) # $"),
    "line": sized("Integer(1)\n$"),
    "starred": sized("Max(*[$])"),
    "keyword of a call": sized("Max(1, 2, evaluate=$)"),
    "power": sized("Pow(Integer(10), Pow(Integer(10), Integer(10)))"),
    "powers": sized("((((((9**60)**60)**60)**60)**60)**60)"),
    "shift": sized("LShift(Integer(1), Symbol('s0', integer=True))"),
    "digits": sized("Float('1.0', precision=1000000000)"),
    "factorial": sized("factorial(Integer(100000000))"),
    "nested": sized("(" * 400 + "1" + ")" * 400),
    "long": sized("+".join(["s0"] * 40_000)),
    "size": side,
    "hint": typed,
    "range": ranged,
    "counter": counted,
    "os.system": called("torch.os.system"),
    "hub": called("torch.hub.load"),
    "library": called("torch.ops.load_library"),
    "builtins": called("torch.functional.__builtins__.exec"),
    "methodcaller": called("_operator.methodcaller"),
    "file operator": called("torch.ops.aten.from_file.default"),
    "save": called("torch.ops.aten.save.default"),
    "foreign operator": called("torch.ops.inductor._alloc_from_pool.default"),
    "extension": called("#bad:x"),
    "higher order": called("torch.ops.higher_order.call_torchbind"),
    "guard": guarded("$ is None"),
    "guard of an attribute": guarded("L['x'].__class__ == 1"),
    "guard of torch": guarded("torch.os.system('x') == 0"),
    "guard with a comment": guarded("L['x'].size()[0] == 1) # "),
    "guard with a quote": guarded("L['x\"']"),
    "guard with a line": guarded("1 == 1\n"),
    "name": named,
    "argument": keyworded,
    "parameter": parameter,
    "key": keyed,
    "default": tree(
        "collections.defaultdict",
        {"default_factory_module": "bad_module", "default_factory_name": "x", "dict_context": []},
    ),
    "enum": tree(
        "builtins.dict", json.dumps([{"__enum__": True, "fqn": "bad_module:A", "name": "B"}])
    ),
    "function": function_of,
    "pickled weight": pickled("weight_0"),
    "pickled constant": pickled("tensor_0"),
    "opaque": pickled("opaque_obj_0"),
    "custom object": pickled("custom_obj_0"),
    "class": object_of_classes,
    "samples": sampled(legacy=False),
    "old samples": sampled(legacy=True),
    "old weights": other("data/weights/model.pt"),
    "old constants": other("data/constants/model.pt"),
    "another program": other("models/other.json"),
    "library member": other("data/aotinductor/model/model.so"),
    "path": other("../../../bad"),
    "rooted path": other("/bad"),
    "weight without numbers": huge_weight,
    "depth": deep,
}
assert len(ATTACKS) > 60
RUN = ("import", "in a call", "guard", "opaque", "enum")
"""Attacks that are shown to work on PyTorch's reader, lest the others be thought harmless."""


def attacked(name, members, folder):
    target = folder / "bad"
    (folder / "bad_module.py").write_text(f"import pathlib\npathlib.Path({str(target)!r}).touch()")
    payload = f"__import__('pathlib').Path('{target}').touch()"
    changed = dict(members)
    model = json.loads(members[MODEL])
    before = json.dumps(model)
    ATTACKS[name](model, changed, payload)
    if json.dumps(model) != before:
        changed[MODEL] = json.dumps(model).encode()
    assert changed != members
    path = folder / "network.pt2"
    written(path, changed)
    return path, target


def sentence(path):
    with pytest.raises(ModelError) as refused:
        load(path)(torch.rand(1, 3, 16, 24))
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 900
    return str(refused.value)


@pytest.mark.parametrize("name", ATTACKS)
def test_no_attack_runs(name, members, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    path, target = attacked(name, members, tmp_path)
    assert "expected" in sentence(path)
    assert not target.exists() and "bad_module" not in sys.modules


@pytest.mark.parametrize("name", RUN)
def test_attacks_are_real(name, members, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    path, target = attacked(name, members, tmp_path)
    try:
        load(path, trust=True)(torch.rand(1, 3, 16, 24))
    except ModelError:
        pass  # after it has run
    finally:
        sys.modules.pop("bad_module", None)
    assert target.exists()


class Branching(Network):
    def forward(self, x):
        with torch.no_grad():
            y = self.body(x)
        y = torch.cond(y.sum() > 0, lambda y: y + 1, lambda y: y - 1, (y,))
        return self.head(y)


class Counting(Network):
    """With buffers and weights whose names are no identifiers, and a constant."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.inner = nn.ModuleDict({"a-b/c": nn.Conv2d(5, 5, 1)})

    def forward(self, x):
        self.calls.add_(1)
        h, w = x.shape[-2:]
        x = F.pad(x, (0, -w % 8, 0, -h % 8))
        y = self.inner["a-b/c"](self.head(self.body(x))) * torch.tensor([2.0])
        return y[..., :h, :w]


GENUINE = {
    "derived": (Network, {0: Dim("n", max=9), 2: 2 * Dim("h", max=64), 3: 4 * Dim("w", max=9) + 8}),
    "padded": (Counting, {2: Dim.AUTO, 3: Dim.AUTO}),
    "branches": (Branching, None),
}


@pytest.mark.parametrize("kind", GENUINE)
def test_real_exports_open(kind, tmp_path):
    network, shapes = GENUINE[kind]
    network, path, images = network(), tmp_path / "network.pt2", torch.rand(2, 3, 16, 24)
    exported(network, shapes and (shapes,), path, extra_files={"classes.txt": "a, b"})
    archives.check_archive(path)
    expected = load(network, mean=(0, 0, 0), std=(1, 1, 1))(images).logits
    got = load(path, mean=(0, 0, 0), std=(1, 1, 1))(images).logits
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


def test_half_precision_opens(tmp_path):
    path = tmp_path / "half.pt2"
    torch.export.save(torch.export.export(Network().half(), (torch.rand(1, 3, 8, 8).half(),)), path)
    archives.check_archive(path)


def test_compressed_and_doubled_members_are_refused(members, tmp_path):
    path = tmp_path / "network.pt2"
    written(path, members, zipfile.ZIP_DEFLATED)
    assert "a compressed member" in sentence(path)
    written(path, members)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(f"network/{MODEL}", members[MODEL])
    assert "two members of one name" in sentence(path)
    written(path, members)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("version", "8.8")  # what leads the reader to its older format
    assert "the member 'version'" in sentence(path)


def test_another_pytorch_needs_trust(genuine, monkeypatch):
    monkeypatch.setattr(archives, "TRIED", ("1.0",))
    assert re.search(r"expected PyTorch 1\.0.*got 2.*Pass --trust", sentence(genuine))
    assert load(genuine, trust=True)(torch.rand(1, 3, 16, 24)).logits.shape[1] == 5


def test_the_command_line_trusts_where_it_is_told_to(genuine, run, monkeypatch):
    monkeypatch.setattr(archives, "TRIED", ("1.0",))
    code, _, err = run("info", genuine)
    assert code == 1 and "Pass --trust" in err
    code, out, _ = run("info", genuine, "--trust")
    assert code == 0 and "network.pt2" in out


def test_outputs_of_transformers_are_made_known(genuine, members, tmp_path, monkeypatch):
    asked = []

    def missing(name):
        asked.append(name)
        raise ImportError(name)

    monkeypatch.setattr(exported_room.importlib, "import_module", missing)
    exported_room._register_outputs(genuine)
    assert not asked
    text = members[MODEL].replace(b"builtins.dict", b"transformers.modeling_outputs.X")
    written(tmp_path / "network.pt2", members | {MODEL: text})
    assert "Install with pip install" in sentence(tmp_path / "network.pt2")
    assert asked == ["transformers.modeling_outputs"]


SIZES = (
    "Symbol('s0', positive=True, integer=True)",
    "Mul(Integer(-8), FloorDiv(Symbol('s0', integer=True), Integer(8)))",
    "PowByNatural(Symbol('s0', integer=True), Integer(2))",
    "Max(Integer(1), Pow(Symbol('s1', integer=True), Rational(1, 2)), Float('0.5', precision=53))",
    "8*s64 + 8",
    "s0**2 // 4 - (-3)",
    "GreaterThan(Symbol('u0', integer=True), Integer(0))",
)
GUARDS = (
    "L['x'].size()[2] % 8 == 0",
    "max(1, L['x'].size()[3] // 8)*L['x'].size()[0] <= 512 or L['x'].size()[3] != 3",
    "L['flat_args'][0].size()[2] + ((-1)*L['flat_args'][0].size()[2]) % 8 >= 16",
    "math.floor(L['x']['k'].stride()[1] / 2.5) < torch.sym_max(2, 3) ** 2",
    "not (L['x'].size()[0] == 1)",
)


@pytest.mark.parametrize("text", SIZES)
def test_sizes_of_networks_are_arithmetic(text):
    check_size(text)
    with pytest.raises(Refused):
        check_guard(f"{text}, __import__('os')")


@pytest.mark.parametrize("text", GUARDS)
def test_guards_of_networks_are_comparisons(text):
    check_guard(text)
    for worse in (text.replace("8", "open('x')"), text.replace("L", "M"), f"{text} @ 2"):
        if worse != text:
            with pytest.raises(Refused):
                check_guard(worse)
