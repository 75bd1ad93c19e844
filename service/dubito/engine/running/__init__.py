"""Passes: T samples of B rows through a planned graph.

passes     rows and samples in pieces that fit memory and cache
options    forms with what was measured of them
execution  what is kept between the pieces
fold       one piece: samples and rows folded into one axis
reuse      which values an operator may overwrite
"""
