"""`dubito train`: a network of `dubito_nn.networks`, trained by a configuration.

config   the TOML file, read strictly
rows     the `.npz` file as tensors
build    the network
run      all of it, and the bundle
"""

from dubito.training.config import TrainConfig, read_config
from dubito.training.run import Trained, run

__all__ = ["TrainConfig", "Trained", "read_config", "run"]
