"""Read a line of text with an OCR model, and say of each character how sure the model is.

The recogniser of rapidocr-onnxruntime gives scores of 6,625 characters for each step along the
line, one of them a blank between two. The best of each step, without repetitions and blanks, are
the text (greedy CTC decoding); the next best ones are what it might have been. Where it is known
which characters can be there, `where=` leaves the others out of the probabilities::

    pip install fastsoftmax onnxruntime pillow
    pip install --no-deps rapidocr-onnxruntime
    python examples/ocr.py "softmax O0 l1"
"""

import argparse
import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageFont

from fastsoftmax import softmax, top_k

BLANK, HEIGHT = 0, 48


class Read(NamedTuple):
    """A character: what it is most likely, and the best of its step with their probabilities."""

    best: str
    options: list[tuple[str, float]]


class Recogniser:
    """The model that rapidocr-onnxruntime's wheel holds."""

    def __init__(self):
        wheel = importlib.util.find_spec("rapidocr_onnxruntime")
        if wheel is None:
            raise SystemExit("not installed: pip install --no-deps rapidocr-onnxruntime")
        (model,) = Path(wheel.submodule_search_locations[0]).glob("models/*_rec_*.onnx")
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        known = self.session.get_modelmeta().custom_metadata_map["character"].splitlines()
        self.characters = ["", *known, " "]

    def scores(self, image):
        """Return the scores of each step along a line of text, shape (steps, characters)."""
        width = round(image.width * HEIGHT / image.height)
        pixels = np.asarray(image.convert("RGB").resize((width, HEIGHT)), np.float32)[..., ::-1]
        (probs,) = self.session.run(None, {"x": (pixels / 127.5 - 1).transpose(2, 0, 1)[None]})
        return np.log(np.maximum(probs[0], np.finfo(np.float32).tiny))

    def read(self, image, allowed=None):
        """Return the characters of an image; of those in `allowed`, where that is given."""
        where = None
        if allowed is not None:
            where = np.array([c in allowed for c in self.characters])
            where[BLANK] = True
        best = top_k(softmax(self.scores(image), where=where), 3)
        found, before = [], BLANK
        for probs, ids in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            if ids[0] not in (BLANK, before):
                options = [
                    (self.characters[i] or "nothing", p) for i, p in zip(ids, probs, strict=True)
                ]
                found.append(Read(self.characters[ids[0]], options))
            before = ids[0]
        return found


def drawn(text):
    """Return an image of a line of text."""
    font = ImageFont.load_default(36)
    image = Image.new("L", (round(font.getlength(text)) + 24, HEIGHT), "white")
    ImageDraw.Draw(image).text((12, 2), text, fill="black", font=font)
    return image


def main(arguments=None):
    """Read a text that is drawn, or an image; return what is read."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("text", nargs="?", default="total 1O0.5l", help="what to draw and read")
    parser.add_argument("--image", type=Path, help="an image of one line, instead")
    parser.add_argument("--allowed", help="the only characters that can be there")
    options = parser.parse_args(arguments)
    image = Image.open(options.image) if options.image else drawn(options.text)
    read = Recogniser().read(image, options.allowed)
    print("".join(character.best for character in read))
    for character in read:
        if character.options[0][1] < 0.9:
            print("  unsure:", ", ".join(f"{c!r} {p:.1%}" for c, p in character.options))
    return read


if __name__ == "__main__":
    main()
