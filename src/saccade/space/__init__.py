"""The search space: which configurations exist.

A space consists of domains, nested to any depth, and constants::

    from saccade.space import Categorical, Dict, Int, Real

    space = Dict(
        model=Categorical("resnet18", "vit_tiny_patch16_224"),
        lr=Real(1e-4, 1e-1, log=True),
        epochs=Int(5, 20),
        batch_size=32,
    )
    config = space.sample(0)

A choice of a `Categorical` may be a space itself. Such a space is *conditional*: the parameters of a choice exist
only where it is chosen.

==========================  =====================================================================
`Real`, `Int`, `Bool`       a number, a whole number, True or False
`Categorical`               one of several values or spaces
`List`, `Dict`              several values, by position or by name
`from_json`                 a space from the result of its `to_json()`
`grid`                      the configurations of an evenly spaced grid, lazily
`to_optuna`, `from_optuna`  Optuna's distributions; Optuna's parameters as a configuration
`suggest`, `encode`         a configuration from an Optuna trial; a configuration as parameters
`parameters`                the parameters of a space by name
`canonical_key`             a key that equal configurations share
==========================  =====================================================================
"""

from saccade.errors import missing_attributes
from saccade.space.base import Space, canonical_key
from saccade.space.composite import Categorical, Dict, List, from_json
from saccade.space.flat_form import encode, from_optuna, grid, parameters, suggest, to_optuna
from saccade.space.numeric import Bool, Int, Real

__all__ = [
    "Bool",
    "Categorical",
    "Dict",
    "Int",
    "List",
    "Real",
    "Space",
    "canonical_key",
    "encode",
    "from_json",
    "from_optuna",
    "grid",
    "parameters",
    "suggest",
    "to_optuna",
]

__getattr__ = missing_attributes(__name__, __all__)
