"""What kind of file is this, and how sure is the classifier? A model in ONNX Runtime, calibrated.

magika's model knows 214 types by the first and the last bytes of a file. It returns probabilities;
their logarithms are scores, as good as those before its softmax. Of whole files it is nearly always
right. Here it sees fragments, for which nobody trained it: the temperature says how much of its
confidence is left, fitted on half of the files and held against the other half::

    pip install fastsoftmax onnxruntime
    pip install --no-deps magika
    python examples/file_types.py README.md setup.py
"""

import argparse
import importlib.util
import json
import sysconfig
from pathlib import Path

import numpy as np
import onnxruntime

from fastsoftmax import cross_entropy, softmax, top_k

#: Types of files that any Python installation has, by their suffix.
SUFFIXES = {".py": "python", ".h": "c", ".md": "markdown", ".toml": "toml", ".txt": "txt"}
SUFFIXES |= {".html": "html", ".js": "javascript", ".css": "css", ".json": "json", ".rst": "rst"}
SUFFIXES |= {".svg": "svg", ".png": "png", ".so": "elf", ".csv": "csv", ".xml": "xml"}
FOR_EACH = 40
FRAGMENT = 200  # bytes


class Classifier:
    """The model that magika's wheel holds."""

    def __init__(self):
        wheel = importlib.util.find_spec("magika")
        if wheel is None:
            raise SystemExit("magika is not installed: pip install --no-deps magika")
        (model,) = Path(wheel.origin).parent.glob("models/*/model.onnx")
        settings = json.loads((model.parent / "config.min.json").read_text())
        self.names = settings["target_labels_space"]
        self.ends = settings["beg_size"], settings["end_size"], settings["padding_token"]
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def scores(self, contents):
        """Return a row of scores for each file's bytes."""
        first, last, padding = self.ends
        inputs = np.full((len(contents), first + last), padding, np.int32)
        for row, data in zip(inputs, contents, strict=True):
            begin = np.frombuffer(data[:4096].lstrip()[:first], np.uint8)
            end = np.frombuffer(data[-4096:].rstrip()[-last:], np.uint8)
            row[: begin.size] = begin
            row[row.size - end.size :] = end
        (probs,) = self.session.run(None, {"bytes": inputs})
        return np.log(np.maximum(probs, np.finfo(np.float32).tiny))


def fragments(rng):
    """Return pieces of files of this installation, and the names of their types."""
    found = {suffix: [] for suffix in SUFFIXES}
    installed = (Path(sysconfig.get_path(name)) for name in ("stdlib", "include", "purelib"))
    for folder in dict.fromkeys(installed):
        for path in sorted(folder.rglob("*.*")):
            if path.suffix in found and path.stat().st_size > 2 * FRAGMENT:
                found[path.suffix].append(path)
    pieces, types = [], []
    for suffix, paths in found.items():
        for i in rng.permutation(len(paths))[:FOR_EACH]:
            with open(paths[i], "rb") as file:
                file.seek(int(rng.integers(paths[i].stat().st_size - FRAGMENT)))
                pieces.append(file.read(FRAGMENT))
            types.append(SUFFIXES[suffix])
    return pieces, types


def fitted_temperature(scores, labels):
    """Return the temperature whose loss is the least."""
    temperatures = np.geomspace(0.25, 8, 101)
    return temperatures[
        np.argmin([cross_entropy(scores, labels, temperature=t) for t in temperatures])
    ]


def judged(scores, labels, temperature):
    """Return the mean confidence, how many are right, and the loss."""
    best = top_k(softmax(scores, temperature=temperature), 1)
    right = best.indices[:, 0] == labels
    return best.values.mean(), right.mean(), cross_entropy(scores, labels, temperature=temperature)


def main(arguments=None):
    """Classify files, then calibrate the model on fragments; return both temperatures' figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("files", nargs="*", type=Path, default=[Path(__file__)])
    files = parser.parse_args(arguments).files
    classifier = Classifier()

    best = top_k(softmax(classifier.scores([path.read_bytes() for path in files])), 3)
    for path, probs, ids in zip(files, *best, strict=True):
        shown = (f"{classifier.names[i]} {p:.2%}" for i, p in zip(ids, probs, strict=True))
        print(f"{path}: {', '.join(shown)}")

    pieces, types = fragments(np.random.default_rng(0))
    scores, labels = classifier.scores(pieces), np.array([classifier.names.index(t) for t in types])
    half = np.random.default_rng(1).permutation(len(pieces)) % 2 == 0
    temperature = fitted_temperature(scores[half], labels[half])
    figures = {}
    print(f"\n{len(pieces)} fragments of {FRAGMENT} bytes, half of them for the fit, half to judge")
    for t in (1.0, temperature):
        sure, right, loss = figures[t] = judged(scores[~half], labels[~half], t)
        print(f"temperature {t:.2f}: confidence {sure:.1%}, right {right:.1%}, loss {loss:.3f}")
    return figures


if __name__ == "__main__":
    main()
