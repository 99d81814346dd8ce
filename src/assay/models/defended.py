"""A model with defenses around it, which is a model again."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from assay.calls import Calls
from assay.defenses import Defense
from assay.errors import SettingError
from assay.expression import Expression
from assay.oracle import granted_access
from assay.rng import Keyed, drawing


@final
class Defended(nn.Module):
    """A model behind defenses.

    Attacks that are given this model know of the defenses: gradients get through as each declares (BPDA), and where one
    is random, questions are asked about keyed draws (`EOT`). Attacks that do not know are given `model.model`.

    Args:
        model: what is defended.
        defenses: in order, the first nearest to the input.

    Attributes:
        rejects: its last output stands for rejected inputs, and is no class.

    Shapes:
        as the model; with one output more where inputs are rejected.

    Raises:
        SettingError: there is no defense, something is none, or one rejects and is not the first.

    Example:
        >>> from assay.defenses import BitDepth
        >>> model = Defended(nn.Linear(3, 2), BitDepth(bits=1))
        >>> bool((model(torch.full((1, 3), 0.9)) == model(torch.full((1, 3), 0.8))).all())
        True
    """

    def __init__(self, model: Any, *defenses: Defense) -> None:
        super().__init__()
        if not defenses:
            raise SettingError("a Defended model needs a defense: Defended('fashion-cnn', BitDepth(bits=3)).")
        for place, defense in enumerate(defenses):
            if not isinstance(defense, Defense):
                raise SettingError(f"a defense is one that `assay list defenses` shows; got {defense!r}.")
            if defense.rejects and place:
                raise SettingError(f"{defense!r} rejects inputs, and has to be the first of the defenses.")
        self.model, self.defenses = model, nn.ModuleList(defenses)
        self.access, self.rejects = granted_access(model), defenses[0].rejects
        self.file_digest = f"Defended({', '.join(map(repr, defenses))})"
        self.training = isinstance(model, nn.Module) and model.training
        self.defenses.train(self.training)

    def forward(self, x: Tensor, *, seed: int | None = None, index: Tensor | None = None) -> Any:
        """The defended answer.

        Args:
            x: inputs.
            seed: key of what the defenses draw; when None they take the stream that the asker has set, else new numbers
                of torch's own generator.
            index: the samples' own numbers, with which draws do not depend on the batch; their places when None.

        Raises:
            SettingError: there is an index without a seed, or not one number for each input.
        """
        if seed is None:
            if index is not None:
                raise SettingError("an index keys draws together with a seed: give both.")
            return self._answer(x, 0)
        rows = torch.arange(len(x), device=x.device) if index is None else index.to(x.device)
        with drawing(Keyed(seed, rows)):
            return self._answer(x, 0)

    def _answer(self, x: Tensor, place: int) -> Any:
        last = place + 1 == len(self.defenses)
        return self.defenses[place](self.model if last else partial(self._answer, place=place + 1), x)


def defend(model: Any, *defenses: Defense | str) -> Defended:
    """A model with defenses around it: a model again, for every attack, for `evaluate` and for saving.

    Args:
        model: a module, or what `load_model` reads.
        defenses: in order, the first nearest to the input, as objects or as texts ("BitDepth(bits=3)").

    Raises:
        GrammarError: a text cannot be read.
        SettingError: there is no defense, or something is none.

    Example:
        >>> import assay
        >>> model = assay.defend("digits-mlp", "BitDepth(bits=2)")
        >>> model(torch.zeros(1, 1, 8, 8)).shape
        torch.Size([1, 10])
    """
    from assay.models.load import load_model  # which reads defended models itself

    module = load_model(model) if isinstance(model, str) else model
    return Defended(module, *(read_defense(each) if isinstance(each, str) else each for each in defenses))


def read_defense(text: str) -> Defense:
    """A defense from the call that builds it, or from the name of one that needs no settings.

    Raises:
        GrammarError: it cannot be read.

    Example:
        >>> read_defense("bit-depth")
        BitDepth()
    """
    found: Defense = Calls(text, short=True).read(Defense)
    return found


def written(spec: str, defenses: Sequence[Defense]) -> str:
    """The MODEL that is another one behind defenses.

    Example:
        >>> from assay.defenses import BitDepth
        >>> written("fashion-cnn", [BitDepth(2)])
        "Defended('fashion-cnn', BitDepth(bits=2))"
    """
    inner = spec if spec.endswith(")") else repr(spec)
    return f"Defended({', '.join([inner, *map(repr, defenses)])})"


def is_defended(spec: str) -> bool:
    """Whether a MODEL is written as a call of it, such as ``Defended('fashion-cnn', BitDepth(bits=3))``."""
    return spec.partition("(")[0].strip() == "Defended" and spec.rstrip().endswith(")")


def read_defended(spec: str, read: Callable[[str], nn.Module]) -> Defended:
    """The defended model of a text.

    Args:
        spec: such as ``Defended('fashion-cnn', BitDepth(bits=3))``.
        read: what reads the MODEL inside.

    Raises:
        GrammarError: it cannot be read.
        SettingError: the defenses do not go together.
    """
    inner, defenses = DefendedSpec(spec).parts()
    return Defended(read(inner), *map(read_defense, defenses))


@final
class DefendedSpec(Expression):
    """``Defended('a', BitDepth(bits=3))`` in parts: the MODEL inside, and the text of each defense.

    Args:
        text: what the user wrote.

    Raises:
        GrammarError: it cannot be read.

    Example:
        >>> DefendedSpec("Defended(Ensemble('a', 'b'), BitDepth(bits=3), JPEGDefense(75))").parts()
        ("Ensemble('a', 'b')", ['BitDepth(bits=3)', 'JPEGDefense(75)'])
    """

    def parts(self) -> tuple[str, list[str]]:
        """The MODEL inside, and each defense, as texts."""
        found: tuple[str, list[str]] = self.visit(self.tree)
        return found

    def call(self, node: ast.Call, depth: int) -> Any:
        """The defended model itself; what is inside stays a text."""
        if depth:
            return ast.unparse(node)
        if node.keywords or len(node.args) < 2:
            raise self.error("Defended takes a MODEL in quotes and the calls of its defenses", node)
        model, *defenses = (self.visit(argument, depth + 1) for argument in node.args)
        for each, place in zip((model, *defenses), node.args, strict=True):
            if not isinstance(each, str) or (place is not node.args[0] and not isinstance(place, ast.Call)):
                raise self.error("Defended takes a MODEL in quotes and the calls of its defenses", place)
        return model, defenses
