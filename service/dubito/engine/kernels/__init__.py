"""Operators in a faster way than torch's own, and how fast a device is.

products   linear maps by the faster library; a node, a program without draws
lowered    nodes with their products in bfloat16
pooling    maxima over windows
constants  a few numbers on a device
precision  without gradients, in full float32 or in TF32
rates      a device's speed, by its own account
machine    what bits and timings hang on: libraries, processor, threads
"""
