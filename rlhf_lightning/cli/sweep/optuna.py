"""`hydra/sweeper=optuna`: a search by Optuna, in memory or in a database that outlives the process.

Own code because hydra-optuna-sweeper requires optuna<3.
"""

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

from rlhf_lightning.config.display import safe_message, without_secrets
from rlhf_lightning.config.schema import config_class, validate
from rlhf_lightning.errors import ConfigError, import_extra
from rlhf_lightning.runtime.output_folder import real_folder

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

SWEEPER = "hydra_plugins.rlhf_lightning_sweeper.OptunaSweeper"
SQLITE = "sqlite"
FOLDER, JOB, OVERRIDES = "folder", "job", "words"
"""User attributes of a trial: the sweep's folder, the job's number, and the overrides that it adds to the command."""


@dataclass
class OptunaSettings:
    """A search by Optuna (`hydra/sweeper=optuna hydra.sweeper.n_trials=30`).

    Attributes:
        n_trials: total jobs, with the finished ones of a killed sweep.
        n_jobs: jobs launched together; the next ones are suggested when all of them have ended.
        direction: of the stage's objective.
        sampler: tpe learns from earlier trials, random doesn't.
        seed: of the sampler: the same seed suggests the same jobs.
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


# Here and not in hydra_plugins: the workers of a launcher import settings by this module's name.
ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=config_class(OptunaSettings, {"_target_": SWEEPER}))


class OptunaSearch(Sweeper):
    """Asks for trials, launches them as jobs, and tells their objectives.

    A trial that failed or was killed stays open in a database: the same command in the same folder runs it again under its number.
    Finished trials are not run again.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings: Any = OmegaConf.to_container(OmegaConf.create(settings), resolve=True)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        instance = Plugins.instance()
        self.launcher: Launcher = instance.instantiate_launcher(config=config, hydra_context=hydra_context, task_function=task_function)

    def sweep(self, arguments: list[str]) -> None:
        """Run the whole search. Raises ConfigError for settings that can't be searched with."""
        # Split the overrides into fixed ones and the search space.
        settings = OptunaSettings(**validate(OptunaSettings, self.settings, "hydra.sweeper"))
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        texts = [*(f"{key}={value}" for key, value in (settings.params or {}).items()), *arguments]  # the command's come last and win
        overrides = {override.get_key_element(): override for override in parser.parse_overrides(texts)}
        fixed = [f"{key}={item.get_value_element_as_str()}" for key, item in overrides.items() if not item.is_sweep_override()]
        swept = {key: override for key, override in overrides.items() if override.is_sweep_override()}
        if not swept:
            raise ConfigError("hydra/sweeper=optuna has nothing to search: add hparams=NAME, or a range such as 'seed=range(0,9)'")
        # Open the study in the sweep's folder.
        assert self.config is not None
        folder = real_folder(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(OmegaConf.create(without_secrets(self.config)), folder / "multirun.yaml")
        study = make_study(settings, folder)
        space = {key: distribution(override) for key, override in swept.items()}
        # Run unfinished trials again, then new ones.
        trials = trials_of_folder(study, folder)
        for earlier in trials:
            if not earlier.state.is_finished():
                self.run_together(study, [earlier.number], [[*fixed, *earlier.user_attrs[OVERRIDES]]], earlier.user_attrs[JOB])
        for start in range(len(trials), settings.n_trials, settings.n_jobs):
            end = min(start + settings.n_jobs, settings.n_trials)
            batch = [ask(study, space, folder, job) for job in range(start, end)]
            jobs = [[*fixed, *trial.user_attrs[OVERRIDES]] for trial in batch]
            self.run_together(study, [trial.number for trial in batch], jobs, start)
        print_best(study)

    def run_together(self, study: optuna.Study, numbers: Sequence[int], jobs: Sequence[Sequence[str]], first: int) -> None:
        """Launch jobs, numbered from `first` on, and tell the study their objectives."""
        self.validate_batch_is_legal(jobs)
        for number, job in zip(numbers, self.launcher.launch(jobs, initial_job_idx=first), strict=True):
            objective = float(job.return_value)
            if math.isfinite(objective):
                study.tell(number, objective)


def make_study(settings: OptunaSettings, folder: Path) -> optuna.Study:
    """Create a study, or load it from the database.

    Raises:
        ConfigError: optuna isn't installed, or the database can't be opened.
    """
    import_extra("optuna", "hydra/sweeper=optuna", "optuna")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = f"sqlite:///{quote(str(folder.resolve() / 'study.db'))}" if settings.storage == SQLITE else settings.storage
    try:
        study = optuna.create_study(
            storage=storage, study_name=settings.study_name or folder.name, direction=settings.direction, load_if_exists=True
        )
    except Exception as cause:
        raise ConfigError(f"hydra.sweeper.storage={settings.storage} can't be opened: {type(cause).__name__}: {cause}") from cause
    seed = settings.seed + len(study.trials)  # a resumed study must not suggest the same jobs again
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = (
            optuna.samplers.TPESampler(seed=seed, constant_liar=True) if settings.sampler == "tpe" else optuna.samplers.RandomSampler(seed)
        )
    return study


def ask(study: optuna.Study, space: dict[str, BaseDistribution], folder: Path, job: int) -> optuna.Trial:
    """Ask for the next trial of this folder. It stores searched overrides only: others may be secret."""
    trial = study.ask(space)
    overrides = [f"{key}={value}" for key, value in trial.params.items()]
    for name, value in ((FOLDER, str(folder.resolve())), (OVERRIDES, overrides), (JOB, job)):
        trial.set_user_attr(name, value)
    return trial


def trials_of_folder(study: optuna.Study, folder: Path) -> list[optuna.trial.FrozenTrial]:
    """The study's trials that are jobs of this folder, by number: other commands may share the database."""
    trials = [trial for trial in study.trials if trial.user_attrs.get(FOLDER) == str(folder.resolve()) and JOB in trial.user_attrs]
    return sorted(trials, key=lambda trial: int(trial.user_attrs[JOB]))


def distribution(override: Override) -> BaseDistribution:
    """Optuna's distribution of a sweep: choices, the numbers of a range, or an interval.

    An interval is logarithmic with the tag `log`, and of integers with integer ends.
    """
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


def print_best(study: optuna.Study) -> None:
    """Print the best job and its overrides, if a job has finished."""
    import optuna

    if study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)):
        best = study.best_trial
        overrides = " ".join(best.user_attrs.get(OVERRIDES, []))
        print(safe_message(f"best: job {best.user_attrs.get(JOB, best.number)}, objective {best.value:.6g}: {overrides}"))
