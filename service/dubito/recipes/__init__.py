"""`dubito train`: a network of `dubito_nn.networks`, trained by a configuration.

config   the TOML file, read strictly
rows     the `.npz` file as tensors
table    the same of a CSV or Parquet file, and what the bundle declares of it
build    the network
run      all of it, and the bundle
demo/    the demonstration: three networks on data that scikit-learn carries
"""

from dubito.recipes.config import TrainConfig, read_config
from dubito.recipes.run import Trained, run

__all__ = ["TrainConfig", "Trained", "read_config", "run"]
