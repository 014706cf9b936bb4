"""One flipped bit or a cut in any file of any artifact: noticed before use, then rebuilt or refused."""

from __future__ import annotations

import random
from typing import Any

import pytest
from small_shop import SmallShop

from components.core.command import KINDS, PIPELINE

SEED = 20_240_501
READERS = [
    ("validate", "events"),
    ("features", "clean"),
    ("graph", "clean"),
    ("train", "clean"),
    ("train", "features"),
    ("train", "graph"),
    ("evaluate", "clean"),
    ("evaluate", "features"),
    ("evaluate", "bundle"),
    ("deploy", "bundle"),
    ("deploy", "evaluation"),
]


@pytest.mark.slow
def test_a_flipped_bit_or_a_cut_in_any_file_of_any_kind_is_noticed(
    shop: SmallShop, undisturbed: dict[str, dict[str, Any]]
) -> None:
    shop.after_all()
    generator = random.Random(SEED)
    spoilt = 0
    for kind in (KINDS[step] for step in PIPELINE):
        files = shop.files(kind)
        assert "manifest.json" in {path.rsplit("/", 1)[-1] for path in files}
        for path in files:
            for cut in (False, True):
                where, bit = generator.random(), generator.randrange(8)
                noticed = shop.ask("notices", home=str(shop.home), path=path, where=where, bit=bit, cut=cut)
                assert noticed["problems"], (path, where, bit, cut)
                spoilt += 1
    assert spoilt > 100
    assert shop.look()["problems"] == []


@pytest.mark.slow
@pytest.mark.parametrize("file", ["data", "manifest"])
@pytest.mark.parametrize("step", PIPELINE[:-1])  # deploy makes its own anew each time
def test_the_step_that_made_it_makes_it_again(
    shop: SmallShop, undisturbed: dict[str, dict[str, Any]], step: str, file: str
) -> None:
    shop.before(PIPELINE[PIPELINE.index(step) + 1])
    files = [path for path in shop.files(KINDS[step]) if path.endswith("manifest.json") == (file == "manifest")]
    path = random.Random(f"{SEED} {step}").choice(files)
    shop.ask("flip", path=path, where=0.5, bit=0, cut=False)
    assert shop.look()["problems"] != []
    again = shop.run(step)
    assert again["status"] == 0, again["err"]
    assert "reused" not in again["out"]
    seen = shop.look()
    assert (seen["problems"], seen["content"]) == ([], undisturbed[step]["content"])


@pytest.mark.slow
@pytest.mark.parametrize(("step", "kind"), READERS)
def test_a_step_that_reads_it_refuses_it(
    shop: SmallShop, undisturbed: dict[str, dict[str, Any]], step: str, kind: str
) -> None:
    """A file that the step has no use for may be spoilt; then it makes what it makes."""
    shop.before(step)
    ahead = shop.look()["content"]
    generator = random.Random(f"{SEED} {step} {kind}")
    files = shop.files(kind)
    manifest = next(path for path in files if path.endswith("manifest.json"))
    refused = []
    for path in (manifest, *generator.sample([path for path in files if path != manifest], k=2)):
        where, bit = generator.random(), generator.randrange(8)
        kept = shop.ask("flip", path=path, where=where, bit=bit, cut=False)
        end = shop.run(step)
        shop.ask("flip", path=path, undo=kept["bytes"])
        seen = shop.look()
        if "verdict reject" in end["out"]:  # evaluate says so of a bundle that it cannot read, and nothing is deployed
            refused.append(path)
            shop.before(step)
            continue
        if end["status"] == 0:
            assert path != manifest
            assert seen["content"] == undisturbed[step]["content"], path
            shop.before(step)
            continue
        assert end["status"] == 1, end
        assert "Traceback" not in end["err"], end["err"]
        assert len([line for line in end["err"].splitlines() if line.startswith("basketweave: ")]) == 1
        assert seen["content"] == ahead
        refused.append(path)
    assert manifest in refused
