"""Tell how wrong the fast model is: `python3 -P -m functions.calorimeter.prototyping.judged MODEL.onnx SHOWERS [TEST]`.

Judged by what the training has held out of SHOWERS, each stack cut off at a usual depth, and by all stacks of TEST
(`production --test`). The errors go into the model's metadata, and are printed beside those of GFLASH.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from functions.calorimeter.prototyping.compared import HELD_OUT, compared, cut, errors
from functions.calorimeter.prototyping.fast import FORMAT, Prototype
from functions.calorimeter.prototyping.production import PARTICLES, read
from layers.learning.onnx import described, load


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print, and write into the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    given = parser.parse_args(argv)
    held_out = [cut(sample, number) for number, sample in enumerate(read(given.folders[0])) if number % HELD_OUT == 0]
    tests = [sample for folder in given.folders[1:] for sample in read(folder)]
    rows = compared([*held_out, *tests], Prototype(given.model))
    for row in rows:
        print(json.dumps(asdict(row)))  # noqa: T201
    found = {
        which: {
            particle: errors(chosen, which)
            for particle in PARTICLES
            if (chosen := [row for row in rows if row.particle == particle])
        }
        for which in ("fast", "gflash")
    }
    print(json.dumps(found))  # noqa: T201
    _, about = load(given.model, FORMAT)
    told = replace(about, more={**about.more, "errors": json.dumps(found["fast"])})
    given.model.write_bytes(described(given.model.read_bytes(), told))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
