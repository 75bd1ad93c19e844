"""A network as it is brought, recorded as a graph: in the mode that samples, and as evaluated.

Flow: what the caller declares, the example → the module with one output selected → traced twice →
`Captured`. Nothing of the caller's module or process is changed.

declared     what the caller says of the output
example      the rows that all is recorded and proved with
unwrapped    the network inside of what a library put around it
selected     the network with one output picked
inject       dropout put where a network has none
isolation    what is the process's own stays as it is
capture      traced twice, as it samples and as it is evaluated
paths        of modules, as the user knows them
branching    drawn numbers that decide what is computed
counting     how many rows there are, as a symbol
seeded       a forward pass that seeds torch's numbers
opaque       recurrent layers kept whole meanwhile
respelled    calls written in another way meanwhile
pooled       fractional pooling by gathers
known        the numbers of weights and constants, for a network that looks at them
explain      why it could not be recorded, in the user's words
observe      what the eager network does
alike        whether a network computes the same in both modes, dropout aside
"""
