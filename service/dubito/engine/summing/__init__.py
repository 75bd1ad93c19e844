"""What T passes say together.

heads       the network's numbers as probabilities or in target units
scaling     what a calibration does to the logits of every pass
moments     running mean and spread
blocks      the error of a mean over a stratified draw, with `additivity` measured at load
jackknife   the bias of the mutual information
statistics  all sums over the passes
positions   several labels, or a class at every position, of one row
aggregate   what they say of the row
streaming   rows until T, or until their error is small enough
figures     from sums to the columns of a prediction
"""
