"""Batches of rows that are compared with each other.

candidates    what is held of them
picks         the rules of a batch that is chosen one row after the other
batchbald     the batch that says most, for classes
gaussian      the same for numbers
geometry      core-set, BADGE, weighted k-means
penalisation  batches for optimisation
"""
