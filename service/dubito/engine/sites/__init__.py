"""Which sites a call samples, and a graph in which the others stand at their means.

chosen     the sites that a choice names: all, the last, by number or module
means      the mean of a mask
resting    layers that do nothing in evaluation mode
standing   the lifted graph with some sites at their means
"""
