"""`History` in plain Python: a list of tokens for each row, counted when asked."""

from collections import Counter
from copy import deepcopy
from typing import Any

import numpy as np

from .._arguments import history as checks
from .._arguments.values import count, switch


class History:
    """The tokens so far of each row of a batch, as the compiled `History` keeps them."""

    def __init__(self, prompts: Any) -> None:
        self._rows = [_Row(prompt) for prompt in checks.prompts(prompts)]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        shown = [f"{len(r.tokens)} tokens (prompt {r.prompt})" for r in self._rows[:4]]
        more = ", ..." if self.rows > 4 else ""
        return f"History of {self.rows} rows: {', '.join(shown)}{more}"

    def __copy__(self) -> "History":
        return deepcopy(self)

    def _row(self, row: Any) -> "_Row":
        return self._rows[count(row, "row", 0, self.rows - 1)]

    def append(self, ids: Any) -> None:
        """Take the next token of each row, or the next ones; -1 is none."""
        for row, tokens in zip(self._rows, checks.appended(ids, self.rows).tolist(), strict=True):
            for token in tokens:
                if token >= 0:
                    row.append(token)

    def reset(self, row: Any, prompt: Any = ()) -> None:
        """Forget a row, and let it begin with another prompt."""
        self._row(row).__init__(checks.prompt(prompt, "prompt"))  # type: ignore[misc]

    def tokens(self, row: Any) -> np.ndarray:
        """Return the tokens of a row."""
        return np.array(self._row(row).tokens, dtype=np.int64)

    def prompt(self, row: Any) -> int:
        """Return how many tokens of a row are its prompt."""
        return self._row(row).prompt

    def state(self, row: Any) -> tuple[float, ...]:
        """Return what the sampler's step with a state remembers of a row."""
        return self._row(row).state

    def counts(
        self, row: Any, last: Any = None, prompt: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the distinct ids of a row, ascending, and how often each occurs."""
        here = self._row(row)
        tokens = here.tokens[0 if switch(prompt, "prompt") else here.prompt :]
        if last is not None:
            tokens = tokens[max(len(tokens) - count(last, "last", 0), 0) :]
        counted = sorted(Counter(tokens).items())
        ids, counts = np.array(counted, dtype=np.int64).reshape(-1, 2).T.copy()
        return ids, counts

    def _pend(self, row: Any, token: int, state: tuple[float, ...]) -> None:
        """Foresee the state of a row after `token`, as a call of a sampler does."""
        self._row(row).pending = token, state


class _Row:
    """The tokens of one row, and what a step remembers of it."""

    def __init__(self, prompt: np.ndarray) -> None:
        self.tokens: list[int] = prompt.tolist()
        self.prompt = len(self.tokens)
        self.state: tuple[float, ...] = ()
        self.pending: tuple[int, tuple[float, ...]] | None = None

    def append(self, token: int) -> None:
        self.tokens.append(token)
        if self.pending is not None and self.pending[0] == token:
            self.state = self.pending[1]
        self.pending = None
