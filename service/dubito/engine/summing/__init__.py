"""What T passes say together, summed up while they stream.

arrays      the same lines for tensors and for numpy's arrays
welford     running mean and spread
blocks      the error of a mean over a stratified draw, with `additivity` measured at load
jackknife   the bias of the mutual information
statistics  all sums over the passes
figures     from sums to the columns of a prediction
sheet       sums on their way to the host, in one transfer
"""
