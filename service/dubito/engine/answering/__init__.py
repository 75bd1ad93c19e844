"""From passes to answers.

call       one call of an engine
tally      passes of some rows, summed while they come
streaming  rows until T, or until their error is small enough
recording  answers recorded as CUDA graphs
features   one vector per row, for distances between rows
"""
