"""The graph as f(x, ω): randomness lifted out of what was recorded.

Flow: `dubito_nn.capturing` → lower → lift → `dubito_nn.proving`.

evaluated    the second recording made of the first, where dropout alone differs
lower        hidden randomness brought into the open
functional   the same where it changes little, without another recording
unwritten    a walk of torch spared where nothing is written to
routed       tokens of all rows sorted by their experts, taken back to their rows
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
"""
