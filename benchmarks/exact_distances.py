"""Exact smallest perturbations of a small ReLU network, by search over which units are on.

    python benchmarks/exact_distances.py [--count 60]      # a quarter of an hour; needs scipy and clarabel

The network is the shipped digits-mlp (64-20-10), the images are the first of the shipped digits that it classifies
rightly. For each image the distance to every other class is found, and the smallest is kept, in three norms:

- Linf and L1 by mixed-integer programming (SciPy's HiGHS): one binary variable for each unit that may change between
  on and off within the best distance known so far. The pattern that it finds is then fixed, and the linear program that
  is left is solved again with tolerances of 1e-10. HiGHS takes 1e-6 for an integer, so that a better pattern may be
  missed by as much.
- All norms by branch and bound over the same patterns, with the convex hull of the units not yet decided (Clarabel,
  tolerances of 1e-11). The smaller of the two answers counts, and they must agree to 1e-4.

Each smallest perturbation is tried on the network itself: just beyond it the class changes, which shows that the true
distance is no larger; that it is no smaller is what the two solvers prove, as they rule out all that is nearer.
Written: results/exact-distances.json, which `optimality.py` compares attacks with.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import clarabel
import numpy as np
import torch
from machine import describe
from scipy.optimize import LinearConstraint, linprog, milp
from scipy.sparse import csc_matrix, diags

import assay

HERE = Path(__file__).resolve().parent
NORMS = ("linf", "l1", "l2")
ORDER = {"linf": np.inf, "l1": 1, "l2": 2}
AGREE = 1e-4  # relative
STARTS = 3  # lines along which a first distance is looked for
ROOM = 1e-9  # relative gap at which a branch cannot hold anything better


@dataclass(frozen=True)
class Network:
    """`z = V relu(W x + b) + c`, and where its inputs lie."""

    w: np.ndarray
    b: np.ndarray
    v: np.ndarray
    c: np.ndarray

    @classmethod
    def of(cls, model: torch.nn.Module) -> Network:
        return cls(*(p.detach().double().numpy() for p in model.parameters()))

    def inner(self, x: np.ndarray) -> np.ndarray:
        return self.w @ x + self.b

    def logits(self, x: np.ndarray) -> np.ndarray:
        return self.v @ np.maximum(self.inner(x), 0) + self.c


@dataclass(frozen=True)
class Task:
    """From x to where class `to` is at least as likely as class `y`, within `radius`, with some units decided."""

    net: Network
    x: np.ndarray
    y: int
    to: int
    norm: str
    radius: float
    on: frozenset[int] = frozenset()
    off: frozenset[int] = frozenset()

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest value of each unit before rectification within the radius and the box."""
        z = self.net.inner(self.x)
        low, high = np.maximum(-self.x, -self.radius), np.minimum(1 - self.x, self.radius)
        up = np.where(self.net.w > 0, self.net.w * high, self.net.w * low).sum(1)
        down = np.where(self.net.w > 0, self.net.w * low, self.net.w * high).sum(1)
        if self.norm != "linf":
            dual = np.linalg.norm(self.net.w, {"l1": np.inf, "l2": 2}[self.norm], axis=1) * self.radius
            up, down = np.minimum(up, dual), np.maximum(down, -dual)
        return z + down, z + up

    def size(self, delta: np.ndarray) -> float:
        return float(np.linalg.norm(delta, ORDER[self.norm]))


class Rows:
    """Linear constraints `rows @ variables >= least` over (delta, size variables, h, a)."""

    def __init__(self, task: Task, binaries: int) -> None:
        self.d, self.units = len(task.x), len(task.net.b)
        self.extra = {"linf": 1, "l1": self.d, "l2": 0}[task.norm]
        self.h, self.a = self.d + self.extra, self.d + self.extra + self.units
        self.n = self.a + binaries
        self.rows: list[np.ndarray] = []
        self.least: list[float] = []
        self.cost = np.zeros(self.n)
        self.cost[self.d : self.h] = 1

        eye = np.eye(self.d)
        size = np.ones((self.d, 1)) if task.norm == "linf" else eye
        for sign in (1, -1):
            if self.extra:
                self.add(delta=sign * eye, size=size)
        self.add(delta=eye, least=-task.x)
        self.add(delta=-eye, least=task.x - 1)
        gap = task.net.v[task.to] - task.net.v[task.y]
        self.add(h=gap[None], least=np.array([task.net.c[task.y] - task.net.c[task.to]]))

    def add(self, *, delta=None, size=None, h=None, a=None, least=None) -> None:
        given = [part for part in (delta, size, h, a) if part is not None]
        row = np.zeros((len(given[0]), self.n))
        for part, start in ((delta, 0), (size, self.d), (h, self.h), (a, self.a)):
            if part is not None:
                row[:, start : start + part.shape[1]] += part
        self.rows.append(row)
        self.least.extend(np.zeros(len(row)) if least is None else least)

    def unit(self, task: Task, i: int, low: float, high: float, binary: int | None) -> None:
        """Unit i: decided, or between its convex hull (no binary), or off and on by a binary variable."""
        h = np.zeros((1, self.units))
        h[0, i] = 1
        w, z = task.net.w[i][None], task.net.inner(task.x)[i]
        if i in task.off or high <= 0:
            self.add(h=h)
            self.add(h=-h)
            self.add(delta=-w, least=[z])
        elif i in task.on or low >= 0:
            self.add(h=h, delta=-w, least=[z])
            self.add(h=-h, delta=w, least=[-z])
            self.add(delta=w, least=[-z])
        else:
            self.add(h=h)
            self.add(h=h, delta=-w, least=[z])
            if binary is None:
                slope = high / (high - low)
                self.add(h=-h, delta=slope * w, least=[slope * (low - z)])
            else:
                a = np.zeros((1, self.n - self.a))
                a[0, binary] = 1
                self.add(h=-h, a=high * a)
                self.add(h=-h, delta=w, a=low * a, least=[low - z])

    def matrix(self) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate(self.rows), np.array(self.least)


def by_integers(task: Task) -> np.ndarray | None:
    """The smallest perturbation by mixed-integer programming, polished with its pattern of units fixed."""
    low, high = task.bounds()
    open_units = [i for i in range(len(low)) if low[i] < 0 < high[i]]
    rows = Rows(task, len(open_units))
    for i in range(len(low)):
        rows.unit(task, i, low[i], high[i], open_units.index(i) if i in open_units else None)
    matrix, least = rows.matrix()
    whole = np.zeros(rows.n)
    whole[rows.a :] = 1
    lowest = np.full(rows.n, -np.inf)
    highest = np.full(rows.n, np.inf)
    lowest[rows.a :], highest[rows.a :] = 0, 1
    limit = LinearConstraint(rows.cost[None], -np.inf, task.radius)
    found = milp(
        rows.cost,
        integrality=whole,
        bounds=(lowest, highest),
        constraints=[LinearConstraint(csc_matrix(matrix), least), limit],
        options={"mip_rel_gap": 0.0},
    )
    if found.status == 2:  # infeasible: nothing within the radius
        return None
    if not found.success:
        raise SystemExit(f"the solver stopped: {found.message}")
    return polished(task, found.x[: rows.d])


def polished(task: Task, delta: np.ndarray) -> np.ndarray:
    """The smallest perturbation with the units on and off as they are at `delta`."""
    inner = task.net.inner(task.x + delta)
    fixed = replace(task, on=frozenset(np.flatnonzero(inner > 0)), off=frozenset(np.flatnonzero(inner <= 0)))
    best: np.ndarray | None = None
    for flip in (None, *np.flatnonzero(np.abs(inner) < 1e-5)):  # a unit at its edge may belong to either side
        tried = fixed if flip is None else replace(fixed, on=fixed.on ^ {flip}, off=fixed.off ^ {flip})
        found = decided(tried)
        if found is not None and (best is None or task.size(found) < task.size(best)):
            best = found
    return delta if best is None else best


def decided(task: Task) -> np.ndarray | None:
    """The smallest perturbation where every unit is decided: a linear or quadratic program."""
    if task.norm == "l2":
        found = relaxed(replace(task, radius=np.inf))
        return None if found is None else found[1]
    rows = Rows(task, 0)
    for i in range(len(task.net.b)):
        rows.unit(task, i, 0, 0, None)
    matrix, least = rows.matrix()
    tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    solved = linprog(rows.cost, A_ub=-matrix, b_ub=-least, bounds=(None, None), method="highs", options=tight)
    return solved.x[: len(task.x)] if solved.success else None


def relaxed(task: Task) -> tuple[float, np.ndarray, np.ndarray, np.ndarray] | None:
    """Size, perturbation, unit outputs and units before rectification of the convex relaxation; None if it is empty."""
    low, high = task.bounds()
    if any(low[i] > 0 for i in task.off) or any(high[i] < 0 for i in task.on):
        return None
    rows = Rows(task, 0)
    for i in range(len(low)):
        rows.unit(task, i, low[i], high[i], None)
    matrix, least = rows.matrix()
    square = np.zeros(rows.n)
    if task.norm == "l2":
        square[: rows.d] = 2
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
    cones = [clarabel.NonnegativeConeT(len(least))]
    solver = clarabel.DefaultSolver(csc_matrix(diags(square)), rows.cost, csc_matrix(-matrix), -least, cones, settings)
    found = solver.solve()
    if str(found.status) in ("PrimalInfeasible", "AlmostPrimalInfeasible"):
        return None
    if str(found.status) not in ("Solved", "AlmostSolved", "InsufficientProgress"):
        raise SystemExit(f"the solver stopped: {found.status}")
    solution = np.array(found.x)
    delta, h = solution[: rows.d], solution[rows.h : rows.h + rows.units]
    return task.size(delta), delta, h, task.net.inner(task.x + delta)


def by_branches(task: Task) -> np.ndarray | None:
    """The smallest perturbation by depth-first branch and bound."""
    best, radius = None, task.radius
    stack = [task]
    while stack:
        node = stack.pop()
        found = relaxed(replace(node, radius=radius))
        if found is None or found[0] > radius * (1 - ROOM if best is not None else 1 + ROOM):
            continue
        size, delta, h, inner = found
        wrong = np.abs(h - np.maximum(inner, 0))
        decided = [*node.on, *node.off]
        wrong[decided] = 0
        if wrong.max() < 1e-9:
            best, radius = delta, min(radius, size)
            continue
        unit = int(wrong.argmax())
        nearer = inner[unit] > 0
        sides = (replace(node, off=node.off | {unit}), replace(node, on=node.on | {unit}))
        stack.extend(sides if nearer else sides[::-1])
    return best


def first_guess(net: Network, x: np.ndarray, y: int, others: np.ndarray, norm: str) -> float:
    """A distance at which another class is known: along a line, then the smallest in one pattern after another."""
    best = np.inf
    for other in sorted(others - x, key=lambda step: np.linalg.norm(step, ORDER[norm]))[:STARTS]:
        near, far = 0.0, 1.0
        for _ in range(50):
            middle = (near + far) / 2
            near, far = (near, middle) if net.logits(x + middle * other).argmax() != y else (middle, far)
        delta = far * other
        to = int(net.logits(x + delta * (1 + 1e-6)).argmax())
        task = Task(net=net, x=x, y=y, to=to, norm=norm, radius=1.0)
        size = task.size(delta)
        while True:
            delta = polished(task, delta)
            if task.size(delta) > size * (1 - 1e-6):
                break
            size = task.size(delta)
        best = min(best, size)
    return best * (1 + 1e-6)


def smallest(net: Network, x: np.ndarray, y: int, others: np.ndarray, norm: str, solve) -> tuple[float, int]:
    """The exact distance of an image, and the class on the other side."""
    radius, best = first_guess(net, x, y, others, norm), None
    z = net.logits(x)
    for to in np.argsort(-z):
        if to == y:
            continue
        task = Task(net=net, x=x, y=y, to=int(to), norm=norm, radius=radius)
        delta = solve(task)
        if delta is None or (best is not None and task.size(delta) >= radius):
            continue
        radius, best = task.size(delta) * (1 + 1e-7), (task.size(delta), int(to), delta)
    if best is None:
        raise SystemExit("no other class within a distance at which one is known")
    size, to, delta = best
    beyond = net.logits(x + delta * (1 + 1e-6))
    if beyond[to] <= beyond[y]:
        raise SystemExit(f"the class does not change at the distance found: {beyond[to] - beyond[y]:g}")
    return size, to


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=60, help="images")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()

    model = assay.load_model("digits-mlp").double()
    data = assay.load_data("digits")
    x, y = data.x.double(), data.y
    right = (model(x).argmax(1) == y).nonzero().squeeze(1)
    net, flat = Network.of(model), x.flatten(1).numpy()
    predicted = model(x).argmax(1).numpy()
    lines, began, apart = [], time.time(), 0.0
    for index in right[: options.count].tolist():
        label = int(y[index])
        line: dict[str, object] = {"index": index, "label": label}
        others = flat[predicted != label]
        for norm in NORMS:
            line[norm], line[f"{norm}_class"] = smallest(net, flat[index], label, others, norm, by_branches)
            if norm != "l2":
                again = smallest(net, flat[index], label, others, norm, by_integers)
                apart = max(apart, abs(again[0] / line[norm] - 1))
                line[norm], line[f"{norm}_class"] = min((line[norm], line[f"{norm}_class"]), again)
        lines.append(line)
        shown = "  ".join(f"{norm} {line[norm]:.6f}" for norm in NORMS)
        print(f"{len(lines)} of {options.count}: {shown}  {time.time() - began:.0f} s", file=sys.stderr, flush=True)
    print(f"the two solvers differ by {apart:.1e} at most", file=sys.stderr)
    if apart > AGREE:
        raise SystemExit("the two solvers disagree")
    report = {"machine": describe(1), "model": "digits-mlp", "data": "digits", "solvers_differ_by": apart}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "exact-distances.json").write_text(json.dumps({**report, "images": lines}, indent=1) + "\n")


if __name__ == "__main__":
    main()
