"""The algebra: random graphs of operations mean the same fused and as they were written; what fusion spares."""

import random

import numpy as np
import pytest
import torch
from program_meaning import meaning
from systems import gnn, radial

from mdgnn import NeighborList
from mdgnn.engine import trace
from mdgnn.engine.algebra import Algebra
from mdgnn.engine.fusion import fuse, reachable
from mdgnn.engine.lowering import _Writer
from mdgnn.engine.program import Program
from mdgnn.ops import RadialTable

CUTOFF = 2.0


class RandomGraph:
    """Arrays of any components and channels, used once or often, known or computed; parts; columns side by side."""

    def __init__(self, seed):
        self.rng, self.normal = random.Random(seed), torch.Generator().manual_seed(seed)
        self.algebra = Algebra(lambda: ("", 0), str)
        self.known = [self.algebra.known(self.weight(2, 1, c), "atom") for c in (3, 4, 1)]
        self.known += [self.algebra.known(torch.zeros(1, 3, 4, dtype=torch.float64), "atom")]
        self.arrays = []
        self.message(self.known[0])
        for _ in range(self.rng.randint(4, 16)):
            getattr(
                self, self.rng.choice(["unary", "binary", "binary", "sums", "linear", "linear", "parts", "message"])
            )()
        total = self.algebra.linear(self.pick(components=1), self.weight(1, self.arrays[-1].channels))
        for x in self.arrays[-3:]:
            for axis in ("component", "channel"):
                x = self.algebra.sum(x, axis)
            total = self.algebra.binary("add", total, x)
        self.root = self.algebra.computed(total)

    def weight(self, *shape):
        return torch.randn(shape, generator=self.normal, dtype=torch.float64) / max(1, shape[-1]) ** 0.5

    def add(self, node):
        self.arrays.append(node)
        return node

    def pick(self, components=None):
        fits = [x for x in self.arrays + self.known if components in (None, x.components)]
        x = self.rng.choice(fits)
        self.arrays.append(x)
        return x

    def unary(self):
        op, *numbers = self.rng.choice(
            [
                ("scale", -0.7),
                ("add_constant", 0.3),
                ("silu",),
                ("tanh",),
                ("sigmoid",),
                ("softplus",),
                ("clamp_min", 0.1),
            ]
        )
        return self.add(self.algebra.unary(op, self.pick(), *numbers))

    def binary(self):
        op, x = self.rng.choice(["add", "subtract", "multiply"]), self.pick()
        fits = [y for y in self.arrays + self.known if all(1 in (a, b) or a == b for a, b in zip(x.shape, y.shape))]  # noqa: B905
        y = self.rng.choice(fits)
        if self.rng.random() < 0.2:
            y = self.algebra.known(self.weight(1, 1, x.channels), "atom")
        return self.add(self.algebra.binary(op, x, y))

    def sums(self):
        return self.add(self.algebra.sum(self.pick(), self.rng.choice(["component", "channel"])))

    def linear(self):
        x = self.pick()
        out = self.algebra.linear(x, self.weight(self.rng.choice([1, 3, 4, 8]), x.channels))
        if x.components == 1 and self.rng.random() < 0.5:
            out = self.algebra.binary("add", out, self.algebra.known(self.weight(1, 1, out.channels), "atom"))
        return self.add(out)

    def parts(self):
        x = self.pick()
        first = self.rng.randrange(x.channels)
        part = self.algebra.slice(x, (0, x.components), (first, self.rng.randint(1, x.channels - first)))
        if self.rng.random() < 0.5:
            part = self.algebra.cat([part, self.pick(components=x.components)])
        return self.add(part)

    def message(self, x=None):
        x = self.pick(components=1) if x is None else x
        table = RadialTable(self.weight(5, 4, x.channels), CUTOFF)
        (out,) = self.algebra.message("cfconv", [x], [x.shape], table)
        return self.add(out)

    def program(self, root):
        program = Program(torch.float64, "sum", CUTOFF, element_of=[-1, 0, 1], scale=[1.0, 2.0], shift=[0.0, -1.0])
        (program.energies,) = _Writer(program, program, 2, {}).arrays_of([root])
        return program


@pytest.mark.parametrize("first", range(0, 120, 20))
def test_a_fused_graph_means_the_same(first):
    ran = 0
    for seed in range(first, first + 20):
        graph = RandomGraph(seed)
        (fused,) = fuse(graph.algebra, [graph.root])
        assert len(reachable(fused)) <= len(reachable(graph.root)), seed
        rng = np.random.default_rng(seed)
        edges = NeighborList(CUTOFF).update(rng.uniform(0, 2.5, (9, 3)))
        given = rng.integers(1, 3, 9), edges.senders, edges.receivers, edges.vectors
        energies, forces = meaning(graph.program(graph.root), *given)
        assert torch.isfinite(energies).all() and torch.isfinite(forces).all(), seed
        if max(energies.abs().max(), forces.abs().max()) > 1e6:  # rounding would be all there is to see
            continue
        ran += 1
        ours, of_ours = meaning(graph.program(fused), *given)
        scale = max(1.0, float(energies.abs().max()), float(forces.abs().max()))
        torch.testing.assert_close(ours, energies, rtol=0, atol=1e-10 * scale)
        torch.testing.assert_close(of_ours, forces, rtol=0, atol=1e-10 * scale)
    assert ran >= 15


def test_several_results_stay_what_they_are_and_share_what_they_did():
    for seed in range(40):
        graph = RandomGraph(seed)
        sums = [graph.algebra.sum(graph.algebra.sum(x, "component"), "channel") for x in graph.arrays[::3]]
        roots = [graph.root, *map(graph.algebra.computed, sums), graph.root]
        fused = fuse(graph.algebra, roots)
        assert fused[0] is fused[-1] and len(fused) == len(roots)
        assert len(reachable(*fused)) <= len(reachable(*roots)), seed
        edges = NeighborList(CUTOFF).update(np.random.default_rng(seed).uniform(0, 2.5, (9, 3)))
        given = np.ones(9, dtype=np.int64), edges.senders, edges.receivers, edges.vectors
        for one, other in zip(roots, fused, strict=True):
            expected, energies = (meaning(graph.program(x), *given)[0] for x in (one, other))
            scale = max(1.0, float(expected.abs().max()))
            if scale < 1e6:
                torch.testing.assert_close(energies, expected, rtol=0, atol=1e-10 * scale)


def operations(model):
    return [i.op for i in trace(model).instructions]


def test_what_fusion_spares():
    """What elements decide is looked up; no layer stands upon another; sums of products and residuals are one pass."""
    instructions = trace(gnn()).instructions
    made = {v: i.op for i in instructions for v in i.outputs}
    assert not any(made[v] == "linear" for i in instructions if i.op == "linear" for v in i.inputs)
    first = next(i for i in instructions if i.op == "concat_message_table")
    assert [made[v] for v in first.inputs] == ["embed"]
    of_painn = operations(radial("PaiNN"))
    assert of_painn.count("dot") == 4 and not {"sum_components", "add_weight", "scale", "copy"} & set(of_painn)
    assert {"add_weight", "multiply_weight", "scale"}.isdisjoint(operations(radial("SchNet")))


def test_tables_keep_their_weights():
    """They are those of the networks, so that a file need not hold them twice."""
    model = radial("SchNet")
    program = trace(model)
    named = {n for t in program.tables for i in t.instructions for n in i.weights if i.op == "linear"}
    own = [p.detach() for network in model.filters.networks for p in network.parameters()]
    assert len(named) == len(own) == 8
    assert all(any(torch.equal(program.weights[n], p) for p in own) for n in named)


def test_constants_that_the_dtype_cannot_hold_are_sums_of_two():
    """The rates of a repulsion are no float32 numbers; rounded, exponentials of them would be off by 1e-6."""
    program = trace(radial("SchNet", torch.float32, repulsion=0.8))
    table = program.tables[-1]
    assert [i.op for i in table.instructions].count("multiply_weight") == 2
    rates = [program.weights[i.weights[0]].double() for i in table.instructions if i.op == "multiply_weight"]
    model = radial("SchNet", torch.float32, repulsion=0.8)
    exact = 60.0 * torch.sigmoid(model.repulsion.functions.basis.rates.detach().double())
    assert float((sum(rates) - exact).abs().max()) < 1e-12 < float((rates[0] - exact).abs().max())
