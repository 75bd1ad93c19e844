"""Dropout of activations: units, channels, blocks.

standard   single units
spatial    whole channels
dropblock  contiguous blocks of a map
gaussian   multiplicative noise, fixed or learned
alpha      for SELU networks
concrete   p is learned
"""
