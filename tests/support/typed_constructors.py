"""What mypy says of constructors of models: `make check` fails for a comment here that ignores no error."""

from mdgnn import LennardJones, PaiNN, SchNet, SimpleGNN

LennardJones(1.0, 1.0, cutoff=2.5, mode="smooth")
PaiNN(64, 3, 20, cutoff=5.0, elements=[1, 8], basis="bessel")
SchNet(n_features=64, envelope="cosine")
SimpleGNN(3, 32, 16, 3, envelope=None, aggregation="mean", basis=(0.5, 5.0, 0.5))
PaiNN("64")  # type: ignore[arg-type]
PaiNN(64, 3, 20, 5.0)  # type: ignore[call-arg]
SchNet(cutof=5.0)  # type: ignore[call-arg]
SimpleGNN(n_features=64)  # type: ignore[call-arg]
LennardJones(cutoff="2.5")  # type: ignore[arg-type]
