"""Nothing in a `.pt2` file runs when it is opened: files made to run code are refused before."""

import json
import re
import sys
import warnings
import zipfile

import pytest
import torch
import torch.nn.functional as F
from attacks import ATTACKS, MODEL
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
