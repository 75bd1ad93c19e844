"""Dropout of weights, and noise that is learned for each weight.

maps         the linear maps whose weights can be masked
dropconnect  single weights
targeted     only what matters least
sparse       learned noise, until most weights drown
pruning      those left out
"""
