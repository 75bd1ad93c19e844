"""How large a stranger's graph is and how long it takes, before it runs on numbers.

sizes   the graph on tensors without memory: how large its values are
work    how long a node takes, by its shapes
clock   the time that a proof may take
"""
