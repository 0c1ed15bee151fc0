"""ONNX Runtime's side, with models encoded by hand.

A model of one node is some sixty bytes of protobuf: not worth a dependency on `onnx`.
Field numbers are those of onnx.proto (ModelProto 1, 7, 8; GraphProto 1, 2, 5, 11, 12; ...).
"""

import struct
from functools import partial

import numpy as np

_FLOAT, _INT64, _DOUBLE = 1, 7, 11
_TYPES = {np.dtype("float32"): (_FLOAT, "<f"), np.dtype("float64"): (_DOUBLE, "<d")}
_OPS = {"softmax": "Softmax", "log_softmax": "LogSoftmax", "logsumexp": "ReduceLogSumExp"}


def side():
    """Return version, operations and the reader of results."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL

    def prepare(op, x, reuse_output=False, **parameters):
        session = onnxruntime.InferenceSession(
            model(op, x.dtype, **parameters), options, providers=["CPUExecutionProvider"]
        )
        # A bound call costs half of session.run, which looks up names and wraps arrays each time.
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x))
        if reuse_output:
            out = onnxruntime.OrtValue.ortvalue_from_numpy(np.empty_like(x))
            binding.bind_ortvalue_output("y", out)
        else:
            for output in session.get_outputs():
                binding.bind_output(output.name, "cpu")

        def call():
            session.run_with_iobinding(binding)
            return binding

        return call

    def as_numpy(binding):
        arrays = binding.copy_outputs_to_cpu()
        return arrays[0] if len(arrays) == 1 else arrays

    ops = {op: partial(prepare, op) for op in (*_OPS, "top_k")}
    ops["softmax out"] = partial(prepare, "softmax", reuse_output=True)
    return onnxruntime.__version__, ops, as_numpy


def model(op, dtype, *, axis=-1, temperature=None, k=None):
    """Serialize a model from input ``x`` to output ``y`` (and ``ids`` for top_k).

    It is one node, after a division by `temperature` if there is one.
    """
    kind, packed = _TYPES[np.dtype(dtype)]
    inputs, outputs, nodes, constants = ["x"], {"y": kind}, [], []
    if temperature:
        constants.append(_constant("t", kind, struct.pack(packed, temperature)))
        nodes.append(_node("Div", ["x", "t"], ["divided"]))
        inputs = ["divided"]
    if op == "top_k":
        constants.append(_constant("k", _INT64, k.to_bytes(8, "little"), 1))
        nodes.append(_node("TopK", ["x", "k"], ["y", "ids"], _int("axis", axis)))
        outputs["ids"] = _INT64
    elif op == "logsumexp":
        axes = _fields((1, "axes"), (20, 7), (8, axis))
        nodes.append(_node(_OPS[op], inputs, ["y"], axes, _int("keepdims", 0)))
    else:
        nodes.append(_node(_OPS[op], inputs, ["y"], _int("axis", axis)))
    graph = _fields(
        *((1, node) for node in nodes),
        (2, op),
        *((5, constant) for constant in constants),
        (11, _value_info("x", kind)),
        *((12, _value_info(*output)) for output in outputs.items()),
    )
    # IR version 8 with opset 17, the last in which ReduceLogSumExp has its axes as an attribute
    return _fields((1, 8), (7, graph), (8, _fields((2, 17))))


def _node(name, inputs, outputs, *attributes):
    puts = [(1, i) for i in inputs] + [(2, o) for o in outputs]
    return _fields(*puts, (4, name), *((5, a) for a in attributes))


def _int(name, value):
    return _fields((1, name), (20, 2), (3, value))


def _constant(name, kind, data, *shape):
    return _fields(*((1, n) for n in shape), (2, kind), (8, name), (9, data))


def _value_info(name, kind):
    # no shape: any will do
    return _fields((1, name), (2, _fields((1, _fields((1, kind))))))


def _fields(*fields):
    """Encode (field number, int or str or bytes) as a protobuf message."""
    message = b""
    for number, value in fields:
        if isinstance(value, int):
            message += _varint(number << 3) + _varint(value % 2**64)
        else:
            value = value.encode() if isinstance(value, str) else value
            message += _varint(number << 3 | 2) + _varint(len(value)) + value
    return message


def _varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])
