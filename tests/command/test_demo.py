"""``demo``, ``selftest`` and ``info``: what they print, and that their checks can fail."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import _dispatch, _reference
from fastsoftmax._command import cli, demo, selftest
from tests.oracles import Uniforms

pytestmark = pytest.mark.slow

ESCAPE = "\x1b"


def test_demo_data():
    data = demo.load()
    assert data.names == ["peaked", "middling", "flat"]
    assert data.logits.shape == (3, 49152)
    assert data.logits.dtype == np.float32
    p = _reference.softmax(data.logits.astype(float)).max(axis=-1)
    assert p[0] > 0.9 > 0.75 > p[1] > 0.6 > 0.2 > p[2]
    top = _reference.top_k(data.logits[1], 3).indices
    assert [data.token(i) for i in top] == ['" the"', '" a"', '" that"']
    assert data.prefixes[1].endswith("the next word is drawn from")
    unlikely = _reference.top_k(data.logits, 1, mode="smallest").indices[1, 0]
    assert data.token(unlikely) == f"#{unlikely}"


def test_demo_table(call):
    code, out, err = call("demo")
    assert (code, err) == (0, "")
    assert ESCAPE not in out
    assert max(map(len, out.splitlines())) <= 80
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith("  ")}
    assert lines["token"] == [
        "token",
        "score",
        "as",
        "scored",
        "T",
        "0.8",
        "top-k",
        "40",
        "top-p",
        "0.95",
        "min-p",
        "0.05",
        "drawn",
    ]
    assert lines["tokens"] == ["tokens", "left", "49152", "49152", "40", "3", "2", "20"]
    table = out[out.index("Before") :]
    the, that, this = (
        next(s for s in table.splitlines() if f'" {word}"' in s) for word in ("the", "that", "this")
    )
    assert the.split()[2:] == ["21.76", "70.5%", "84.0%", "84.3%", "86.7%", "90.3%", "16"]
    assert that.split()[-3:] == ["3.9%", "removed", "-"]
    assert this.split()[-4:] == ["0.5%", "removed", "-", "-"]
    checks = out[out.index("Checked") :].splitlines()[1:]
    assert len(checks) == 4
    assert all(line.startswith("  ok  ") for line in checks)


@pytest.mark.parametrize("row", ["peaked", "middling", "flat"])
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"temperature": 0},
        {"temperature": np.inf, "top_k": 5},
        {"temperature": 1.5, "top_k": 0, "top_p": 1, "min_p": 0.01},
        {"temperature": 1, "top_k": 0, "top_p": 0.9, "min_p": 0},
        {"temperature": 1.5, "top_k": 20, "top_p": 0.5, "min_p": 0},
        {"top_p": 0, "min_p": 1},
    ],
)
def test_demo_stages_are_what_sample_does(call, row, knobs):
    words = [w for n, v in knobs.items() for w in (f"--{n.replace('_', '-')}", v)]
    code, out, _ = call("demo", "--row", row, "--draws", 20, "--seed", 3, *words)
    assert code == 0, out
    data = demo.load()
    options = cli.build_parser().parse_args(["demo", *map(str, words)])
    row = data.logits[data.names.index(row)]
    order, made = demo.stages(row, options)
    left, p = made[-1].left, made[-1].probs
    assert p.sum() == pytest.approx(1)
    assert not p[left:].any()
    # In the reference the middle of a survivor's share of [0, 1) must draw that survivor.
    ids = np.sort(order[:left])
    ends = np.cumsum(p[np.argsort(order)][ids])
    for i in (0, len(ids) // 2, len(ids) - 1):
        u = ((ends[i - 1] if i else 0) + ends[i]) / 2
        drawn = _reference.sample(
            row,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            min_p=options.min_p,
            rng=Uniforms([u]),
        )
        assert drawn == ids[i]


def test_demo_draws_follow_the_seed(call):
    def drawn(seed):
        out = call("demo", "--row", "flat", "--seed", seed)[1]
        return out[out.index("Drawn") : out.index("Checked")].split("\n", 1)[1]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_demo_check_fails_on_wrong_probabilities(call, monkeypatch):
    right = fastsoftmax.softmax
    monkeypatch.setattr(
        fastsoftmax, "softmax", lambda x, *a, **k: right(x, *a, **k) * x.dtype.type(1 + 45 * 2**-24)
    )
    code, out, _ = call("demo")
    assert code == 1
    # The planted 45 u come on top of the kernel's own error, which is no part of the reference's.
    _, found, rest = out.partition("FAILED  probabilities: largest deviation ")
    assert found
    assert float(rest.split()[0]) >= 40
    assert out.count("FAILED") == 1


def test_demo_check_fails_on_wrong_ids(call, monkeypatch):
    monkeypatch.setattr(fastsoftmax, "sample", lambda logits, **_: np.full(len(logits), 7))
    code, out, _ = call("demo")
    assert code == 1
    assert "FAILED  sample: the first 20 ids agree" in out
    assert "FAILED  sample: all 20 ids are among the 2 tokens left" in out


def test_demo_check_fails_on_wrong_order(call, monkeypatch):
    right = fastsoftmax.top_k

    def swapped(x, k, **how):
        values, indices = right(x, k, **how)
        if x.ndim > 1:
            indices[:, [0, 1]] = indices[:, [1, 0]]
        return fastsoftmax.TopK(values, indices)

    monkeypatch.setattr(fastsoftmax, "top_k", swapped)
    code, out, _ = call("demo")
    assert code == 1
    assert "FAILED  top-k" in out


# ---- selftest and info ---------------------------------------------------------------------------


def test_selftest(call):
    code, out, err = call("selftest")
    assert (code, err) == (0, "")
    names = _dispatch.runnable()
    assert [line.split()[:2] for line in out.splitlines()] == [["ok", name] for name in names]
    for line in out.splitlines():
        share = line.partition("largest error ")[2].partition("% of the bound")[0]
        assert 0 < float(share) <= 100


def nonzero(p, x):
    return np.where(np.isneginf(x) & (p == 0), np.float32(1e-40), p)


def drifting(p, x):
    with np.errstate(invalid="ignore"):
        d = np.where(p > 0, x.max(axis=-1, keepdims=True) - x, 0)
        return (p * (1 + 3 * d.astype(float) * 2**-24)).astype(np.float32)


BROKEN = {
    "softmax off by 40 u": ("softmax", lambda right, x, **k: right(x, **k) * np.float32(1.0000024)),
    "softmax without NaN": ("softmax", lambda right, x, **k: np.nan_to_num(right(x, **k))),
    "softmax not 0 at -inf": ("softmax", lambda right, x, **k: nonzero(right(x, **k), x)),
    "softmax off by 3 |d| u": ("softmax", lambda right, x, **k: drifting(right(x, **k), x)),
    "log_softmax": ("log_softmax", lambda right, x, **k: right(x, **k) + np.float32(1e-5)),
    "logsumexp": ("logsumexp", lambda right, x, **k: right(x, **k) + np.float32(1e-4)),
    "top_k": (
        "top_k",
        lambda right, x, k, **h: fastsoftmax.TopK(*(a[..., ::-1] for a in right(x, k, **h))),
    ),
    "sample": ("sample", lambda right, x, **k: right(x, **k) % 40),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_selftest_fails_on_a_wrong_build(call, monkeypatch, fault):
    name, wrong = BROKEN[fault]
    functions = {
        n: getattr(_reference, n)
        for n in ("softmax", "log_softmax", "logsumexp", "top_k", "sample")
    }
    right, cases = functions[name], selftest.cases
    monkeypatch.setattr(selftest, "cases", lambda: itertools.islice(cases(), 40))  # sooner done
    functions[name] = lambda *a, **k: wrong(right, *a, **k)
    monkeypatch.setattr(_dispatch, "runnable", lambda: ("reference", "broken"))
    monkeypatch.setattr(
        _dispatch,
        "load",
        lambda which: _reference if which == "reference" else SimpleNamespace(**functions),
    )
    code, out, _ = call("selftest")
    assert code == 1
    good, bad = out.splitlines()
    assert good.startswith("ok  reference")
    assert bad.startswith("FAILED  broken")
    assert f"first: {name}" in bad


def test_the_bound_that_errors_are_a_share_of():
    """Without a fused multiply-add 1/T is rounded: that alone allows 3 |d|/T u more."""
    x, u = np.array([0.0, -40.0]), 2.0**-24
    want = np.array([1.0, 1e-20])
    got = (want * (1 + np.array([0, 2 * 40 / 0.5 * u]))).astype(np.float32)
    shares = [selftest.probability_error(got, want, x, 0.5, fused)[1] for fused in (False, True)]
    assert shares[0] == pytest.approx(160 / (4 + 3.1 * 80), rel=0.01)
    assert shares[1] == pytest.approx(160 / (4 + 0.1 * 80), rel=0.01)


def test_info(call, capsys):
    fastsoftmax.show_config()
    want = capsys.readouterr().out
    code, out, err = call("info")
    assert (code, out.startswith(want), err) == (0, True, "")
    code, out, err = call("info", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == fastsoftmax.show_config(mode="dicts")


def test_version(call):
    assert call("--version") == (0, f"fastsoftmax {fastsoftmax.__version__}\n", "")


def test_help_names_every_command(call):
    code, out, _ = call("--help")
    assert code == 0
    for command in ("demo", "softmax", "top-k", "sample", "info", "selftest"):
        assert command in out
        assert call(command, "--help")[0] == 0


def test_one_command_s_defaults_stay_its_own():
    parser = cli.build_parser()
    demo, sample = parser.parse_args(["demo"]), parser.parse_args(["sample", "x.npy"])
    assert (demo.temperature, demo.top_k, demo.draws) == (0.8, 40, 20)
    assert (sample.temperature, sample.top_k, sample.draws) == (1.0, None, 1)
