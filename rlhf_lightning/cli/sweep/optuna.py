"""`hydra/sweeper=optuna`: a search that asks Optuna for the next jobs, in memory or with a database that outlives the process."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from pydantic import NonNegativeInt, PositiveInt

from rlhf_lightning.config.redaction import safe_message, without_secrets
from rlhf_lightning.config.schema import config_class, validate
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.runtime.output_folder import real_folder

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

SWEEPER = "hydra_plugins.rlhf_lightning_sweeper.OptunaSweeper"
SQLITE = "sqlite"
FOLDER, JOB, WORDS = "folder", "job", "words"
"""What a trial remembers of its job: the sweep's folder, its number there, and the words that it adds to the command."""


@dataclass
class OptunaSettings:
    """A search by Optuna (`hydra/sweeper=optuna hydra.sweeper.n_trials=30`).

    Attributes:
        n_trials: jobs in all; what a killed sweep has done counts.
        n_jobs: jobs handed to the launcher together; the next ones are asked for when all of them have ended.
        direction: whether the stage's number is to grow or to shrink.
        sampler: tpe learns from what was tried, random doesn't.
        seed: of the sampler: the same seed asks for the same jobs.
        storage: null keeps the study in memory, sqlite in study.db of the sweep's folder; or Optuna's address of a database.
        study_name: in the database; null is the folder's name.
        params: the search space beside what the command sweeps over (`ppo.learning_rate=tag(log,interval(1e-5,1e-3))`).
    """

    n_trials: PositiveInt = 20
    n_jobs: PositiveInt = 1
    direction: Literal["maximize", "minimize"] = "maximize"
    sampler: Literal["tpe", "random"] = "tpe"
    seed: NonNegativeInt = 0
    storage: str | None = None
    study_name: str | None = None
    params: dict[str, Any] | None = None


# Here, not where the sweeper is: the workers of a launcher import settings by this module's name.
ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=config_class(OptunaSettings, {"_target_": SWEEPER}))


class OptunaSearch(Sweeper):
    """Asks for trials, launches them as jobs, tells their objectives. A trial that failed or was killed stays open in a database, so that
    the same command in the same folder runs it again under its own number; what has ended is not run again."""

    def __init__(self, **settings: Any) -> None:
        self.given: Any = OmegaConf.to_container(OmegaConf.create(settings), resolve=True)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        instance = Plugins.instance()
        self.launcher: Launcher = instance.instantiate_launcher(config=config, hydra_context=hydra_context, task_function=task_function)

    def sweep(self, arguments: list[str]) -> None:
        """Run the whole search. Raises ConfigError for settings that can't be searched with."""
        settings = OptunaSettings(**validate(OptunaSettings, self.given, "hydra.sweeper"))
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        words = [*(f"{key}={value}" for key, value in (settings.params or {}).items()), *arguments]
        given = {override.get_key_element(): override for override in parser.parse_overrides(words)}  # the command's own come last and win
        fixed = [f"{key}={one.get_value_element_as_str()}" for key, one in given.items() if not one.is_sweep_override()]
        swept = {key: override for key, override in given.items() if override.is_sweep_override()}
        if not swept:
            raise ConfigError("hydra/sweeper=optuna has nothing to search: add hparams=NAME, or a range such as 'seed=range(0,9)'")
        assert self.config is not None
        folder = real_folder(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(OmegaConf.create(without_secrets(self.config)), folder / "multirun.yaml")
        study = make_study(settings, folder)
        space = {key: distribution(override) for key, override in swept.items()}
        own = own_trials(study, folder)
        for earlier in own:
            if not earlier.state.is_finished():
                self.run_together(study, [earlier.number], [[*fixed, *earlier.user_attrs[WORDS]]], earlier.user_attrs[JOB])
        for start in range(len(own), settings.n_trials, settings.n_jobs):
            end = min(start + settings.n_jobs, settings.n_trials)
            asked = [ask(study, space, folder, job) for job in range(start, end)]
            self.run_together(study, [one.number for one in asked], [[*fixed, *one.user_attrs[WORDS]] for one in asked], start)
        tell_best(study)

    def run_together(self, study: optuna.Study, numbers: Sequence[int], jobs: Sequence[Sequence[str]], first: int) -> None:
        """Launch jobs, numbered from `first` on, and tell the study what they gave."""
        self.validate_batch_is_legal(jobs)
        for number, done in zip(numbers, self.launcher.launch(jobs, initial_job_idx=first), strict=True):
            objective = float(done.return_value)
            if math.isfinite(objective):
                study.tell(number, objective)


def make_study(settings: OptunaSettings, folder: Path) -> optuna.Study:
    """A new study, or the one that the database holds.

    Raises:
        ConfigError: optuna isn't installed, or the database can't be opened.
    """
    try:
        import optuna
    except ModuleNotFoundError as cause:
        raise ConfigError(f"hydra/sweeper=optuna needs more packages: pip install 'rlhf-lightning[optuna]' ({cause})") from cause
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{quote(str(folder.resolve() / 'study.db'))}" if settings.storage == SQLITE else settings.storage
    try:
        study = optuna.create_study(
            storage=storage, study_name=settings.study_name or folder.name, direction=settings.direction, load_if_exists=True
        )
    except Exception as cause:
        raise ConfigError(f"hydra.sweeper.storage={settings.storage} can't be opened: {type(cause).__name__}: {cause}") from cause
    seed = settings.seed + len(study.trials)  # a study that goes on must not ask again what it asked at first
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = (
            optuna.samplers.TPESampler(seed=seed, constant_liar=True) if settings.sampler == "tpe" else optuna.samplers.RandomSampler(seed)
        )
    return study


def ask(study: optuna.Study, space: dict[str, BaseDistribution], folder: Path, job: int) -> optuna.Trial:
    """The study's next trial as a job of this folder. It remembers what was searched alone: the other words may hold a secret."""
    trial = study.ask(space)
    words = [f"{key}={value}" for key, value in trial.params.items()]
    for name, value in ((FOLDER, str(folder.resolve())), (WORDS, words), (JOB, job)):
        trial.set_user_attr(name, value)
    return trial


def own_trials(study: optuna.Study, folder: Path) -> list[optuna.trial.FrozenTrial]:
    """The study's trials that are jobs of this folder, by number: other commands may share the database."""
    found = [trial for trial in study.trials if trial.user_attrs.get(FOLDER) == str(folder.resolve()) and JOB in trial.user_attrs]
    return sorted(found, key=lambda trial: int(trial.user_attrs[JOB]))


def distribution(override: Override) -> BaseDistribution:
    """What a swept value is drawn from: its choices as they are written, a range's numbers, or an interval, in logarithms where it is
    tagged `log`, of whole numbers where it is cast to int."""
    from optuna import distributions as d

    value: Any = override.value()
    if override.is_interval_sweep():
        log = "log" in value.tags
        if isinstance(value.start, int) and isinstance(value.end, int):
            return d.IntDistribution(value.start, value.end, log=log)
        return d.FloatDistribution(float(value.start), float(value.end), log=log)
    if override.is_range_sweep():
        numbers = sorted(value.range())
        step = abs(value.step)
        if all(isinstance(number, int) for number in numbers):
            return d.IntDistribution(numbers[0], numbers[-1], step=step)
        return d.FloatDistribution(float(numbers[0]), float(numbers[-1]), step=float(step))
    return d.CategoricalDistribution(list(override.sweep_string_iterator()))


def tell_best(study: optuna.Study) -> None:
    """Print the best job and what it adds to the command; nothing where none has ended well."""
    import optuna

    if study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)):
        best = study.best_trial
        words = " ".join(best.user_attrs.get(WORDS, []))
        print(safe_message(f"best: job {best.user_attrs.get(JOB, best.number)}, objective {best.value:.6g}: {words}"))
