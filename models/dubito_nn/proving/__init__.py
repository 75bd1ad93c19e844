"""That the lifted graph is the network, shown on rows and draws, and what follows from it.

prove        that the lifted graph is the network
replayed     a graph held against its network on rows and draws
sizes        numbers of rows and free sizes that a recording does not show
rows         that no row reads another
dead         which sites change nothing
returned     the output held against what was declared
bounds       what the output can be by construction
granularity  what one number of a draw acts on
"""
