"""Get the acetylacetone data: python mdgnn/pretrained/get_acac.py FOLDER

500 geometries of one molecule to train on and 650 to test on, from dynamics at 300 K by xTB, with energies (eV) and
forces (eV/Angstrom) by ORCA (PBE + D3, def2-SVP), and the energies of the lone atoms. By the authors of "The Design
Space of E(3)-Equivariant Atom-Centered Interatomic Potentials": one commit of their repository, under its MIT licence.
Needs Python alone.
"""

import argparse
import hashlib
import http.client
import sys
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath

URL = "https://raw.githubusercontent.com/davkovacs/BOTNet-datasets/29e6d467317e4b5967b7ea5cbee54de953fa0d45"
SHA256 = {
    "LICENSE": "62de1b18d798144e2dfddfdd63e8fd1f7ceccfaaf91540e4a305727a016ee3bb",
    "dataset_acac/README.md": "f77cf1d5d90c6eac636049ab87dc0895e50d53a2ed6d7b65fb47687b1862beea",
    "dataset_acac/isolated_atoms.xyz": "b74f321b453374621b447d65c60979f70df1b7182c8ee0215388b2c574f33823",
    "dataset_acac/train_300K.xyz": "8f5706d6902360555a5be59395612d2afc3489a75688388a58e7275fdad68af3",
    "dataset_acac/test_MD_300K.xyz": "2291f3186a3cc6a5e05e92952c84a9237ca53f862d78fd3316a769360719ec43",
}
ABOUT = """MIT licence, Copyright (c) 2022 davkovacs: see {folder}/LICENSE
Please cite I. Batatia, S. Batzner, D. P. Kovacs, A. Musaelian, G. N. C. Simm, R. Drautz, C. Ortner, B. Kozinsky,
G. Csanyi: The Design Space of E(3)-Equivariant Atom-Centered Interatomic Potentials, https://arxiv.org/abs/2205.06643"""


class NotGottenError(Exception):
    """A file that cannot be had; one sentence says why."""


def download(url: str, checksum: str) -> bytes:
    """The body of a file, whole and with the checksum."""
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            body: bytes = response.read()
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        raise NotGottenError(f"{url} cannot be had: {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise NotGottenError(f"{url} cannot be had: {getattr(error, 'reason', error)}") from None
    digest = hashlib.sha256(body).hexdigest()
    if digest != checksum:
        raise NotGottenError(f"{url} is not the file that was published: expected SHA-256 {checksum}, got {digest}")
    return body


def write_whole(body: bytes, target: Path) -> None:
    """Write a file that is there whole or not at all."""
    part = target.with_name(target.name + ".part")
    try:
        part.write_bytes(body)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def get(folder: Path) -> None:
    """Bring the files into the folder; those that are there already stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, checksum in SHA256.items():
        target = folder / PurePosixPath(path).name
        if not target.exists():
            write_whole(download(f"{URL}/{path}", checksum), target)
            print(f"got {target}")
        elif hashlib.sha256(target.read_bytes()).hexdigest() == checksum:
            print(f"kept {target}")
        else:
            raise NotGottenError(f"{target} is not the file that was published: move it away, or name another folder")
    print(ABOUT.format(folder=folder))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Get the acetylacetone data of the BOTNet paper (2 MB, MIT licence).")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the files go; made where there is none")
    try:
        get(parser.parse_args(arguments).folder)
    except (NotGottenError, OSError) as error:
        sys.exit(f"get_acac: {error}")
    except KeyboardInterrupt:
        print("get_acac: interrupted; the files that were got are whole", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
