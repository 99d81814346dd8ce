"""A safe calculator: literals, arithmetic on numbers, and hooks for names and calls; errors show the place.

Nothing is evaluated as code. What names and calls mean is the business of a subclass (`assay.grammar`).
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from assay.errors import GrammarError

T = TypeVar("T")

_LONGEST = 4_000  # characters
_DEEPEST = 40  # nested expressions
_SHOWN = 100  # characters of a line
_LARGEST = 2**64  # whole numbers beyond this are refused
_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
CONSTANTS: dict[str, object] = {"none": None, "true": True, "false": False, "inf": math.inf}


class Expression:
    """One text and its tree.

    Args:
        text: what the user wrote; shown in errors.
        source: the same in full form, every character at the same place.

    Raises:
        GrammarError: the text is empty, too long, or no expression.
    """

    def __init__(self, text: str, source: str | None = None) -> None:
        self.text = text
        if not text.strip():
            raise GrammarError("the expression is empty; write for instance PGD(threat=Linf(8/255), steps=100).")
        if len(text) > _LONGEST:
            raise GrammarError(f"the expression has {len(text)} characters; at most {_LONGEST} are read.")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.tree = ast.parse(text if source is None else source, mode="eval").body
        except SyntaxError as error:
            column = max((error.offset or 1) - 1, 0)
            raise GrammarError(self._shown(f"cannot be read: {error.msg}", error.lineno or 1, column)) from None
        except (ValueError, RecursionError, MemoryError):
            raise GrammarError("the expression cannot be read: it is nested too deeply or not text.") from None

    def visit(self, node: ast.expr, depth: int = 0) -> Any:
        """The value of a node.

        Raises:
            GrammarError: the node is none of those that are known, or deeper than 40.
        """
        if depth > _DEEPEST:
            raise self.error(f"nested more than {_DEEPEST} deep", node)
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None as constant):
                return self._bounded(constant, node)
            case ast.Name():
                return self.name(node)
            case ast.Tuple(elts=parts):
                return tuple(self.visit(part, depth + 1) for part in parts)
            case ast.List(elts=parts):
                return [self.visit(part, depth + 1) for part in parts]
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
                number = self._number(operand, depth)
                return -number if isinstance(sign, ast.USub) else number
            case ast.BinOp(op=op) if type(op) in _OPERATIONS:
                return self._arithmetic(node, depth)
            case ast.Call():
                return self.call(node, depth)
        raise self.error("only names, numbers, texts, lists and calls of known names may stand here", node)

    def name(self, node: ast.Name) -> Any:
        """The value of a bare name."""
        if node.id.casefold() in CONSTANTS:
            return CONSTANTS[node.id.casefold()]
        raise self.error(f"unknown name {node.id!r}", node)

    def call(self, node: ast.Call, depth: int) -> Any:
        """The value of a call."""
        raise self.error("nothing can be called here", node.func)

    def error(self, problem: str, node: ast.AST) -> GrammarError:
        """The error to raise: the problem, and the text with the node marked."""
        line = getattr(node, "lineno", 1)
        start = getattr(node, "col_offset", 0)
        end = getattr(node, "end_col_offset", None) if getattr(node, "end_lineno", line) == line else None
        raw = self.text.splitlines()[line - 1].encode()  # ast counts bytes
        column = len(raw[:start].decode(errors="replace"))
        width = len(raw[start:end].decode(errors="replace"))
        return GrammarError(self._shown(problem, line, column, width))

    def _shown(self, problem: str, line: int, column: int, width: int = 1) -> str:
        """The problem, the part of the line around it, and marks below the place."""
        lines = self.text.splitlines()
        whole = lines[min(line, len(lines)) - 1]
        begin = max(column - _SHOWN // 2, 0)
        part = whole[begin : begin + _SHOWN]
        before, after = "..." * (begin > 0), "..." * (begin + _SHOWN < len(whole))
        column += len(before) - begin
        marks = "^" * max(min(width, len(before) + len(part) - column), 1)
        return f"{problem}\n  {before}{part}{after}\n  {' ' * column}{marks}"

    def _number(self, node: ast.expr, depth: int) -> int | float:
        found = self.visit(node, depth + 1)
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            raise self.error(f"arithmetic works on numbers only, found {found!r}", node)
        return found

    def _arithmetic(self, node: ast.BinOp, depth: int) -> int | float:
        left, right = self._number(node.left, depth), self._number(node.right, depth)
        if isinstance(node.op, ast.Pow) and abs(right) > 64:
            raise self.error(f"powers go up to 64, found {right}", node.right)
        try:
            result = _OPERATIONS[type(node.op)](left, right)
        except ArithmeticError as error:
            raise self.error(f"cannot be computed: {error}", node) from None
        if not isinstance(result, (int, float)):
            raise self.error(f"the result is not a real number: {result}", node)
        return self._bounded(result, node)

    def _bounded(self, found: T, node: ast.expr) -> T:
        if isinstance(found, int) and abs(found) > _LARGEST:
            raise self.error("the number is too large", node)
        return found
