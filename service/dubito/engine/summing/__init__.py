"""What T passes say together, summed up while they stream.

forms       which of the three forms below is used
compiled/   as loops, for a processor
cuda/       as kernels, for a GPU
statistics  all sums over the passes, in operators on whole arrays: the reference
logits      passes of a classification as loops and kernels take them
welford     running mean and spread
blocks      the error of a mean over a stratified draw, with `additivity` measured at load
jackknife   the bias of the mutual information
figures     from sums to the columns of a prediction
sheet       sums on their way to the host, in one transfer
"""
