"""BaRA in peft's registry, so that `get_peft_model`, `save_pretrained` and `PeftModel.from_pretrained` know it."""

from __future__ import annotations

from peft import PeftType
from peft.utils import register_peft_method

NAME = "bara"


def register() -> None:
    """Make the method known to peft, once in a process."""
    if NAME.upper() in PeftType.__members__:
        return
    _add_member(NAME.upper())
    from probes.training.bara.config import BaraConfig
    from probes.training.bara.model import BaraModel

    register_peft_method(name=NAME, config_cls=BaraConfig, model_cls=BaraModel)


def _add_member(name: str) -> None:
    """A new member of peft's closed list of types, which `register_peft_method` asks for and does not make."""
    member = str.__new__(PeftType, name)
    member._name_ = member._value_ = name
    PeftType._member_map_[name] = PeftType._value2member_map_[name] = member
    PeftType._member_names_.append(name)
    type.__setattr__(PeftType, name, member)
