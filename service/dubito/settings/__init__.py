"""What a person may set: environment variables with the prefix `DUBITO_`, and their defaults.

Flow: the command line or a test makes one `Settings`; every part takes what it needs from it.
Sizes are in bytes or rows, times in milliseconds (`*_ms`), as in JSON.

storage    where the registry, its objects and pools lie
border     where the server listens, who may ask, the bounds of connections and bodies
work       what the device computes: sampling, bounds, jobs, models, monitoring
cluster    replicas on a Ray cluster
unknown    variables that look like settings and are none
kinds      what kinds of values settings have
"""

from dubito.settings.border import BorderSettings
from dubito.settings.cluster import ClusterSettings
from dubito.settings.storage import StorageSettings
from dubito.settings.work import WorkSettings

__all__ = ["Settings"]


class Settings(WorkSettings, BorderSettings, StorageSettings, ClusterSettings):
    """Every setting of the service; each is read from `DUBITO_<NAME>`."""
