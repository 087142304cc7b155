"""The operators that are read, each a small function in a literal table; whatever is not here is refused by its name.

Every function takes the node and its inputs.  Numbers are float32, int64 or bool; those that do not
depend on the pixels also float64.
"""

from tabor.models.onnx_graph.node import Operator
from tabor.models.onnx_graph.operators.elementwise import ELEMENTWISE
from tabor.models.onnx_graph.operators.layers import LAYERS
from tabor.models.onnx_graph.operators.normalisation import NORMALISATION
from tabor.models.onnx_graph.operators.pooling import POOLING
from tabor.models.onnx_graph.operators.reductions import REDUCTIONS
from tabor.models.onnx_graph.operators.selection import SELECTION
from tabor.models.onnx_graph.operators.shapes import SHAPES

OPERATORS: dict[str, Operator] = ELEMENTWISE | LAYERS | NORMALISATION | POOLING | REDUCTIONS | SELECTION | SHAPES
"""By the type that a node names."""

__all__ = ["OPERATORS"]
