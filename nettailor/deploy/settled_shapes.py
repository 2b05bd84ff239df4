"""ONNX graphs that compute no shape."""

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass

_BROADCASTING = ("Add", "Sub", "Mul", "Div")


def settle_shapes(model: ir.Model) -> None:
    """Write the shapes that a graph computes as what they are, in place; the batch size is open.

    An Expand is left out where what reads it broadcasts by itself.
    """
    ShapeInferencePass()(model)
    for node in model.graph:
        if node.op_type in ("Reshape", "Expand"):
            _settle(node, model.graph)
        elif node.op_type in _BROADCASTING:
            _read_unexpanded(node)
    RemoveUnusedNodesPass()(model)


def _settle(node: ir.Node, graph: ir.Graph) -> None:
    """Give a Reshape or an Expand the sizes of its output, where no more than one is open."""
    given, computed = node.inputs
    output = node.outputs[0]
    if computed.const_value is not None or output.shape is None or given.shape is None:
        return
    opened = [at for at, size in enumerate(output.shape) if not isinstance(size, int)]
    if len(opened) > 1:
        return
    if node.op_type == "Expand" and (
        len(given.shape) != len(output.shape) or any(given.shape[at] == 1 for at in opened)
    ):
        return
    # a Reshape takes -1 for what is left, an Expand takes 1 for what its input has there
    left = -1 if node.op_type == "Reshape" else 1
    sizes = [left if at in opened else size for at, size in enumerate(output.shape)]
    name = f"{output.name}_sizes"
    tensor = ir.tensor(sizes, ir.DataType.INT64, name=name)
    value = ir.Value(
        name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    node.replace_input_with(1, value)


def _read_unexpanded(node: ir.Node) -> None:
    """Let a sum or a product read what an Expand reads, where the other operand has the sizes."""
    for at in (0, 1):
        other, expand = node.inputs[1 - at], node.inputs[at].producer()
        if expand is None or expand.op_type != "Expand" or other.shape is None:
            continue
        given, sizes = expand.inputs
        if sizes.const_value is None or given.shape is None:
            continue
        wanted = sizes.const_value.numpy().tolist()
        others = [1] * (len(wanted) - len(other.shape)) + list(other.shape)
        if len(given.shape) == len(wanted) <= len(others) and all(
            size == 1 or size in pair
            for size, *pair in zip(wanted, given.shape, others[-len(wanted) :], strict=True)
        ):
            node.replace_input_with(at, given)
