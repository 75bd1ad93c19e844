"""Who asks: a name for the audit, a scope, and the models that it is for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from dubito.errors import ForbiddenError
from dubito.keys.allowance import Allowance
from dubito.names import ANONYMOUS


class KeyScope(IntEnum):
    """What a key opens; each opens what those before it open."""

    PREDICT = 0
    """Reads, predictions, feedback, jobs of its own."""
    SELECT = 1
    """Selections and pools."""
    CALIBRATE = 2
    """Calibrations, evaluations and fits."""
    ADMIN = 3
    """Everything."""

    @property
    def word(self) -> str:
        """Its name, as it is written."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> KeyScope:
        """The scope of a name."""
        return cls[word.upper()]


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Args:
        name: of the key, for the audit.
        scope: what it opens.
        models: that it is for; None: all.
        allowance: what it may send; None: no limits.
    """

    name: str
    scope: KeyScope
    models: frozenset[str] | None = None
    allowance: Allowance | None = None

    @property
    def sees_all(self) -> bool:
        """Whether jobs of others are shown."""
        return self.scope is KeyScope.ADMIN

    def sees_model(self, model: str) -> bool:
        """Whether a model is shown."""
        return self.models is None or model in self.models

    def sees_job(self, actor: str, model: str) -> bool:
        """Whether a job is shown, by who asked for it and its model."""
        return (self.sees_all or actor == self.name) and self.sees_model(model)

    def sees_pool(self, uploader: str) -> bool:
        """Whether a pool is shown: with a key that is for some models, those that it stored."""
        return self.models is None or uploader == self.name

    def check(self, needed: KeyScope, model: str | None) -> None:
        """Refuse what the key does not open.

        Args:
            needed: scope of what is asked.
            model: that it is about; None: about none, or several.

        Raises:
            ForbiddenError: another scope or model is needed; says which.
        """
        if self.scope < needed:
            raise ForbiddenError(
                f"key `{self.name}`: expected the scope `{needed.word}`, got `{self.scope.word}`: "
                "ask whoever runs the server for a key with that scope"
            )
        if model and not self.sees_model(model):
            raise ForbiddenError(
                f"key `{self.name}`: expected one for the model {model[:64]!r}, got one for "
                f"{', '.join(sorted(self.models or ()))}: ask whoever runs the server for another"
            )


NOBODY = Caller(ANONYMOUS, KeyScope.ADMIN)
"""Who comes where no key is asked."""
