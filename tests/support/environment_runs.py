"""What a calculator and a command give, as JSON, and what they change of the process: run by test_fault_environment.py.

``python environment_runs.py FOLDER`` does it once, in the environment it is in. ``python environment_runs.py FOLDER
--set`` does it once for each of `SETTINGS`, each in a child by fork that makes the setting: torch is loaded but once.
"""

import hashlib
import json
import locale
import os
import random
import signal
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

# Under -O, only the first: ASE then fails to read extended XYZ, where a line is read within an assert.
COMMANDS = ("relax lj:7 --steps 3 --fmax 1e-9", "md water.xyz --model water --ensemble langevin --steps 5")
OF_RUNS = ("trajectory.xyz", "log.csv", "final.xyz")


def set_decimal_comma():
    """Of the locales here, or of one that is made."""
    for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "nl_NL.UTF-8"):
        try:
            locale.setlocale(locale.LC_ALL, name)
        except locale.Error:
            continue
        return
    made = Path.cwd() / "locales"
    made.mkdir()
    command = ["localedef", "-i", "de_DE", "-f", "UTF-8", str(made / "de_DE.UTF-8")]
    try:
        subprocess.run(command, check=True, capture_output=True)
        os.environ["LOCPATH"] = str(made)
        locale.setlocale(locale.LC_ALL, "de_DE.UTF-8")
    except (OSError, subprocess.CalledProcessError, locale.Error):
        raise NotImplementedError("no locale with a decimal comma here, and none can be made") from None


def set_numpy_raises():
    import numpy as np

    np.seterr(all="raise")


def set_numpy_prints_little():
    import numpy as np

    np.set_printoptions(precision=1, threshold=2, suppress=True, sign="+", floatmode="fixed")


def of_torch(name, *arguments):
    def make():
        import torch

        getattr(torch, name)(*(getattr(torch, x[1:]) if str(x).startswith("@") else x for x in arguments))

    return make


def set_agg():
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["axes.formatter.use_locale"] = True
    matplotlib.rcParams["savefig.dpi"] = 30


SETTINGS = {  # by a caller
    "nothing": lambda: None,
    "a decimal comma": set_decimal_comma,
    "numpy raises": set_numpy_raises,
    "numpy prints little": set_numpy_prints_little,
    "warnings are errors": lambda: warnings.simplefilter("error"),
    "float64 is torch's dtype": of_torch("set_default_dtype", "@float64"),
    "float16 is torch's dtype": of_torch("set_default_dtype", "@float16"),
    "meta is torch's device": of_torch("set_default_device", "meta"),
    "torch is deterministic": of_torch("use_deterministic_algorithms", True),
    "no gradients": of_torch("set_grad_enabled", False),
    "one thread": of_torch("set_num_threads", 1),
    "three threads": of_torch("set_num_threads", 3),
    "low precision of products": of_torch("set_float32_matmul_precision", "medium"),
    "matplotlib's settings": set_agg,
}
OF_FILES = ("a decimal comma", "numpy raises", "numpy prints little", "warnings are errors", "matplotlib's settings")


def state():
    """What a process has once, as text. What ASE and torch load at their first use adds filters of warnings."""
    import ase.build  # noqa: F401
    import matplotlib
    import numpy as np
    import torch

    x = torch.zeros(1, requires_grad=True, device="cpu", dtype=torch.float32)
    with torch.enable_grad():
        torch.autograd.grad(x, x, torch.ones_like(x))

    return {
        "torch's default dtype": str(torch.get_default_dtype()),
        "torch's default device": str(torch.get_default_device()),
        "grad mode": str(torch.is_grad_enabled()),
        "torch's threads": str(torch.get_num_threads()),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()),
        "precision of products": torch.get_float32_matmul_precision(),
        "numpy's errors": str(np.geterr()),
        "numpy's printing": str(np.get_printoptions()),
        "warnings' filters": str([(*f[:1], str(f[1]), f[2].__name__, str(f[3]), f[4]) for f in warnings.filters]),
        "signal handlers": str({n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}),
        "locale": locale.setlocale(locale.LC_ALL),
        "environment": str(sorted(os.environ.items())),
        "random's state": str(random.getstate()),
        "numpy's random state": str([np.asarray(x).tolist() for x in np.random.get_state()]),
        "torch's random state": hashlib.sha256(bytes(torch.get_rng_state().tolist())).hexdigest(),
        "matplotlib's settings": str(sorted(map(str, matplotlib.rcParams.copy().items()))),
        "matplotlib's backend": str(matplotlib.rcParams._get("backend")),
        "folder": str(Path.cwd()),
        "recursion": str(sys.getrecursionlimit()),
        "excepthook": str(sys.excepthook),
    }


def numbers():
    """Results of calculators to the last bit, by the models with and without heads, and both backends."""
    import numpy as np
    from ase import Atoms
    from ase.build import bulk, molecule

    import mdgnn

    water = molecule("H2O", cell=[6.0, 6.5, 7.0], pbc=True)
    results = {}
    for model, atoms in (("water", water), ("lj", bulk("Ar", "fcc", a=1.6, cubic=True))):
        for backend in ("engine", "torch"):
            atoms.calc = mdgnn.MDGNNCalculator(model, backend=backend)
            of_all = [atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()]
            (alone,) = atoms.calc.evaluate([atoms], stress=True)
            of_all += [alone["energy"], alone["forces"], alone["stress"]]
            results[f"{model} by {backend}"] = [np.asarray(x, dtype=float).tobytes().hex() for x in of_all]
    exact = mdgnn.LennardJones(cutoff=2.5)
    argon = Atoms("Ar3", [[0, 0, 0], [1.1, 0, 0], [0, 1.2, 0]], calculator=mdgnn.MDGNNCalculator(exact))
    results["Lennard-Jones"] = np.asarray(argon.get_forces()).tobytes().hex()
    results["neighbours"] = str([x.tolist() for x in mdgnn.neighbor_list("ijd", water, 3.0)])
    mdgnn.save(mdgnn.load("water"), "saved.safetensors")
    results["a file"] = hashlib.sha256(Path("saved.safetensors").read_bytes()).hexdigest()
    return results


def commands(lines):
    """The files that commands leave, but for pictures, and their status."""
    from ase.build import molecule

    from mdgnn.cli import app

    molecule("H2O", vacuum=3.0).write("water.xyz")
    before, argv, results = state(), sys.argv, {}
    for k, command in enumerate(lines):
        sys.argv = ["mdgnn", *command.split(), "--output", f"run{k}"]
        try:
            app()
        except SystemExit as end:
            results[f"{command}: status"] = str(end.code)
        for name in OF_RUNS:
            path = Path(f"run{k}", name)
            results[f"{command}: {name}"] = path.read_text() if path.exists() else "none"
    sys.argv, after = argv, state()
    for name in ("signal handlers", "warnings' filters", "numpy's errors", "torch's threads", "grad mode"):
        if before[name] != after[name]:
            results[f"{name} after commands"] = after[name]
    return results


def once(folder, setting=None, lines=COMMANDS):
    """Everything, in a folder of its own; what went wrong is part of it."""
    folder.mkdir()
    os.chdir(folder)
    results = {"changed": {}, "skipped": ""}
    try:
        try:
            if setting:
                setting()
        except NotImplementedError as why:  # by this version of torch
            results["skipped"] = str(why)
            return
        before = state()
        results["numbers"] = numbers()
        after = state()
        results["changed"] = {name: [before[name], after[name]] for name in before if before[name] != after[name]}
        results["commands"] = commands(lines)
    except BaseException:
        results["error"] = traceback.format_exc()
    finally:
        (folder / "found.json").write_text(json.dumps(results))


def main():
    folder = Path(sys.argv[1]).resolve()
    if "--set" not in sys.argv:
        once(folder, lines=COMMANDS if __debug__ else COMMANDS[:1])
        return
    import ase.build  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import torch  # noqa: F401

    folder.mkdir()
    for name, setting in SETTINGS.items():
        child = os.fork()
        if child == 0:
            import mdgnn.threads

            mdgnn.threads._forked = False  # torch had no threads in the parent that could have been lost
            lines = COMMANDS[:1] if name in OF_FILES else ()
            once(folder / name.replace(" ", "_").replace("'", ""), setting, lines)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
