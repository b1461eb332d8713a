"""What runs share and must exist before them: base models and reward models, each built once, side by side."""

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curate import UserError, microworld
from curate.example import column, render
from curate.preferences import read_preferences
from curate.reading import HUB
from curate.text import load_stories

from . import workers
from .config import (
    DECODER_VERSION,
    RESULTS_VERSION,
    Config,
    content_hash,
    data_root,
    fingerprint,
    reward_essence,
    run_id,
    trains_reward_model,
)
from .store import cached_folder

KNOWS = "cloze"  # the suite of what a base model knows


def base_folder(config: Config) -> Path:
    """Where the model that is fine-tuned lies, or will once `build_base` has run; a hub id stays one."""
    model = config.model
    if model.kind == "hf":
        return Path(str(model.path))
    if model.kind == "smollm2":
        return _models(config) / "smollm2-135m-instruct"
    if model.scratch is not None:
        return _models(config) / f"scratch-{fingerprint(_scratch_identity(config))}"
    assert model.pretraining is not None
    identity = {
        "world": [config.seed.world, microworld.VERSION],
        "seed": config.seed.base,
        "pretraining": model.pretraining.model_dump(),
        "code": [RESULTS_VERSION["train"], DECODER_VERSION],
    }
    return _models(config) / f"base-{fingerprint(identity)}"


def build_base(config: Config, say: Callable[[str], None] = lambda _: None) -> Path:
    """The base model's folder, built if it is not there."""
    folder, model = base_folder(config), config.model
    if model.kind == "smollm2":
        from train.models import smollm2

        say("reading SmolLM2-135M from its package")
        return cached_folder(folder, smollm2)
    if model.kind == "micro":
        return cached_folder(folder, functools.partial(_pretrain, config=config, say=say))
    if model.kind == "scratch":
        return cached_folder(folder, functools.partial(_scratch, config=config))
    return folder


def _scratch_identity(config: Config) -> dict[str, Any]:
    """What weights and tokeniser come from; of a data set of the hub its name."""
    assert config.model.scratch is not None
    source: Any = [config.seed.world, microworld.VERSION]
    if config.data.name == "text":
        path = str(config.data.path)
        source = path if path.startswith(HUB) else content_hash(Path(path))
    shape = config.model.scratch.model_dump()
    return {"scratch": shape, "text": source, "seed": config.seed.base, "code": RESULTS_VERSION["train"]}


def _scratch(out: Path, config: Config) -> None:
    """A model without a past; its tokeniser is the world's, or learnt from all stories that may be trained on."""
    from train.scratch import scratch

    assert config.model.scratch is not None
    vocabulary, texts = None, []
    if config.data.name == "text":
        texts = column(load_stories(str(config.data.path), config.data.max_bad_share).pool, "output")
    else:
        vocabulary = microworld.vocabulary(microworld.build_world(config.seed.world))
    scratch(out, config.model.scratch, config.seed.base, vocabulary=vocabulary, texts=texts)


def _pretrain(out: Path, config: Config, say: Callable[[str], None]) -> None:
    from train.pretrain import pretrain

    world = microworld.build_world(config.seed.world)
    assert config.model.pretraining is not None

    def report(step: int, found: dict[str, float]) -> None:
        known = ", ".join(f"{band} {found[band]:.0%}" for band in ("top", "middle", "rare"))
        say(f"base {config.seed.base}: step {step}, facts known by exposure: {known}")

    pretrain(
        out,
        microworld.vocabulary(world),
        functools.partial(microworld.stream, world),
        functools.partial(cloze, world=config.seed.world),
        config.model.pretraining,
        config.seed.base,
        report,
    )


def cloze(model: Any, tokenizer: Any, *, world: int) -> dict[str, float]:
    """Share of the world's facts that the model completes greedily, by band of exposure, and of all `shown` ones.

    `nll_*` of the same bands is the mean nats per token of the value after the declarative statement.
    """
    return {name: cell["value"] for name, cell in cloze_cells(model, tokenizer, world=world).items()}


def cloze_cells(model: Any, tokenizer: Any, *, world: int) -> dict[str, dict[str, float]]:
    """The same as {name: {value, n}}, n being the facts of the band."""
    from .suites.teacher_forced import Question, answer

    probes = microworld.cloze(microworld.build_world(world))
    questions = [Question(p.prompt, p.value, stop=(".",)) for p in probes]
    found = answer(model, tokenizer, questions, max_length=64, token_budget=2048)
    bands: dict[str, list[int]] = {}
    for at, probe in enumerate(probes):
        for band in (probe.band,) if probe.band == "never" else (probe.band, "shown"):
            bands.setdefault(band, []).append(at)
    known = {band: float(found.em_format_free[at].mean()) for band, at in sorted(bands.items())}
    nats = {f"nll_{band}": float(found.nats[at].sum() / found.tokens[at].sum()) for band, at in sorted(bands.items())}
    return {
        name: {"value": value, "n": len(bands[name.removeprefix("nll_")])} for name, value in (known | nats).items()
    }


def reward_folder(config: Config) -> Path:
    """Where the reward model of this config's base lies, or will."""
    reward = config.model.reward
    if config.data.name == "microworld":
        pairs: Any = ["microworld", config.seed.world, microworld.VERSION]
    else:
        pairs = [source if source.startswith(HUB) else content_hash(Path(source)) for source in pairs_sources(config)]
    identity = {
        "backbone": base_folder(config).name if reward.backbone is None else reward.backbone,
        "reward": reward_essence(reward),
        "pairs": pairs,
        "template": reward_template(config),
        "code": RESULTS_VERSION["train"],
    }
    return _models(config) / f"reward-{fingerprint(identity)}"


def reward_template(config: Config) -> dict[str, str]:
    """How the reward model reads a prompt."""
    return config.model.reward.template or {**config.data.template}


def build_reward(config: Config, say: Callable[[str], None] = lambda _: None) -> Path:
    """The reward model's folder, trained if it is not there; its base is built first."""

    def build(out: Path) -> None:
        from curate.scoring.embedding import minilm
        from train.reward_model import Pair, train_reward_model

        reward = config.model.reward
        if reward.backbone is None:
            backbone: str | Path = build_base(config, say)
        else:
            backbone = minilm() if reward.backbone == "minilm" else reward.backbone
        pairs, valid = ([Pair(*p) for p in part] for part in preference_pairs(config))
        say(f"reward model on {min(len(pairs), reward.max_pairs or len(pairs))} preference pairs")
        template = reward_template(config)
        seed = config.seed.base if config.model.kind == "micro" else 0
        card = train_reward_model(out, backbone, pairs, reward, template=template, seed=seed, valid=valid)
        accuracy = card["pairwise_accuracy"]
        tokens, words = accuracy["longer_wins"], accuracy["more_words_win"]
        beaten = "" if accuracy["joint"] > max(tokens, words) else ": NOT BEATEN, a ruler would do as well"
        say(
            f"reward model: pairwise accuracy {accuracy['joint']:.3f}; longer wins {tokens:.3f} by tokens, {words:.3f}"
            f" by words{beaten}"
        )

    return cached_folder(reward_folder(config), build)


Preferences = list[tuple[str, str, str]]  # rendered prompt, chosen, rejected


def preference_pairs(config: Config) -> tuple[Preferences, Preferences]:
    """Pairs to train on, and pairs to measure with (none: a part of the first is kept back for that).

    They come from the world's own split, or from files or data sets of the hub: see `curate.preferences`.
    """
    template = reward_template(config)
    if config.data.name == "microworld":
        rows = microworld.preference_pairs(microworld.build_world(config.seed.world), seed=0)
        return [(render(template, r["instruction"], r["input"]), r["chosen"], r["rejected"]) for r in rows], []
    read = [read_pairs(source, template, config.model.reward.unescape) for source in pairs_sources(config)]
    return read[0], read[1] if len(read) > 1 else []


def read_pairs(source: str, template: dict[str, str], unescape: bool) -> Preferences:
    """The preference pairs of a file or of hub:NAME; raises UserError if there are none."""
    read = read_preferences(source, "data.pairs", unescape=unescape)
    pairs = [(render(template, p.instruction, p.input), p.chosen, p.rejected) for p in read]
    if not pairs:
        raise UserError(f"data.pairs={source}: holds no pair; give columns prompt, chosen, rejected or src, pos, neg")
    return pairs


def companion(config: Config, key: str, name: str) -> str:
    """The file `name` as given or under the data root, or a name on the hub; UserError names `key` for neither."""
    if name.startswith(HUB):
        return name
    root = data_root(config)
    for path in [Path(name), *([root / name] if root else [])]:
        if path.is_file():
            return str(path)
    raise UserError(f"{key}: {name} is neither here nor under data.root={root}; give its path, or {HUB}NAME")


def pairs_sources(config: Config) -> list[str]:
    """Where the preference pairs are: those to train on and, if there are any, those to measure with."""
    if not config.data.pairs:
        raise UserError("data.pairs: null; name a file of preference pairs to train the reward model on, or hub:NAME")
    given = {"data.pairs": config.data.pairs, "data.pairs_valid": config.data.pairs_valid}
    return [companion(config, key, name) for key, name in given.items() if name]


def ahead(configs: Mapping[str, Config]) -> list[str]:
    """The ids of the fewest of those runs whose `build` leaves nothing for the others to build, in a good order.

    First a base model each, with one reward model of its own, then further reward models of the same bases: so nobody
    waits for a base that is still at work.
    """
    lacking: dict[tuple[Path, ...], str] = {}
    for name, config in configs.items():
        shared = [base_folder(config)] if config.model.kind != "hf" else []
        shared += [reward_folder(config)] if trains_reward_model(config) else []
        lacking.setdefault(tuple(folder for folder in shared if not folder.is_dir()), name)
    first: list[str] = []
    covered: set[Path] = set()
    for part in (slice(1), slice(None)):
        for folders in sorted(lacking, key=len, reverse=True):
            if not covered.issuperset(folders[part]):
                first.append(lacking[folders])
                covered.update(folders)
    return first


def build(config: Config) -> str | None:
    """Build what this run shares with others and what is not there; returns the error as one line, if there is one.

    How it goes can be read meanwhile where `told` looks.
    """
    news = _news(config)
    news.parent.mkdir(parents=True, exist_ok=True)

    def say(text: str) -> None:
        news.write_text(text)

    workers.watch_parent()
    error = attempt(build_base, config, say)
    if error is None and trains_reward_model(config):
        error = attempt(build_reward, config, say)
    if error is not None:
        say(f"{error}; the runs that need it try it themselves")
    return error


def attempt(build: Callable[..., Path], config: Config, say: Callable[[str], None]) -> str | None:
    """`build(config, say)` on one thread: the same model, bit for bit, whoever builds it. Returns as `build` above."""
    import torch

    from experiments.run import one_line

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        build(config, say)
    except Exception as error:
        return one_line(error)
    finally:
        torch.set_num_threads(threads)
    return None


@contextmanager
def told(configs: Sequence[Config], progress: Callable[[str], None]) -> Iterator[None]:
    """Inside, `progress` hears what `build` says of these configs, in whichever process."""
    files = [_news(config) for config in configs]
    for file in files:
        file.unlink(missing_ok=True)
    done = threading.Event()
    reader = threading.Thread(target=_read_out, args=(files, done, progress), daemon=True)
    reader.start()
    try:
        yield
    finally:
        done.set()
        reader.join()


def stages(configs: Sequence[Config]) -> list[list[tuple[Callable[..., Path], Config]]]:
    """What is not there yet and how it is built: the distinct base models, then the reward models on top of them."""
    bases = {str(base_folder(c)): c for c in configs if c.model.kind != "hf" and not base_folder(c).is_dir()}
    rewards = {str(reward_folder(c)): c for c in configs if trains_reward_model(c) and not reward_folder(c).is_dir()}
    return [[(build_base, c) for c in bases.values()], [(build_reward, c) for c in rewards.values()]]


def _read_out(files: list[Path], done: threading.Event, progress: Callable[[str], None]) -> None:
    """Workers keep their newest line in a file each; this thread says what is new."""
    said: dict[Path, str] = {}
    over = False
    while not over:
        over = done.wait(5.0)  # once more after the end, for the last words
        for file in files:
            text = file.read_text() if file.exists() else ""
            if text and said.get(file) != text:
                said[file] = text
                progress(text)


def _news(config: Config) -> Path:
    return _models(config) / "progress" / run_id(config)


def _models(config: Config) -> Path:
    return Path(config.store.root) / "cache" / "models"
