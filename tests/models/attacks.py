"""Changes to an exported network that would make code run, or a reader work for ever.

Each changes the parsed `model.json`, or the members of the archive; what it would run makes a file.
"""

import copy
import io
import json
import pickle
import re
from pathlib import Path

import torch

MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"
CONSTANTS, SAMPLES = "data/constants/model_constants_config.json", "data/sample_inputs/model.pt"


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
