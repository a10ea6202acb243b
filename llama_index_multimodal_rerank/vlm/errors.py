"""What goes wrong with a call of a model."""

from __future__ import annotations


class ModelCallError(RuntimeError):
    """A model that gave no answer; the cause is chained.

    Attributes:
        attempts: how often it was asked.
    """

    def __init__(self, message: str, *, attempts: int = 1) -> None:
        super().__init__(message)
        self.attempts = attempts

    @classmethod
    def from_cause(cls, model_name: str, cause: Exception, *, attempts: int = 1) -> ModelCallError:
        """Say which model gave no answer, and why; to be raised ``from`` the cause."""
        tried = f" in {attempts} attempts" if attempts > 1 else ""
        text = str(cause).strip() or "no message"
        return cls(f"{model_name} gave no answer{tried}: {type(cause).__name__}: {text}", attempts=attempts)
