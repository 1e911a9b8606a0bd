"""Writes ONNX graphs by arithmetic on their tensors, and puts a graph before a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

PREFIX = "preprocess/"  # of the names of nodes and tensors, which must differ from the network's


class Graph:
    """An ONNX graph under construction: its nodes and its constants."""

    def __init__(self, prefix: str = PREFIX) -> None:
        self.prefix = prefix
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def node(
        self, operator: str, *inputs: Tensor | None, further: int = 0, **attributes: Any
    ) -> Tensor:
        """Add a node and return its first output. Operators: https://onnx.ai/onnx/operators.

        Args:
            operator: its name in ONNX's default domain.
            inputs: tensors; None for an optional input that is left out.
            further: number of outputs after the first, which are not used.
            attributes: of the operator.
        """
        name = f"{self.prefix}{operator}_{len(self.nodes)}"
        names = ["" if tensor is None else tensor.name for tensor in inputs]
        outputs = [name, *(f"{name}_{number}" for number in range(further))]
        self.nodes.append(helper.make_node(operator, names, outputs, name, **attributes))
        return Tensor(self, name)

    def constant(self, values: Any) -> Tensor:
        """Add a constant, of the type that NumPy gives the values."""
        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return Tensor(self, name)

    def input(self, name: str) -> Tensor:
        """Return the input of this name."""
        return Tensor(self, f"{self.prefix}{name}")

    def inner(self) -> Graph:
        """Return an empty graph for the body of a loop: names differ from those of this graph."""
        return Graph(f"{self.prefix}{len(self.nodes)}/")

    def loop(self, steps: Tensor, body: Graph, total: Tensor, start: Tensor) -> Tensor:
        """Repeat a graph and return its last total.

        Args:
            steps: number of repetitions, a scalar.
            body: reads its inputs ``step`` (from 0, int64) and ``total``, and tensors of this graph
                (``Tensor.inside``).
            total: of the body: the new total, float32.
            start: the first total.
        """
        flag = helper.make_tensor_value_info(body.input("go_on").name, TensorProto.BOOL, [])
        go_on = body.node("Identity", body.input("go_on"))
        step = helper.make_tensor_value_info(body.input("step").name, TensorProto.INT64, [])
        old = helper.make_tensor_value_info(body.input("total").name, TensorProto.FLOAT, None)
        new = helper.make_tensor_value_info(total.name, TensorProto.FLOAT, None)
        ahead = helper.make_tensor_value_info(go_on.name, TensorProto.BOOL, [])
        inner = helper.make_graph(
            body.nodes, "loop", [step, flag, old], [ahead, new], initializer=body.constants
        )
        return self.node("Loop", steps, None, start, body=inner)


class Tensor:
    """A tensor of a graph; numbers that take part in its arithmetic become 64-bit integers."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name = graph, name

    def __add__(self, other: Operand) -> Tensor:
        return self._with("Add", other)

    def __sub__(self, other: Operand) -> Tensor:
        return self._with("Sub", other)

    def __mul__(self, other: Operand) -> Tensor:
        return self._with("Mul", other)

    def __truediv__(self, other: Operand) -> Tensor:
        """Divide; integers are divided without remainder, towards zero."""
        return self._with("Div", other)

    def __mod__(self, other: Operand) -> Tensor:
        """Return the remainder of integers, with the divisor's sign."""
        return self._with("Mod", other)

    def __ge__(self, other: Operand) -> Tensor:
        return self._with("GreaterOrEqual", other)

    def __and__(self, other: Operand) -> Tensor:
        return self._with("And", other)

    def equals(self, other: Operand) -> Tensor:
        """Compare element by element."""
        return self._with("Equal", other)

    def least(self, other: Operand) -> Tensor:
        """Return the smaller of each two elements."""
        return self._with("Min", other)

    def largest(self, other: Operand) -> Tensor:
        """Return the larger of each two elements."""
        return self._with("Max", other)

    def shifted(self, bits: int) -> Tensor:
        """Divide integers by 2^bits and round down, as a shift to the right does."""
        return (self - self % 2**bits) / 2**bits

    def descaled(self, bits: int) -> Tensor:
        """Divide integers by 2^bits and round halves up."""
        return (self + 2 ** (bits - 1)).shifted(bits)

    def inside(self, body: Graph) -> Tensor:
        """Return this tensor for use in the body of a loop."""
        return Tensor(body, self.name)

    def to(self, dtype: type) -> Tensor:
        """Convert to a NumPy type."""
        return self.graph.node("Cast", self, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def at(self, indices: Operand, axis: int = 0) -> Tensor:
        """Return the elements of an axis at these indices."""
        return self.graph.node("Gather", self, self._operand(indices), axis=axis)

    def reshaped(self, *shape: int) -> Tensor:
        """Reshape; 0 keeps the length of an axis, -1 stands for the remaining length."""
        return self.graph.node("Reshape", self, self._operand(list(shape)))

    def length(self, axis: int) -> Tensor:
        """Return the length of an axis, shape (1,)."""
        return self.graph.node("Shape", self, start=axis, end=axis + 1)

    def _with(self, operator: str, other: Operand) -> Tensor:
        return self.graph.node(operator, self, self._operand(other))

    def _operand(self, other: Operand) -> Tensor:
        return other if isinstance(other, Tensor) else self.graph.constant(other)


Operand = Tensor | int | list[int] | np.ndarray


def put_before(
    graph: Graph, output: Tensor, entry: str, shape: Sequence[str | int], model: ModelProto, to: str
) -> None:
    """Put a graph before a network, whose input it computes.

    Args:
        graph: the nodes, which read the input ``entry``.
        output: what they compute.
        entry: name of the new input, uint8.
        shape: its axes; a word for an axis of any length.
        model: the network; it is changed.
        to: name of the network's input.
    """
    old = next(value for value in model.graph.input if value.name == to)
    old.CopyFrom(helper.make_tensor_value_info(entry, TensorProto.UINT8, shape))
    graph.nodes.append(helper.make_node("Identity", [output.name], [to], f"{PREFIX}output"))
    nodes = [*graph.nodes, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(graph.constants)
