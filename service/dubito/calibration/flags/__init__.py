"""Out-of-distribution flags: a score per row, its p-value against held-out rows, a decision.

source     what a score may read: the passes at the fit, a prediction's columns at serving
scores     those that need no fitting
distances  of features, to held-out rows
densities  of features, under a Gaussian of each class
transitions  from one position's features to the next
combined   several scores as one
made       rows made up to see what a flag is blind to
overall    the default of them
scorer     all of them by name, for classes and for numbers
detector   p-value, and flag at a stated false-alarm rate
flagging   the fit of all that, and the choice of a score
packed     arrays inside a record that is JSON

Flow: `source` → score of each row → `detector`. numpy, scipy and scikit-learn.
"""
