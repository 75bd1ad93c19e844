"""Layers that a drawn number switches: `if torch.rand([]) < p: continue` as sites.

A network that decides by a draw runs one of several graphs. Each is recorded, and they are put
together to one whose values are chosen by the draw:

    (base graph; for each decision k, the graph in which k falls the other way)
      →  y = where(c_k, value of the one, value of the other), where the two meet again

That decisions may be turned one by one is assumed here and shown by `dubito_nn.proving.prove`,
which runs the eager network with every decision turned alone, with all, and with some of them.

deciding   what a drawn number decides while a network is recorded
python     numbers that a network draws from Python and NumPy
parting    where two recordings part and meet again
merging    several recordings as one graph
outcomes   which draws are made where decisions fall in a certain way
"""
