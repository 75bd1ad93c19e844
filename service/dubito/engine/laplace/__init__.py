"""The last linear map with a Gaussian over its weights: a spread for any trained network.

Its job: find the map, take what its curvature is made of from rows, fit the Gaussian, and draw
from it. The network below the map runs once per row, whatever T.

last_map     where the last linear map is, and what goes into it
curvature    sums over rows: of features, of classes
rows_at_map  what rows are at the map: their sums, and those that are kept
posterior    the Gaussian, in the frame of the curvature's eigenvectors
fitting      from sums, and labelled rows, to a posterior: how wide it is
drawn_maps   maps drawn from it, by the same words as all draws
kept_draws   those of the last key
class_factor      of many classes: their factor, which is never made
low_rank          the Gaussian by the largest eigenpairs of it
fitting_low_rank  from rows to it, and how far it is from that of all
drawn_low_rank    scores drawn from it
passes       rows through the network once, and through T drawn maps

Source: Daxberger et al. 2021, Laplace Redux, arXiv:2106.14806; Ritter, Botev, Barber 2018, A
scalable Laplace approximation; Bigi, Chong, Ceriotti, Grasselli 2024, A prediction rigidity
formalism for low-cost uncertainties in trained neural networks, arXiv:2403.02251.
"""

from dubito.engine.laplace.class_factor import ClassFactor
from dubito.engine.laplace.curvature import Curvature, CurvatureSums
from dubito.engine.laplace.fitting import FitResult, Labelled, fit_classes, fit_numbers
from dubito.engine.laplace.fitting_low_rank import fit_low_rank
from dubito.engine.laplace.last_map import LastMap
from dubito.engine.laplace.low_rank import LowRankPosterior
from dubito.engine.laplace.passes import Fits
from dubito.engine.laplace.posterior import Posterior
from dubito.engine.laplace.rows_at_map import RowsAtMap

__all__ = [
    "ClassFactor",
    "Curvature",
    "CurvatureSums",
    "FitResult",
    "Fits",
    "Labelled",
    "LastMap",
    "LowRankPosterior",
    "Posterior",
    "RowsAtMap",
    "fit_classes",
    "fit_low_rank",
    "fit_numbers",
]
