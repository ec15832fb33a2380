"""Names functions of Python's instead of operators: eval, and attributes of torch.ops."""

from prepare import hand_in_graph

hand_in_graph([("tokens",), ("builtins.eval", "__import__('os').system('true')")])
