"""The search space: which configurations exist.

A space is built from domains, nested at will, with constants beside them::

    from saccade.space import Categorical, Dict, Int, Real

    space = Dict(
        model=Categorical("resnet18", "vit_tiny_patch16_224"),
        lr=Real(1e-4, 1e-1, log=True),
        epochs=Int(5, 20),
        batch_size=32,
    )
    config = space.sample(0)

A choice of a `Categorical` may be a space itself, which makes the space *conditional*: what is under
that choice exists only where the choice was made.

==========================  =================================================================
`Real`, `Int`, `Bool`       one number, one whole number, yes or no
`Categorical`               one of several values or spaces
`List`, `Dict`              several values at once, by position or by name
`from_json`                 a space from what its `to_json()` gave
`grid`                      the configurations of an evenly spaced grid, lazily
`to_optuna`, `from_optuna`  Optuna's distributions, and Optuna's parameters back as a configuration
`suggest`, `encode`         ask an Optuna trial for a configuration; a configuration as parameters
`parameters`                the parameters of a space by name
`canonical_key`             tells whether two configurations are the same
==========================  =================================================================
"""

from saccade.space.base import Space
from saccade.space.composite import Categorical, Dict, List
from saccade.space.constants import canonical_key
from saccade.space.grid import grid
from saccade.space.json_form import from_json
from saccade.space.names import parameters
from saccade.space.numeric import Bool, Int, Real
from saccade.space.optuna_form import encode, from_optuna, suggest, to_optuna

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
