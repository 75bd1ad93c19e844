"""From passes to answers.

call       what is asked of an engine at once
tally      passes of some rows, summed while they come
passing    the passes of a call, by its method
learned    columns and fixed points of a distilled head, and of `mc` in its place
propagating  moments: the walk, or gradients once they came out right
streaming  rows until T, or until their error is small enough
recording  answers recorded as CUDA graphs
features   what stands for each row, for distances between rows
"""
