"""The flags of the original SmoothOut program (Wen et al. 2018), and what each is called here.

One table, from which come the parsers of :mod:`smoothout.original.programs` and the page ``docs/options.md``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

#: The original's programs, and the command of ours that each becomes.
PROGRAMS = {
    "main_gbn": "train",
    "main_normal": "train",
    "evaluate": "evaluate",
    "visualize_sharpness": "landscape",
    "visualize2_sharpness": "landscape",
    "measure_sharpness": "sharpness",
}
_ALL = tuple(PROGRAMS)
_TRAIN = ("main_gbn", "main_normal")


@dataclass(frozen=True)
class Option:
    """One flag.

    Attributes:
        flags: As the original spells it; the first names the row.
        programs: Which take it.
        default: In the original, by program where they differ ("" names all others).
        ours: Our option by our command; a command that is not here leaves the flag without effect.
        note: What changed, and what else to know.
        kind: Of its value; ``bool`` also has a form ``--no-...``.
    """

    flags: tuple[str, ...]
    programs: tuple[str, ...]
    default: Mapping[str, object]
    ours: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    kind: type = str

    @property
    def name(self) -> str:
        """The row's name, as an attribute of parsed arguments."""
        return self.flags[0].lstrip("-").replace("-", "_")

    def default_in(self, program: str) -> object:
        """Default of a program."""
        return self.default.get(program, self.default.get(""))


def _row(
    flags: str,
    default: object,
    ours: str | Mapping[str, str],
    note: str = "",
    *,
    programs: tuple[str, ...] = _ALL,
    kind: type = str,
) -> Option:
    """A row; ``ours`` as text is the option of train, and ``default`` as a dict says it by program."""
    by_program = default if isinstance(default, dict) else {"": default}
    by_command = {"train": ours} if isinstance(ours, str) and ours else ours or {}
    return Option(tuple(flags.split()), programs, by_program, by_command, note, kind)


def _same(ours: str) -> dict[str, str]:
    """The same option of every command."""
    return dict.fromkeys(("train", "evaluate", "landscape", "sharpness"), ours)


OPTIONS: tuple[Option, ...] = (
    _row(
        "--results_dir",
        "./TrainingResults",
        dict.fromkeys(("train", "landscape", "sharpness"), "--results-dir"),
        "`evaluate` prints; `--json FILE` keeps.",
    ),
    _row(
        "--save",
        "",
        dict.fromkeys(("train", "landscape", "sharpness"), "--name"),
        "Default: a time stamp, as in the original; of what is measured a hash, so that the same command goes on.",
    ),
    _row(
        "--dataset",
        "cifar10",
        _same("--dataset"),
        "A folder of another name than a data set becomes `imagefolder`. Data are searched in `./pytorch-gen` if that "
        "is there, else where `SMOOTHOUT_DATA` points, else in `./data`; they are fetched if they are missing, as in "
        "the original. A checkpoint of ours names its own data and model.",
    ),
    _row(
        "--mode",
        {"evaluate": "val", "visualize_sharpness": "linear"},
        {"evaluate": "--split", "landscape": "--mode"},
        "evaluate: `val` is `test` here, `train` stays. visualize_sharpness: linear or sin.",
        programs=("evaluate", "visualize_sharpness"),
    ),
    _row("--model -a", "resnet", _same("--model"), "`wide_WResNet`, hidden in the original, is `wide_resnet`."),
    _row(
        "--input_size",
        None,
        _same("--input-size"),
        "Images are resized to it; the original cropped them.",
        kind=int,
    ),
    _row(
        "--model_config",
        "",
        _same("--model-config"),
        "Reaches every model: the original's f1, shallow nets and AlexNets ignored `num_classes`. Its `num_classes`, "
        "`input_size` and `noise` become `--num-classes`, `--input-size` and `--relu-noise`. An argument that a model "
        "does not take is an error.",
    ),
    _row(
        "--type",
        "torch.cuda.FloatTensor",
        {"train": "--precision", "evaluate": "--precision", "landscape": "--device", "sharpness": "--device"},
        "`torch.cuda.HalfTensor` is `fp16` by autocast with fp32 weights (`bf16` on a CPU); `torch.FloatTensor` "
        "also chooses the CPU. Landscapes and sharpness are measured in fp32.",
    ),
    _row(
        "--gpus",
        "0",
        _same("--device"),
        "The first one of the list; the first GPU if there is no such one, without CUDA the CPU, with a notice.",
    ),
    _row(
        "--workers -j",
        {"": 8, "main_gbn": 32, "evaluate": 32},
        {"train": "--workers", "evaluate": "--workers", "landscape": "--readers", "sharpness": "--readers"},
        "Default here: 2. Only images too many for memory are read by workers.",
        kind=int,
    ),
    _row("--epochs", 200, "--epochs", "Of training only.", kind=int),
    _row("--start-epoch", 0, "--start-epoch", "Of training only.", kind=int),
    _row(
        "--batch-size -b --b",
        {"": 2048, "main_normal": 256, "measure_sharpness": 1000},
        _same("--batch-size"),
        "`--b` is how the original's README writes it.",
        kind=int,
    ),
    _row(
        "--mini-batch-size -mb",
        {"": 128, "measure_sharpness": 100},
        "--ghost-batch-size",
        "Pieces of exactly this size and a remainder, weighted by samples; the original cut B // b nearly equal ones.",
        programs=tuple(program for program in _ALL if program != "main_normal"),
        kind=int,
    ),
    _row("--batch-multiplier -bm", 1, "--accumulation", programs=("main_gbn", "evaluate"), kind=int),
    _row(
        "--lr_bb_fix",
        True,
        "--lr-rule",
        "On: the rule of `--lr_fix_policy`; off: `none`. The base batch is the ghost batch, 256 for main_normal.",
        kind=bool,
    ),
    _row("--lr_fix_policy", "sqrt", "--lr-rule", "`sqrt` or `linear`.", programs=("main_gbn",)),
    _row(
        "--regime_bb_fix",
        False,
        "--regime-adaptation",
        "Epochs and milestones times ceil(B * multiplier / base batch).",
        kind=bool,
    ),
    _row("--regime_bb_multi -rbm", 1, "--regime-multiplier", programs=("main_gbn",), kind=int),
    _row(
        "--optimizer",
        "SGD",
        "--optimizer",
        "Given, it wins over the model's regime, and the rate of `--lr` comes with it; the original ignored all but "
        "Adam. Of training only.",
    ),
    _row(
        "--lr --learning_rate",
        {"": 0.001, "main_normal": 0.1, "visualize_sharpness": 0.1, "visualize2_sharpness": 0.1},
        "--lr",
        "Given, it wins over the model's regime, whose course it scales; the original ignored it for every model "
        "with a regime. Default here without a regime: 0.05.",
        kind=float,
    ),
    _row("--momentum", 0.9, "--momentum", "Given, it wins over the model's regime.", kind=float),
    _row(
        "--weight-decay --wd",
        {"": 1e-4, "main_gbn": None, "evaluate": None},
        "--weight-decay",
        "Given, it wins over the model's regime in every epoch; the original changed epoch 0 only, and took 0 for "
        "not given. Default here without a regime: 1e-4.",
        kind=float,
    ),
    _row(
        "--dropout",
        None,
        "",
        "No effect in the original, which never used it.",
        programs=("main_gbn", "evaluate"),
        kind=float,
    ),
    _row(
        "--sharpness-smoothing --ss",
        {"": 0.0, "visualize_sharpness": 1e-4, "visualize2_sharpness": 1e-4},
        {"train": "--strength", "evaluate": "--strength"},
        "evaluate: plain uniform noise, drawn anew for each batch, on BatchNorm too (`--no-exclude-bn`).",
        programs=tuple(program for program in _ALL if program != "main_normal"),
        kind=float,
    ),
    _row(
        "--noise-type",
        "uniform",
        "--distribution",
        "With `--adapt-type weight` always uniform, as in the original.",
        programs=("main_gbn",),
    ),
    _row("--adapt-type", "none", "--scale", "`filter` is AdaSmoothOut.", programs=("main_gbn",)),
    _row(
        "--smoothing-type",
        "constant",
        "--noise-schedule",
        "Counts updates; the whole run's number includes regime adaptation.",
        programs=("main_gbn", "evaluate", "measure_sharpness"),
    ),
    _row(
        "--anneal-index --ai",
        0.55,
        "--anneal-index",
        programs=("main_gbn", "evaluate", "measure_sharpness"),
        kind=float,
    ),
    _row("--tanh-scale --ts", 10.0, "--tanh-scale", programs=("main_gbn", "evaluate", "measure_sharpness"), kind=float),
    _row("--exclude-bn", True, "--exclude-bn", programs=("main_gbn",), kind=bool),
    _row(
        "--denoise",
        True,
        "--denoise",
        "On: restores exactly, not by subtracting.",
        programs=("main_gbn",),
        kind=bool,
    ),
    _row("--relu_noise", None, "--relu-noise", "`resnet` only, as there.", programs=("main_gbn",), kind=float),
    _row(
        "--augment",
        {"": False, "main_gbn": True, "measure_sharpness": True},
        {"train": "--augment", "evaluate": "--augment"},
        programs=tuple(program for program in _ALL if program != "main_normal"),
        kind=bool,
    ),
    _row(
        "--save_all",
        False,
        "--save-all",
        "Checkpoints `epoch-N`.",
        programs=("main_gbn", "evaluate", "measure_sharpness"),
        kind=bool,
    ),
    _row("--print-freq -p", 10, "--print-freq", "Updates between lines; default here: a line an epoch.", kind=int),
    _row(
        "--resume",
        "",
        "--resume",
        "A run of this version goes on exactly, with its own settings. A file of the original, or a folder with its "
        "`model_best.pth.tar`, gives weights and start epoch (`--weights`, `--start-epoch`); it holds no optimizer.",
    ),
    _row(
        "--evaluate -e",
        "",
        _same("CHECKPOINT"),
        "A file of the original or a folder of ours. A training program given it becomes `smoothout evaluate`.",
    ),
    _row("--slave-evaluate -se", "", {"landscape": "--to"}, programs=("visualize_sharpness",)),
    _row(
        "--alpha",
        {"visualize_sharpness": "-1.0:0.1:2.01", "visualize2_sharpness": "-1:0.1:1.01"},
        {"landscape": "--alpha"},
        programs=("visualize_sharpness", "visualize2_sharpness"),
    ),
    _row(
        "--visualize_train",
        True,
        {"landscape": "--splits"},
        "Off: the test samples only.",
        programs=("visualize_sharpness", "visualize2_sharpness"),
        kind=bool,
    ),
    _row(
        "--epsilon",
        5e-4,
        {"sharpness": "--epsilon"},
        "The search climbs, and on the training samples; the original's went downhill, on the validation samples.",
        programs=("measure_sharpness",),
        kind=float,
    ),
    _row(
        "--manifolds -m",
        0,
        {"sharpness": "--manifold"},
        "0: the full space. Else with `--columns original`, its random subspace.",
        programs=("measure_sharpness",),
        kind=int,
    ),
    _row(
        "--times -t",
        1,
        {"sharpness": "--draws"},
        "Subspaces drawn; nothing is random in the full space, which is searched once.",
        programs=("measure_sharpness",),
        kind=int,
    ),
)


def markdown() -> str:
    """The page ``docs/options.md``."""
    lines = [
        "# Options of the original program",
        "",
        "Made from the table in `src/smoothout/original/options.py` by `make docs`; a test compares them.",
        "",
        "`python -m smoothout.original PROGRAM ...` takes the flags of the original's "
        f"{', '.join(f'`{program}.py`' for program in PROGRAMS)}, prints the command of ours that they make, and "
        "runs it. The columns name the option of `smoothout train`, `evaluate`, `landscape` and `sharpness` that a "
        "flag becomes. "
        "`none`: the program parses the flag and does nothing with it here, and says so. `-`: it has no such flag.",
        "",
        "| original | default | train | evaluate | landscape | sharpness | notes |",
        "|---|---|---|---|---|---|---|",
    ]
    for option in OPTIONS:
        names = [f"`{flag}`" for flag in option.flags]
        if option.kind is bool:
            names.append(f"`--no-{option.flags[0].lstrip('-')}`")
        taken = {PROGRAMS[program] for program in option.programs}
        cells = [
            (f"`{option.ours[command]}`" if command in option.ours else "none") if command in taken else "-"
            for command in ("train", "evaluate", "landscape", "sharpness")
        ]
        missing = [program for program in _TRAIN if program not in option.programs]
        note = f"{f'Not in {missing[0]}. ' if len(missing) == 1 else ''}{option.note}".strip()
        lines.append(f"| {', '.join(names)} | {_defaults(option)} | {' | '.join(cells)} | {note} |")
    lines += [
        "",
        "Without a flag: gradients are clipped at an L2 norm of 5 (`--clip`), `main_normal` has seed 123 (`--seed`).",
    ]
    return "\n".join(lines) + "\n"


def _defaults(option: Option) -> str:
    """Default, with the programs that have another one."""

    def text(value: object) -> str:
        if isinstance(value, bool):
            return "on" if value else "off"
        return "none" if value in (None, "") else f"`{value}`"

    parts = [text(value) + (f" ({program})" if program else "") for program, value in option.default.items()]
    return ", ".join(parts)
