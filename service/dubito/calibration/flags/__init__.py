"""Out-of-distribution flags: a score per row, its p-value against held-out rows, a decision.

Flow: samples or a prediction's columns → `scores` → `detector` (p-value, flag at a stated
false-alarm rate). Pure numpy and scipy.
"""
