"""Moment propagation: mean and variance of the outputs without sampling.

Its job: walk the lifted graph f(x, ω) once with random values in place of draws. What does not
depend on ω stays a plain tensor and is exact; what does carries a mean and a variance per element.
A graph that the walk refuses is linearised in its draws instead.

nodes         quadrature nodes of a site's distribution
values        what a node of the graph may hold: drawn, product, spread
activations   moments of pointwise functions of a Gaussian
arithmetic    sums and products
common        noise that units have in common
mixing        linear maps, convolutions, averages
maxima        maximum over windows
shapes        reshaping, cutting, joining
layers        the rule of every other operator
walk          the walk, and what it refuses
linearised    graphs without rules: gradients of the outputs by the draws
graph         what both ask of a graph
outputs       moments of the declared outputs, and points that have them

Elements of a value count as uncorrelated, but for the 8 largest directions of a hidden linear map,
which the units behind it have in common, and the outputs of the last one, whose covariance is
full. Masks that several elements share (channels, paths)
are followed through the next linear map; what mixes such elements afterwards is refused.

Source: Wang and Manning 2013, Fast dropout training; Gast and Roth 2018, arXiv:1805.11327; Postels
et al. 2019, arXiv:1908.00598; Frey and Hinton 1999, Variational learning in nonlinear Gaussian
belief networks; Clark 1961, The greatest of a finite set of random variables.
"""

from dubito.engine.moments.linearised import Linearisation
from dubito.engine.moments.outputs import OutputMoments, fixed_points
from dubito.engine.moments.values import RefusedError
from dubito.engine.moments.walk import Propagation

__all__ = ["Linearisation", "OutputMoments", "Propagation", "RefusedError", "fixed_points"]
