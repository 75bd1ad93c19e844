"""That a stranger's graph is sound, and runs, before anything of it is served.

sizes   the graph on tensors without memory: how large its values are
work    how long a node takes, by its shapes
clock   the time that a proof may take
proof   rows, outputs and features, tried on made-up numbers
"""
