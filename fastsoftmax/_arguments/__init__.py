"""Arguments and results: what is wrong with a call is found here, before anything is computed.

`arrays`: dtypes, axes, masks and outputs. `values`: numbers, words, token ids, random numbers.
`losses`: targets, class weights. `results`: the named tuples that functions return. May import
nothing else of the package; `_front`, `_reference`, the sampler and its steps import it.
"""
