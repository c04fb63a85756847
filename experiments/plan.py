"""Every training run of docs/results.md, as the command that anybody can type.

Seed s of the magnetic tiles has fold s as its test split, so the spread over seeds is also one over
tiles; the solar cells have one test split, which is written down in the package.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RUNS = Path("runs/abn-family")
SEEDS = (0, 1, 2)
SHARES = (0.1, 0.3, 0.5, 0.7, 1.0)
SELECTIONS = ("confidence", "map-error")
LAMBDA_MAP, TUNING_LR = 10.0, 5e-3
"""At the rate of training, the last normalisation of a branch hardly moves in so few steps."""

_BACKBONE = "tf_efficientnet_lite0"
_RECIPE = (
    "--resize-mode squash --pretrained --batch-size 32 --flip-vertical "
    "--optimizer adamw --weight-decay 0.05 --precision 32-true"
)
_ATTENTION = f"""--arch-arg backbone='"{_BACKBONE}"'"""
_LAST = """--arch-arg last_stage='"blocks.4"'"""
_CUT = f"""--arch-arg split='"blocks.2"' --arch-arg branch_end='"blocks.3"' {_LAST}"""
_CUTS = """--arch-arg splits='["blocks.1","blocks.2","blocks.4"]'"""
NETWORKS = {
    "backbone": f"""--arch backbone --arch-arg name='"{_BACKBONE}"' {_LAST}""",
    "abn": f"--arch abn {_ATTENTION} {_CUT}",
    "amb": f"--arch amb {_ATTENTION} {_CUT}",
    "multiscale": f"--arch multiscale-abn {_ATTENTION} {_CUTS}",
}

MINING = {
    "plain": "--pretrain-epochs {epochs}",
    "amb": "",
    "amb-pc": "--prototype-weight 0.1",
    "amb-cot": "--complement",
    "amb-all": "--prototype-weight 0.1 --complement",
}
"""What goes on from step 1, the network with M g trained as an ABN; ``plain`` goes on as it was."""


@dataclass(frozen=True)
class Data:
    """A data set with its recipe.

    Attributes:
        options: of every run on it.
        epochs: of a network from ImageNet weights.
        more_epochs: of a network that goes on from those, at a third of the rate.
    """

    options: str
    lr: float
    epochs: int
    more_epochs: int
    by_fold: bool


DATA = {
    "tiles": Data(
        f"--data data/magnetic-tile --image-size 128 {_RECIPE} --light 0.3 --class-balance 0.5 "
        "--select-by last",
        lr=5e-4,
        epochs=15,
        more_epochs=8,
        by_fold=True,
    ),
    "elpv": Data(
        f"--data elpv --image-size 96 {_RECIPE} --light 0.2 --select-by last",
        lr=5e-4,
        epochs=8,
        more_epochs=4,
        by_fold=False,
    ),
}


@dataclass(frozen=True)
class Run:
    """One command, and the runs whose results it needs."""

    name: str
    command: str
    after: tuple[str, ...] = ()
    root: Path = RUNS

    @property
    def folder(self) -> Path:
        """Where it leaves its checkpoints."""
        return self.root / self.name

    @property
    def wants_curves(self) -> bool:
        """Whether insertion and deletion are asked of it: of the second experiment."""
        return self.name.startswith(("abn-", *MINING))

    @property
    def arguments(self) -> list[str]:
        """The command in words."""
        return shlex.split(self.command)


def plan() -> Iterator[Run]:
    """Every run, each after those it needs; what matters most first."""
    first, *others = SEEDS
    yield from _of(first)
    for data in DATA:
        yield from _mining(data, first)
    yield from _tuning(first)
    for seed in others:
        yield from _of(seed)
    for seed in others:
        for data in DATA:
            yield from _mining(data, seed)
        yield from _tuning(seed, shares=(0.3, 1.0))


def _of(seed: int) -> Iterator[Run]:
    for data in DATA:
        for network in ("abn", "backbone", "multiscale"):
            yield _train(f"{network}-{data}-{seed}", network, data, seed)


def _train(name: str, network: str, data: str, seed: int, more: str = "") -> Run:
    recipe = DATA[data]
    return Run(
        name,
        f"konkyo train {NETWORKS[network]} {_options(data, seed)} --epochs {recipe.epochs} --lr {recipe.lr:g}"
        f"{more} --out {RUNS / name}",
    )


def _options(data: str, seed: int) -> str:
    fold = f" --fold {seed}" if DATA[data].by_fold else ""
    return f"{DATA[data].options} --seed {seed}{fold}"


def _mining(data: str, seed: int) -> Iterator[Run]:
    recipe = DATA[data]
    first = f"step1-{data}-{seed}"
    yield _train(first, "amb", data, seed, more=f" --pretrain-epochs {recipe.epochs}")
    options = _options(data, seed).replace(" --pretrained", "")
    for variant, terms in MINING.items():
        name = f"{variant}-{data}-{seed}"
        yield Run(
            name,
            f"konkyo train {NETWORKS['amb']} {options} --init {RUNS / first}/best.ckpt "
            f"--epochs {recipe.more_epochs} --lr {recipe.lr / 3:.3g} "
            f"{terms.format(epochs=recipe.more_epochs)} --out {RUNS / name}",
            after=(first,),
        )


def _tuning(seed: int, shares: tuple[float, ...] = SHARES) -> Iterator[Run]:
    """Expert fine-tuning of the multi-scale network, by selection and share."""
    first = f"multiscale-tiles-{seed}"
    recipe = DATA["tiles"]
    bundle = RUNS / first / "bundle" / "1"
    yield Run(
        f"{first}-export",
        f"konkyo export {RUNS / first}/best.ckpt --out {bundle} --name multiscale-abn --force",
        after=(first,),
    )
    common = (
        f"--maps data/magnetic-tile/masks --lambda-map {LAMBDA_MAP:g} "
        f"--data data/magnetic-tile --fold {seed} --seed {seed} "
        "--batch-size 32 --flip-vertical --optimizer adamw --weight-decay 0.05 --precision 32-true "
        f"--light 0.3 --class-balance 0.5 --select-by last --epochs {recipe.more_epochs} --lr {TUNING_LR:g}"
    )
    for selection in SELECTIONS:
        for share in shares:
            if share == 1 and selection != SELECTIONS[0]:
                continue  # all of them, in whatever order
            name = f"tuned-{selection}-{share:g}-tiles-{seed}"
            yield Run(
                name,
                f"konkyo finetune {bundle} {common} --select {selection} --share {share:g} "
                f"--out {RUNS / name}",
                after=(f"{first}-export",),
            )
    name = f"tuned-labels-tiles-{seed}"
    without = common.replace(f"--lambda-map {LAMBDA_MAP:g}", "--lambda-map 0")
    yield Run(
        name,
        f"konkyo finetune {bundle} {without} --out {RUNS / name}",
        after=(f"{first}-export",),
    )
