"""Grammars of JSON schemas for ``server.py``: llguidance says which tokens may come next."""


class Grammars:
    """Makes grammars over the tokens of a tokenizer."""

    def __init__(self, tokenizer):
        from llguidance import LLTokenizer, TokenizerWrapper

        # What llguidance asks a tokenizer for, besides a call for the ids of a text.
        self.encode, self.bos_token_id = tokenizer.encode, None
        self.eos_token_id = tokenizer.ids["<|im_end|>"]
        self.special_token_ids = tokenizer.special
        self.tokens = [tokenizer.bytes_of(i) for i in range(len(tokenizer.tokens))]
        self.tokenizer = LLTokenizer(TokenizerWrapper(self))

    def __call__(self, text):
        return self.encode(text)

    def json(self, schema):
        """Return the grammar of what has this schema."""
        return Grammar(self.tokenizer, schema)


class Grammar:
    """What may follow the tokens of one text so far."""

    def __init__(self, tokenizer, schema):
        from llguidance import LLMatcher

        one_space = {"whitespace_pattern": " "}  # at most; else a text may never get on
        rules = LLMatcher.grammar_from_json_schema(schema, overrides=one_space)
        self.matcher = LLMatcher(tokenizer, rules)
        self.size = tokenizer.vocab_size
        self.check()

    def check(self):
        """Raise what the matcher keeps to itself."""
        if self.matcher.is_error():
            raise ValueError(self.matcher.get_error())

    def take(self, ids):
        """Go on behind ids that have been chosen."""
        self.matcher.consume_tokens(ids)
        self.check()

    def possible(self, draft):
        """Return the draft up to where it leaves the grammar."""
        return draft[: self.matcher.validate_tokens(draft)]

    def allowed(self, draft):
        """Return what may come next, and behind each token of a draft: packed bits, a row each."""
        from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

        bits = allocate_token_bitmask(len(draft) + 1, self.size)
        for row in range(len(draft) + 1):
            fill_next_token_bitmask(self.matcher, bits, row)
            if row < len(draft):
                self.matcher.consume_token(draft[row])
        self.matcher.rollback(len(draft))
        return bits
