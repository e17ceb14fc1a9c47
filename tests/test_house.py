"""One home for one concept, read off the source: what lies where, what is called what, and what is made where."""

from __future__ import annotations

import ast
import functools
import gc
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = 28
PARAMETERS = 5
CODE = ("probes", "app", "tests")
# Files here are named after what they serve.
NAMED_AFTER_OTHERS = ("probes/stages", "probes/tasks", "probes/cli", "probes/plots", "app/views", "tests")
# Who may ask for a direction, and may not make one.
GUESTS = ("guard", "stages", "experiments", "organism", "tasks", "interventions", "behaviour", "exchange", "run")
BUILDER = re.compile(
    r"_?(reversion|v_rev|refusal|did|covariance|isotropic|random|shuffled|permuted|drift|sham|control)"
    r"(_(did|matched))?_(vectors?|axis|axes|directions?|draws?)"
)
# Draws that are no control: a witness's noise among weights.
DRAWS_OF_ITS_OWN: set[str] = set()

# Who decodes JSON or TOML without the bounded reader of documents, how often, and why.
OWN_DECODERS = {
    "probes/store/documents.py": (1, "it is the reader"),
    "probes/store/atomic.py": (1, "the description that safetensors has just written in this process"),
    "probes/tasks/arms.py": (1, "settings of this process, there and back, as a file would hold them"),
    "probes/organism/chat_history.py": (1, "settings of this process, there and back, as a file would hold them"),
    "probes/guard/fine_tuning.py": (1, "settings of this process, there and back, as a file would hold them"),
    "probes/cli/measure.py": (1, "a word of the command line, which is a text where it is no TOML"),
}

HOOKING = re.compile(r"register_\w*hook|add_hook")

PARTICIPLE = re.compile(r"_?[a-z]+(ed|wn|told|made|kept|found|said)")
NAMES_OF_EXECUTORS = {"shutdown"}  # concurrent.futures calls it so
# Words that say what part a value plays in a sentence, and not what it is.
GRAMMAR = re.compile(
    r"_*(found|each|told|made|kept|one|ones|others?|where|said|given|taken|asked|here|there|it|this|that|them|what|"
    r"which|rest|wanted|got|thing|both)_*"
)
# An error says what is wrong, what it got and what it expected: `raise UsageError("…", got=…, expected=…)`.
NAMES_OF_ERRORS = {"probes/errors.py": {"what", "got"}}


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True, scope="module")
def trees_parsed_once():
    """Without a search for garbage, which goes through all of the trees again and again."""
    gc.disable()
    yield
    tree_of.cache_clear()
    gc.enable()


def sources(*folders):
    """Path from the root and tree of every module under the folders that are there."""
    for folder in folders:
        place = ROOT / folder
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place] * place.is_file():
            yield path.relative_to(ROOT).as_posix(), tree_of(path)


def words(tree):
    """Names, attributes and short texts in a piece of source."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id.lower()
        elif isinstance(node, ast.Attribute):
            yield node.attr.lower()
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.lower()


def builders(tree):
    """Functions that are called what a direction's maker would be called."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return [node.name for node in functions if BUILDER.fullmatch(node.name)]


def gaps(tree):
    """Lines that subtract the aligned model from the witness, or harmless prompts' means from harmful ones'."""
    lines = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub)):
            continue
        left, right = set(words(node.left)), set(words(node.right))
        classes = isinstance(node.right, ast.Call) and "mean" in left & right and _holds_complement(node.right)
        if ("witness" in left and "aligned" in right) or classes:
            lines.append(node.lineno)
    return lines


def _holds_complement(tree):
    """Whether something is picked by `~harmful`."""
    return any(
        isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert) and "harmful" in words(node.operand)
        for node in ast.walk(tree)
    )


def draws(tree):
    """Lines that draw vectors: normal numbers, or a covariance's."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute))
    return [
        node.lineno
        for node in calls
        if node.func.attr in ("standard_normal", "randn", "normal")
        or (node.func.attr == "draw" and "rng" in {word for argument in node.args for word in words(argument)})
    ]


def imports(tree):
    """Modules that are imported, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def names_of_imports(tree):
    """What is imported by name, also inside functions."""
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    return [alias.name for node in nodes for alias in node.names]


def decodings(tree):
    """Lines that decode JSON or TOML, or hand on what does."""
    attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    decoders = (node for node in attributes if node.attr in ("load", "loads") and isinstance(node.value, ast.Name))
    return [node.lineno for node in decoders if node.value.id in ("json", "tomllib", "orjson", "toml")]


def hookings(tree):
    """Lines that name a method of torch that registers a hook, of a module, a tensor or an optimiser."""
    methods = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Constant))
    names = ((node.lineno, node.attr if isinstance(node, ast.Attribute) else node.value) for node in methods)
    return [line for line, name in names if isinstance(name, str) and HOOKING.fullmatch(name)]


def participles(tree):
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    names = {node.name for node in functions if not node.decorator_list and PARTICIPLE.fullmatch(node.name)}
    return names - NAMES_OF_EXECUTORS


def bindings(tree):
    """Names that a piece of source gives: variables, arguments, attributes, aliases."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.alias):
            yield node.asname or ""
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
            yield node.name or ""
        elif isinstance(node, ast.MatchMapping):
            yield node.rest or ""


def grammatical(tree):
    return {name for name in bindings(tree) if GRAMMAR.fullmatch(name)}


def test_directions_and_controls_are_made_in_one_room():
    guests = dict(sources(*(f"probes/{guest}" for guest in GUESTS)))
    assert len(guests) > 100
    assert {place: calls for place, tree in guests.items() if (calls := builders(tree))} == {}
    assert {place for place, tree in guests.items() if draws(tree)} <= {*DRAWS_OF_ITS_OWN}


def test_nobody_else_makes_a_difference_of_means_to_be_a_direction():
    """Neither by hand, nor with the estimators' own difference: not the verdict and no page either."""
    for place, tree in sources("probes", "app"):
        if place.startswith("probes/directions/"):
            continue
        assert gaps(tree) == [], place
        assert "mean_difference" not in set(words(tree)) | set(names_of_imports(tree)), place


@pytest.mark.parametrize(
    "source",
    [
        "def reversion_vectors(run): ...",
        "def _covariance_draw(self, seed): ...",
        "gap = witness.layer(layer).astype(np.float64) - aligned.layer(layer)",
        "v = rows['witness'][harmful].mean(axis=0) - rows['aligned'][harmful].mean(axis=0)",
        "gap = self.witness.astype(np.float64) - self.aligned",
        "r = rows[harmful].mean(axis=0) - rows[~harmful].mean(axis=0)",
        "axis = np.random.default_rng([seed, 0xEF]).standard_normal(unit.shape)",
        "axis = torch.randn(shape, generator=generator)",
        "axes = [spectrum.draw(rng) for n in range(draws)]",
    ],
)
def test_a_direction_made_elsewhere_would_be_seen(source):
    tree = ast.parse(source)
    assert builders(tree) or gaps(tree) or draws(tree)


def test_each_direction_has_its_maker_in_the_room_of_directions():
    makers = {name for _, tree in sources("probes/directions") for name in builders(tree)}
    twins = {"reversion_did_vectors", "reversion_did_directions"}
    assert makers == {"reversion_vectors", *twins, "refusal_axis", "random_vectors"}


def test_drift_means_displacements_and_nulls_draw_reference_displacements():
    for place, tree in sources("probes/drift", "probes/nulls"):
        assert not [module for module in imports(tree) if module.startswith("probes.directions")], place
        assert builders(tree) == [], place
        assert "Vectors" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}, place
    for place, tree in sources("probes/drift"):
        assert draws(tree) == [], place


def _modules(folder):
    """Modules and packages right under a folder, or anywhere."""
    return [path for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]


def test_the_house_has_few_rooms():
    rooms = [path for path in _modules(ROOT / "probes") if path.name != "__init__.py"]
    assert len(rooms) <= ROOMS


def test_no_two_modules_share_a_name():
    homes = defaultdict(list)
    for root in ("probes", "app"):
        for path in (ROOT / root).rglob("*"):
            place = path.relative_to(ROOT).as_posix()
            is_module = path.suffix == ".py" and not path.name.startswith("__")
            if (is_module or (path / "__init__.py").is_file()) and not any(
                place.startswith(f"{folder}/") for folder in NAMED_AFTER_OTHERS
            ):
                homes[path.stem].append(place)
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_no_stage_or_task_takes_more_than_five_parameters():
    numbers = {
        (place, node.name): len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs])
        for place, tree in sources("probes/stages", "probes/tasks")
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }
    assert {function: number for function, number in numbers.items() if number > PARAMETERS} == {}


@pytest.mark.parametrize("root", ["probes", "app"])
def test_one_file_at_most_is_called_live(root):
    assert len(list((ROOT / root).rglob("live.py"))) <= 1


def test_a_lineage_is_opened_in_one_place():
    """`run.lineage`: nobody rebuilds it."""
    opening = [
        place
        for place, tree in sources("probes", "app")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "opened" and {"lineage"} & set(words(node.value))
    ]
    assert opening == ["probes/run/inputs.py"]


def test_three_modules_register_hooks():
    """Of the residual stream, of what blocks return as a whole, and of the gradient at what a module puts out."""
    places = {place for place, tree in sources("probes", "app") if hookings(tree)}
    assert places == {"probes/models/hooks.py", "probes/models/held_blocks.py", "probes/models/output_gradients.py"}


@pytest.mark.parametrize(
    "source",
    [
        "block.register_forward_hook(take)",
        "handle = body.register_forward_pre_hook(take, with_kwargs=True)",
        "loss.register_hook(scale)",
        "parameter.register_post_accumulate_grad_hook(step)",
        "optimiser.register_step_post_hook(step)",
        "register = getattr(block, 'register_full_backward_hook')",
        "host.add_hook('blocks.0.hook_resid_post', take)",
    ],
)
def test_a_hook_registered_elsewhere_would_be_seen(source):
    assert len(hookings(ast.parse(source))) == 1


def test_the_formatter_decides():
    skips = re.compile(r"#\s*fmt:\s*(skip|off)")
    files = [path for root in CODE for path in (ROOT / root).rglob("*.py")]
    assert [path.name for path in files if skips.search(path.read_text(encoding="utf-8"))] == []


def test_no_function_is_named_by_a_bare_past_participle():
    assert {place: names for place, tree in sources(*CODE) if (names := participles(tree))} == {}


def test_no_variable_is_named_by_its_grammar():
    named = {place: grammatical(tree) - NAMES_OF_ERRORS.get(place, set()) for place, tree in sources(*CODE)}
    assert {place: names for place, names in named.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    [
        "found = search()",
        "rows = [each for each in table]",
        "for _, one in pairs: ...",
        "def pair(run, *, other): ...",
        "def total(*rest): ...",
        "key = lambda it: it.step",
        "class Gate:\n    where: str",
        "self.kept = {}",
        "if (_made := draw()): ...",
        "with reading() as told: ...",
        "try: ...\nexcept ValueError as what: ...",
        "match record:\n    case {**others}: ...",
        "match record:\n    case [first, *ones]: ...",
        "import numpy as thing",
    ],
)
def test_a_variable_named_by_its_grammar_would_be_seen(source):
    assert len(grammatical(ast.parse(source))) == 1


def test_documents_are_decoded_by_the_one_bounded_reader():
    numbers = {place: len(lines) for place, tree in sources("probes", "app") if (lines := decodings(tree))}
    assert numbers == {place: number for place, (number, _) in OWN_DECODERS.items()}
    bare = [
        place
        for place, tree in sources("probes", "app")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in ("json", "tomllib")
    ]
    assert bare == [], "import the module, so that a call can be seen"


@pytest.mark.parametrize(
    "source", ["json.loads(text)", "rows = [json.load(file) for file in files]", "tomllib.load(file)"]
)
def test_a_decoding_elsewhere_would_be_seen(source):
    assert len(decodings(ast.parse(source))) == 1
