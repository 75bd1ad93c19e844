"""What is promised of a row: sets, intervals, a decision.

conformal  ranks, thresholds and p-values of held-out scores
draws      one uniform number per row
sets       classes of a row
positions  classes of a row with several labels or positions
mixture    quantiles of a regression's passes
intervals  from where to where a target lies
selective  how many rows may be accepted at a stated risk
policy     accept, review or reject
"""
