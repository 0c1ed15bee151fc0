"""fastsoftmax in JAX: a call to the host inside `jit`, with a gradient of its own.

`jax.pure_callback` runs a NumPy function on the CPU; `jax.custom_vjp` says what its gradient is.
Where the loss and its gradient come in one call, the backward pass costs a multiplication::

    pip install fastsoftmax jax
    python examples/jax_call.py
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import fastsoftmax


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def softmax(x, temperature=1.0):
    """Return the probabilities along the last axis."""
    run = partial(fastsoftmax.softmax, temperature=temperature)
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(run, shape, x, vmap_method="expand_dims")


def _softmax_forward(x, temperature):
    probs = softmax(x, temperature)
    return probs, probs


def _softmax_backward(temperature, probs, gradient):
    run = partial(fastsoftmax.softmax_backward, temperature=temperature)
    shape = jax.ShapeDtypeStruct(probs.shape, probs.dtype)
    return (jax.pure_callback(run, shape, gradient, probs, vmap_method="expand_dims"),)


softmax.defvjp(_softmax_forward, _softmax_backward)


@jax.custom_vjp
def cross_entropy(logits, targets):
    """Return the mean loss of rows of logits and their right classes."""
    return _loss_and_grad(logits, targets)[0]


def _loss_and_grad(logits, targets):
    def run(logits, targets):
        return tuple(fastsoftmax.cross_entropy_with_grad(logits, np.asarray(targets)))

    shapes = (
        jax.ShapeDtypeStruct((), logits.dtype),
        jax.ShapeDtypeStruct(logits.shape, logits.dtype),
    )
    return jax.pure_callback(run, shapes, logits, targets, vmap_method="sequential")


def _loss_backward(gradient_of_logits, by_loss):
    return by_loss * gradient_of_logits, None


cross_entropy.defvjp(_loss_and_grad, _loss_backward)


def main():
    """Hold both against JAX's own."""
    x = 3 * jax.random.normal(jax.random.key(0), (8, 1000))
    targets = jnp.arange(8)

    def theirs(x):
        return -jnp.take_along_axis(jax.nn.log_softmax(x), targets[:, None], 1).mean()

    def ours(x):
        return cross_entropy(x, targets)

    def largest(a, b):
        return float(jnp.abs(a - b).max())

    probs = jax.jit(softmax, static_argnums=1)(x, 0.7)
    figures = {
        "softmax": largest(probs, jax.nn.softmax(x / 0.7)),
        "gradient of softmax": largest(
            jax.jit(jax.grad(lambda x: (softmax(x, 0.7)[:, 0] ** 2).sum()))(x),
            jax.grad(lambda x: (jax.nn.softmax(x / 0.7)[:, 0] ** 2).sum())(x),
        ),
        "softmax in vmap": largest(jax.vmap(partial(softmax, temperature=0.7))(x), probs),
        "loss": largest(jax.jit(ours)(x), theirs(x)),
        "gradient of the loss": largest(jax.jit(jax.grad(ours))(x), jax.grad(theirs)(x)),
    }
    for name, figure in figures.items():
        print(f"{name}: largest difference to JAX's own {figure:.1e}")
    return figures


if __name__ == "__main__":
    main()
