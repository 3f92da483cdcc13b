"""Programs for images of one size, for runtimes without dynamic shapes or float64."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_arg

from saccade.export.module import ExportModule, exported_program


class FixedSizeModule(nn.Module):
    """An `ExportModule` for images of one size, whose operations that depend on the size alone are constants.

    These are the matrices that resize images, and resized position embeddings. What remains is computed in float32.
    `num` images are predicted at a time; None is any number.
    """

    def __init__(self, module: ExportModule, size: tuple[int, int], num: int | None = 1) -> None:
        super().__init__()
        self.num, self.example = num, module.example(num or 2, *size)
        traced = exported_program(module, self.example, [0] if num is None else []).run_decompositions({}).module()
        values: dict[fx.Node, Any] = {}
        with torch.no_grad():
            for node in traced.graph.nodes:
                if node.op == "get_attr":
                    owner, _, name = node.target.rpartition(".")
                    values[node] = getattr(traced.get_submodule(owner), name)
                elif node.op == "call_function" and node.users and all(each in values for each in node.all_input_nodes):
                    args, kwargs = (map_arg(given, values.__getitem__) for given in (node.args, node.kwargs))
                    values[node] = node.target(*args, **kwargs)
        self._constants: dict[fx.Node, str | None] = {}
        for number, (node, value) in enumerate(values.items()):
            is_used = isinstance(value, torch.Tensor) and any(user not in values for user in node.users)
            self._constants[node] = f"constant_{number}" if is_used else None
            if is_used:
                value = value.float() if value.dtype == torch.float64 else value
                self.register_buffer(f"constant_{number}", value.detach().contiguous())
        self._traced = [traced]  # in a list, since its parameters are not those of this module
        self.training = False

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs of the `ExportModule`; images may also be whole numbers in float32."""
        constants = {node: name and getattr(self, name) for node, name in self._constants.items()}
        found: tuple[torch.Tensor, ...] = _InFloat32(self._traced[0], constants).run(images)
        return found

    def program(self) -> torch.export.ExportedProgram:
        """Return this module as a program."""
        return self.program_of(self, self.example)

    def program_of(self, module: nn.Module, images: torch.Tensor) -> torch.export.ExportedProgram:
        """Return a module that calls this one as a program, given an example of its input."""
        dynamic = [{0: torch.export.Dim.DYNAMIC}] if self.num is None else None
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.export.export(module, (images,), dynamic_shapes=dynamic, strict=False)


class _InFloat32(fx.Interpreter):
    """Run a graph with constants in float32, without its assertions."""

    def __init__(self, traced: fx.GraphModule, constants: dict[fx.Node, Any]) -> None:
        super().__init__(traced)
        self.constants = constants

    def run_node(self, n: fx.Node) -> Any:
        if n in self.constants:
            return self.constants[n]
        if n.op == "call_module" or (n.op == "call_function" and not n.users):  # assertions
            return None
        return super().run_node(n)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target is torch.ops.aten.topk.default:  # some runtimes cannot sort
            return (_largest(*args), None)
        args = tuple(torch.float32 if each is torch.float64 else each for each in args)
        kwargs = {name: torch.float32 if each is torch.float64 else each for name, each in kwargs.items()}
        return super().call_function(target, args, kwargs)


def _largest(x: torch.Tensor, num: int, dim: int = 1) -> torch.Tensor:
    """Return the `num` largest values of each row, one after the other."""
    found, columns = [], torch.arange(x.shape[dim])
    for _ in range(num):
        found.append(x.amax(dim, keepdim=True))
        x = torch.where(columns == x.argmax(dim, keepdim=True), torch.full_like(x, -torch.inf), x)
    return torch.cat(found, dim)
