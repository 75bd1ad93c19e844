"""Passes: T samples of B rows through a planned graph.

passes     rows and samples in pieces that fit memory and cache
execution  what is kept between the pieces
fold       one piece: samples and rows folded into one axis
reuse      which values an operator may overwrite
products   linear maps by the faster library
recording  answers recorded as CUDA graphs
sheet      what is found, in one transfer
constants  a few numbers on a device
"""
