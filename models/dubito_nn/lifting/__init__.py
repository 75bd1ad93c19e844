"""From a module to a lifted graph: capture, lower, lift, prove, granularity, in this order.

declared     what the caller says of the output
example      the rows that all is recorded and proved with
inject       dropout put where a network has none
selected     the network with one output picked
isolation    what is the process's own stays as it is
capture      traced twice, as it samples and as it is evaluated
branching    drawn numbers that decide what is computed
counting     how many rows there are, as a symbol
opaque       recurrent layers kept whole meanwhile
respelled    calls written in another way meanwhile
routed       tokens of all rows sorted by their experts, taken back to their rows
known        the numbers of weights and constants, for a network that looks at them
explain      why it could not be recorded, in the user's words
alike        whether a network computes the same in both modes, dropout aside
evaluated    the second recording made of the first, where dropout alone differs
lower        hidden randomness brought into the open
functional   the same where it changes little, without another recording
pooled       fractional pooling by gathers
rules        how a random operator's result follows from its draw
tabulated    draws of distributions that tables of quantiles stand for
folding      what follows from weights alone, computed
sites        a random operator as a row of the site table
resting      means of masks, where evaluation mode rolls dice
scratch      what a network remembers, and what it only scribbles on
lift         the graph as f(x, ω), of allowed operators
unserved     what no output depends on, left out
draws        draws to try it out with
recording    what the eager network draws, as draws of the sites
observe      what the eager network does
rows         that no row reads another
dead         which sites change nothing
prove        that the lifted graph is the network
bounds       what the output can be by construction
returned     the output held against what was declared
granularity  what one number of a draw acts on
"""
