"""What all sections of the settings have in common. Pure."""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, model_validator

# Keys of the contract that come later may say what holds anyway; anything else of them is refused by name.
NEUTRAL: Final[dict[str, object]] = {"exclude": []}


class Part(BaseModel):
    """A section: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_neutral(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if key not in NEUTRAL or value != NEUTRAL[key]}
