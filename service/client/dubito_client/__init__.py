"""A client of Dubito: numpy in, numpy and uncertainty out, with httpx and numpy alone.

client.py        `Client` and `AsyncClient`, which send calls
sending.py       when a call is sent again
calls.py         a call, and how its answer becomes a dataclass
bodies.py        what callers give, as a body
images.py        images among it
fields.py        what can be asked beside the rows
predictions.py calibrations.py fits.py versions.py work.py outcomes.py   calls, and their answers
frames.py        a prediction as a DataFrame
errors.py        what can go wrong
"""

from dubito_client.calibrations import Calibration, Evaluation, Fitted, Reports
from dubito_client.client import AsyncClient, Client
from dubito_client.errors import (
    BundleRefusedError,
    ConflictError,
    DamagedError,
    DeadlineError,
    DubitoError,
    ForbiddenError,
    HeadersTooLargeError,
    InputError,
    KeyLimitError,
    NotFoundError,
    PreconditionFailedError,
    QueueFullError,
    ReplyError,
    SlowRequestError,
    StorageFullError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    UnreachableError,
    UnsupportedMediaTypeError,
)
from dubito_client.fits import MadeFit, StoredFit, VersionFits
from dubito_client.outcomes import Drift, Monitoring, Outcomes, Stored
from dubito_client.predictions import Interval, OutOfDistribution, Prediction, Selection
from dubito_client.versions import Alias, Change, Health, Model, Uploaded, Version, VersionDetails
from dubito_client.work import Job, Pool, PooledRows

__all__ = [
    "Alias",
    "AsyncClient",
    "BundleRefusedError",
    "Calibration",
    "Change",
    "Client",
    "ConflictError",
    "DamagedError",
    "DeadlineError",
    "Drift",
    "DubitoError",
    "Evaluation",
    "Fitted",
    "ForbiddenError",
    "HeadersTooLargeError",
    "Health",
    "InputError",
    "Interval",
    "Job",
    "KeyLimitError",
    "MadeFit",
    "Model",
    "Monitoring",
    "NotFoundError",
    "OutOfDistribution",
    "Outcomes",
    "Pool",
    "PooledRows",
    "PreconditionFailedError",
    "Prediction",
    "QueueFullError",
    "ReplyError",
    "Reports",
    "Selection",
    "SlowRequestError",
    "StorageFullError",
    "Stored",
    "StoredFit",
    "TooLargeError",
    "UnauthorizedError",
    "UnavailableError",
    "UnreachableError",
    "UnsupportedMediaTypeError",
    "Uploaded",
    "Version",
    "VersionDetails",
    "VersionFits",
]

__version__ = "0.1.0"
