"""What is fitted on held-out rows, so that the figures keep their promises.

choices   what a caller may choose beside rates
reading   truths as callers write them
truths    truths and passes as fits want them, or refused
sampled   rows with what every pass says of them
terms     what is asked of a fit
splits    which rows each part of it sees
heads     what differs by kind of output; calls those below
scaling   scales of logits and of noise
promises  sets, intervals, decisions
flags     out-of-distribution scores and their threshold
verdict   whether a fit is worth having
promised  what was promised and what came, in sentences
fit       all of it: labelled rows to a record
judge     the report of rows, without fitting
record    a calibration, applied to predictions
stored    its JSON, kept with the version
page      its report, before and after
cache     records read once

Flow: `sampled` → `fit` → `record` → predictions. numpy, scipy and scikit-learn; torch only where
scales are applied as the engine does. No HTTP, no database.
"""
