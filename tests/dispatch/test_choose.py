"""Which implementation runs, why, and that all of them are one library to the outside."""

import copy
import doctest
import inspect
import os
import pickle
import platform
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import _dispatch
from fastsoftmax._dispatch import isa as _isa
from tests.processes import PACKAGE, output, python

FUNCTIONS = _dispatch.load("reference").__all__
COMPILED = [name for name in _dispatch.NAMES if name != "reference"]
ASKED = os.environ.get("FASTSOFTMAX_IMPL")
not_asked = pytest.mark.skipif(ASKED == "reference", reason="FASTSOFTMAX_IMPL=reference")
SHOW = "import fastsoftmax; print(fastsoftmax.show_config(mode='dicts')['implementation'])"


@pytest.fixture(scope="module")
def pure(tmp_path_factory):
    """A copy of the package with nothing compiled in it; its bytecode stays for the next test."""
    package = tmp_path_factory.mktemp("pure") / "fastsoftmax"
    package.mkdir()
    for file in PACKAGE.rglob("*.py"):
        copy_of = package / file.relative_to(PACKAGE)
        copy_of.parent.mkdir(exist_ok=True)
        shutil.copy(file, copy_of)
    return package


@pytest.fixture(scope="module")
def fake(pure, tmp_path_factory):
    """A copy of the package in which all kernels are there, and say so when they are imported."""
    pure = shutil.copytree(pure, tmp_path_factory.mktemp("fake") / "fastsoftmax")
    for isa in _isa.ISAS:
        for kernel in _isa.KERNELS:
            (pure / "_kernels" / f"{kernel}_{isa.name}.py").write_text(
                f"print('{kernel}_{isa.name}')"
            )
    for module in _isa.FRONT:
        family = next((cls for m, cls, _ in _isa.FAMILIES if m == module), module.title())
        (pure / "_front" / f"{module}.py").write_text(
            "from .. import _reference\n"
            f"class {family}:\n"
            "    def __init__(self, name, *kernels):\n"
            "        self.NAME = name\n"
            "    def __getattr__(self, name):\n"
            "        return getattr(_reference, name)\n"
        )
    (pure / f"{_isa.SHARED}.py").write_text("")
    (pure / "_dispatch" / "cpu.py").write_text(
        "import os\ndef features():\n    return frozenset(os.environ['FEATURES'].split())\n"
    )
    return pure


def with_features(features, code, machine="x86_64"):
    """Return code that runs on a pretended machine."""
    return (
        f"import os, platform; os.environ['FEATURES'] = {' '.join(features)!r}; "
        f"platform.machine = lambda: {machine!r}\n{code}"
    )


# ---- what runs here ------------------------------------------------------------------------------


@not_asked
def test_the_compiled_implementation_is_under_test():
    config = fastsoftmax.show_config(mode="dicts")
    assert config["implementation"] == (ASKED or config["runnable"][-1])
    assert config["implementation"] != "reference"
    from fastsoftmax._front import softmax

    assert Path(softmax.__file__).parent == PACKAGE / "_front"
    assert not softmax.__file__.endswith(".py")


@not_asked
@pytest.mark.parametrize("name", [isa.name for isa in _isa.isas_for(platform.machine())])
def test_what_must_be_built_is_built(name):
    assert name in fastsoftmax.show_config(mode="dicts")["built"]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/cpuinfo")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86-64")
def test_features_are_those_the_kernel_reports():
    cpu = pytest.importorskip("fastsoftmax._dispatch.cpu")
    flags = set(re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.M)[1].split())
    names = {f for isa in _isa.ISAS for f in isa.features}
    assert cpu.features() == flags & names


def test_instruction_sets():
    names = [isa.name for isa in _isa.ISAS]
    assert len({*names, "reference"}) == len(names) + 1
    assert len({*_isa.KERNELS}) == len(_isa.KERNELS)
    assert names[0] == "baseline"
    assert not any(_isa.ISAS[0][1:4]), "needs nothing of machine, CPU or compiler"
    assert _dispatch.NAMES == ("reference", *names)
    for isa in _isa.ISAS:
        assert {f"-m{f}" for f in isa.features} <= {*isa.flags}
        assert all(m == m.lower() for m in isa.machines + isa.fused_multiply_add)
    assert [isa.name for isa in _isa.isas_for("riscv64")] == ["baseline"]
    assert [isa.name for isa in _isa.isas_for("AMD64")] == names


# ---- asking for one ------------------------------------------------------------------------------


COUNT = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import fastsoftmax
    fastsoftmax.softmax([1.0, 2.0])
    import fastsoftmax._dispatch
print(*(w.category.__name__ for w in caught))
print(fastsoftmax.show_config(mode="dicts")["implementation"])
"""


@pytest.mark.parametrize("name", _dispatch.NAMES)
def test_the_one_asked_for_is_used(name):
    if name not in _dispatch.runnable():
        pytest.skip("cannot run here")
    assert output(COUNT, impl=name) == [name], "and nothing warns"


def test_without_asking_the_best_one_is_used():
    best = _dispatch.runnable()[-1]
    if best == "reference":
        pytest.skip("nothing compiled")
    assert output(SHOW) == [best]
    assert output(SHOW, impl="") == [best]


def test_asking_for_an_unknown_one():
    result = python(SHOW, impl="avx3")
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError")
    assert "'avx3'" in last
    assert all(name in last for name in _dispatch.NAMES)


@pytest.mark.parametrize("name", COMPILED)
def test_asking_for_one_that_was_not_built(pure, name):
    if name not in [isa.name for isa in _isa.isas_for(platform.machine())]:
        pytest.skip("not of this machine")
    last = python(SHOW, impl=name, package=pure).stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError")
    assert f"'{name}'" in last
    assert "not built" in last


@pytest.mark.parametrize(
    ("features", "machine", "best"),
    [
        ([], "x86_64", "baseline"),
        (_isa.ISAS[1].features[:-1], "x86_64", "baseline"),
        (_isa.ISAS[1].features, "x86_64", "avx2"),
        (_isa.ISAS[2].features[:-1], "AMD64", "avx2"),
        (_isa.ISAS[2].features, "x86_64", "avx512"),
        (_isa.ISAS[2].features, "aarch64", "baseline"),
    ],
)
def test_the_best_one_that_can_run_is_loaded_and_no_other(fake, features, machine, best):
    got = output(with_features(features, SHOW, machine), package=fake)
    assert got[-1] == best
    at_once = {*_isa.KERNELS} - {"quantized"}  # fastsoftmax.quantized imports that
    assert sorted(got[:-1]) == sorted(f"{kernel}_{best}" for kernel in at_once)


@pytest.mark.parametrize(
    ("way", "machine", "features", "why"),
    [
        ("load", "x86_64", _isa.ISAS[1].features, "avx512f"),
        ("environment", "x86_64", _isa.ISAS[1].features, "avx512f"),
        ("environment", "x86_64", _isa.ISAS[2].features[:-1], _isa.ISAS[2].features[-1]),
        ("environment", "aarch64", _isa.ISAS[2].features, "machine is aarch64"),
    ],
)
def test_a_refused_one_is_not_even_imported(fake, machine, features, why, way):
    """Importing it could end the process. `SHOW` prints the modules that are imported."""
    load = "from fastsoftmax import _dispatch; _dispatch.load('avx512')"
    code, impl = (SHOW, "avx512") if way == "environment" else (load, "reference")
    result = python(with_features(features, code, machine), impl=impl, package=fake)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError")
    assert "'avx512'" in last
    assert why in last
    assert result.stdout == ""


@pytest.mark.parametrize("name", [n for n in COMPILED if n != "baseline"])
def test_a_built_one_is_refused_where_the_cpu_lacks_it(name):
    if name not in fastsoftmax.show_config(mode="dicts")["built"]:
        pytest.skip("not built")
    code = f"""
import sys
from fastsoftmax import _dispatch
from fastsoftmax._dispatch import cpu
cpu.features = frozenset
try:
    _dispatch.load({name!r})
except ImportError as error:
    assert "lacks" in str(error), error
    assert not [m for m in sys.modules if m.endswith("_{name}")]
    print("refused")
"""
    assert output(code, impl="reference") == ["refused"]


# ---- the reference as a fallback -----------------------------------------------------------------


def test_falling_back_to_the_reference_warns_once(pure):
    assert output(COUNT, package=pure) == ["RuntimeWarning", "reference"]


def test_the_package_works_uncompiled(pure):
    code = "import fastsoftmax as f; print(*f.top_k([1, 3, 2], 2).indices, f.sample([0, 99]))"
    assert output(code, impl="reference", package=pure) == ["1", "2", "1"]


def test_show_config(capsys):
    config = fastsoftmax.show_config(mode="dicts")
    assert config["implementation"] in config["runnable"]
    assert {*config["runnable"]} <= {"reference", *config["built"]}
    assert fastsoftmax.show_config() is None
    text = capsys.readouterr().out
    for word in (config["version"], config["why"], *config["built"], platform.machine()):
        assert word in text
    with pytest.raises(ValueError, match="'text', 'dicts'"):
        fastsoftmax.show_config(mode="json")


# ---- one library to the outside ------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures_and_docstrings_are_those_of_the_reference(impl, reference, name):
    function, twin = getattr(impl, name), getattr(reference, name)
    signature, want = inspect.signature(function), inspect.signature(twin)
    described = [(p.name, p.kind, p.default) for p in signature.parameters.values()]
    assert described == [(p.name, p.kind, p.default) for p in want.parameters.values()]
    assert function.__doc__ == twin.__doc__
    assert function.__name__ == name


def test_the_c_interface_says_that_it_was_not_built(pure):
    result = python("import fastsoftmax.capi", package=pure)
    assert "ImportError: fastsoftmax.capi needs compiled kernels" in result.stderr


def test_public_functions_are_those_of_the_chosen_one():
    for name in FUNCTIONS:
        assert getattr(fastsoftmax, name) == getattr(_dispatch.active, name)
        assert name in fastsoftmax.__all__
    assert sorted(fastsoftmax.__all__) == fastsoftmax.__all__
    assert all(hasattr(fastsoftmax, name) for name in fastsoftmax.__all__)


def run_examples(function, name):
    examples = doctest.DocTestParser().get_doctest(inspect.getdoc(function), {}, name, None, None)
    assert examples.examples, f"{name} shows no example"
    report = []
    assert doctest.DocTestRunner().run(examples, out=report.append).failed == 0, "".join(report)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_examples_of_the_functions(impl, name, monkeypatch):
    for each in FUNCTIONS:
        monkeypatch.setattr(fastsoftmax, each, getattr(impl, each))
    run_examples(getattr(impl, name), name)


def test_examples_of_the_rest():
    run_examples(fastsoftmax.show_config, "show_config")
    run_examples(fastsoftmax.set_workers, "set_workers")
    run_examples(fastsoftmax.get_workers, "get_workers")
    run_examples(pytest.importorskip("fastsoftmax._dispatch.cpu").features, "features")


def calls(impl):
    """Return what each function gives for the same few arrays."""
    x = np.random.default_rng(0).normal(size=(6, 700)).astype(np.float32)
    return [
        impl.softmax(x, temperature=0.7),
        impl.log_softmax(x.T, axis=0),
        impl.logsumexp(x),
        *impl.cross_entropy_with_grad(x, [0, 699, 3, -100, 5, 6], label_smoothing=0.1),
        impl.softmax_backward(x, impl.softmax(x)),
        *impl.top_k(x, 9),
        impl.sample(x, top_k=50, top_p=0.9, rng=1),
        impl.sample(x, top_p=0.9, rng=2),
        impl.filter_logits(x, top_p=0.9),
        *impl.support(x, min_p=0.1),
        impl.token_logprobs(x, range(6)),
        *impl.top_logprobs(x, 3),
        impl.rank(x, range(6)),
    ]


def same(a, b):
    return all(p.tobytes() == q.tobytes() for p, q in zip(a, b, strict=True))


def test_functions_can_be_pickled_and_copied(impl):
    x = np.arange(5.0)
    for function in (impl.softmax, impl.log_softmax, impl.logsumexp):
        for again in (pickle.loads(pickle.dumps(function)), copy.deepcopy(function)):
            assert again(x).tobytes() == function(x).tobytes()
            assert again.__name__ == function.__name__
    assert pickle.loads(pickle.dumps(impl.cross_entropy))(x, 4) == impl.cross_entropy(x, 4)
    assert pickle.loads(pickle.dumps(impl.top_k))(x, 2).indices.tolist() == [4, 3]
    assert pickle.loads(pickle.dumps(impl.sample))(x, temperature=0) == 4


def test_pickles_travel_to_another_process(impl):
    pickled = pickle.dumps((impl.softmax, impl.sample))
    code = f"import pickle; a, b = pickle.loads({pickled!r}); print(a([0.0, 0.0])[0], b([1.0]))"
    assert output(code, impl="reference") == ["0.5", "0"]


def test_eight_threads_at_once(impl):
    want = calls(impl)
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(calls, impl) for _ in range(8 if impl.NAME == "reference" else 80)]
        assert all(same(job.result(), want) for job in jobs)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_calls_after_a_fork(impl):
    code = f"""
import os, signal
from fastsoftmax import _dispatch
impl = _dispatch.load({impl.NAME!r})
x = [[0.5, 1.5, 2.5]] * 3
def work():
    p = impl.softmax(x), impl.top_k(x, 2).indices, impl.sample(x, rng=1)
    return b"".join(a.tobytes() for a in p)
before = work()
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if work() == before else 1)
assert os.waitpid(child, 0)[1] == 0
assert work() == before
print("same")
"""
    assert output(code, impl="reference") == ["same"]
