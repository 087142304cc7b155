"""An ONNX graph as a PyTorch module: checked, computed ahead as far as the pixels allow, and walked from a table.

Nothing in a graph becomes code or an attribute's name: an operator is looked up in a literal table by its type, and
values live in numbered slots.
"""
