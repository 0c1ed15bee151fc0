"""The examples beside other libraries: real models of ONNX Runtime, torch and JAX.

pip install onnxruntime pillow; pip install --no-deps magika rapidocr-onnxruntime
pip install torch jax (the weekly ones)
"""

import sys

import numpy as np
import pytest

import fastsoftmax
from tests.examples.conftest import installed, module


def test_file_types(capsys):
    """magika's model names whole files, is too sure of fragments, and is not after the fit."""
    installed("onnxruntime", "magika")
    example = module("file_types")
    readme = example.Path(example.__file__).with_name("README.md")
    (_, before), (temperature, after) = example.main([str(readme), example.__file__]).items()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{readme}: markdown")
    assert lines[1].startswith(f"{example.__file__}: python 9")
    assert 1.2 < temperature < 6
    assert before[1] == after[1], "a temperature changes no order"
    assert before[0] - before[1] > 0.15, "confidence above what is right"
    assert abs(after[0] - after[1]) < min(0.2, before[0] - before[1])
    assert after[2] < 0.95 * before[2]


def test_scores_are_those_of_the_package():
    """The bytes go to the model as magika itself prepares them."""
    installed("onnxruntime", "magika")
    example = module("file_types")
    classifier = example.Classifier()
    path = example.Path(example.__file__)
    own = pytest.importorskip("magika").Magika().identify_path(path)
    (scores,) = classifier.scores([path.read_bytes()])
    assert classifier.names[int(scores.argmax())] == own.output.label
    assert np.exp(scores.max()) == pytest.approx(own.score, rel=1e-4)


def test_ocr(capsys):
    """A text that is drawn is read; what looks alike is said; what can't be there is left out."""
    installed("onnxruntime", "rapidocr_onnxruntime", "PIL")
    example = module("ocr")
    read = example.main(["total 100"])
    assert "".join(r.best for r in read).strip() == "total 100"
    assert all(0 < r.options[0][1] <= 1 for r in read)
    (unsure,) = [
        r for r in example.main(["total 1O0.5l"]) if r.best in "l1I" and r.options[0][1] < 0.9
    ]
    assert {"l", "1"} <= {character for character, _ in unsure.options}
    digits = example.main(["1O0.5l", "--allowed", "0123456789."])
    assert "".join(r.best for r in digits) == "100.51"
    assert "unsure: 'l'" in capsys.readouterr().out


@pytest.mark.weekly
@pytest.mark.filterwarnings("ignore")
def test_torch_tensors_share_memory():
    import torch

    example = module("torch_op")
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        tensor = torch.arange(6, dtype=dtype).reshape(2, 3)
        array = example.as_numpy(tensor)
        back = example.as_tensor(array)
        assert array.__array_interface__["data"][0] == tensor.data_ptr() == back.data_ptr()
        assert back.dtype is dtype
        assert back.tolist() == tensor.tolist()
    with pytest.raises(TypeError, match="its bits are x") as error:
        fastsoftmax.softmax(tensor)
    advice = str(error.value).rpartition("its bits are ")[2]
    seen = eval(advice, {"x": tensor, "torch": torch, "ml_dtypes": example.ml_dtypes})
    assert fastsoftmax.softmax(seen).dtype == example.ml_dtypes.bfloat16


@pytest.mark.weekly
@pytest.mark.filterwarnings("ignore")
def test_torch_operator(capsys):
    import torch

    example = module("torch_op")
    example.main()
    out = capsys.readouterr().out
    assert "gradients: True" in out
    assert out.count("SUCCESS") >= 4
    assert "FAIL" not in out.upper()
    x = torch.randn(4, 6, requires_grad=True)
    compiled = torch.compile(
        lambda x: example.softmax(x, 0, 0.5) * 2, fullgraph=True, backend="eager"
    )
    assert torch.allclose(compiled(x), torch.softmax(x / 0.5, 0) * 2)


@pytest.mark.weekly
@pytest.mark.filterwarnings("ignore")
def test_jax():
    figures = module("jax_call").main()
    assert len(figures) == 5
    assert all(figure < 2e-6 for figure in figures.values()), figures
    assert "jax" in sys.modules
