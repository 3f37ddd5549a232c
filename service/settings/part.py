"""What all sections of the settings have in common. Pure."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A section: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
