"""A run: one training of one model on one task, from one seed. Strict: an unknown key is an error.

The defaults are the settings of Okpekpe and Orvieto 2025 (arXiv 2508.19029, appendix A.2).
"""

import hashlib
import json
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, to_jsonable_python

from . import columns
from .mixers import MIXERS, AnyMixerConfig, PatternConfig
from .mixers.attention import Attention
from .mixers.custom import CustomConfig
from .tasks import TASKS, AnyTaskConfig, check_splits
from .tasks.mqar import MQARConfig


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)


Share = Annotated[float, Field(ge=0, lt=1)]

ZOOLOGY_DROPOUT = 0.1
"""Of the embedding, the default of Zoology's code, and of attention's weights in its configs."""


class ModelConfig(Config):
    """`num_layers` times a sequence mixer and a channel mixer, each behind a norm, on a residual
    stream between an embedding and a head that share their weights (as in Zoology).

    `auto` is what Zoology's code does with the mixer; a config that is made has what it comes to.
    """

    d_model: int = Field(64, ge=1, le=2**16)
    num_layers: int = Field(2, ge=1, le=columns.MAX_LAYERS)
    mixer: AnyMixerConfig = Field(default_factory=Attention.Config)
    mixer_defaults: Literal["own", "zoology"] = Field(
        "own",
        description="zoology: options that the mixer leaves out are as there, and then its own: "
        "heads of DeltaNet and GLA 4, of Gated DeltaNet 6, feature_dim of Based 8",
    )
    norm: Literal["layer", "rms", "auto"] = Field(
        "layer",
        description="in front of the sequence mixer; auto: rms for Mamba and Mamba2, else layer",
    )
    channel_mixer: Literal["mlp", "none", "auto"] = Field(
        "mlp", description="auto: none for Mamba and Mamba2, else mlp"
    )
    mlp_ratio: int = Field(4, ge=1, le=2**10, description="hidden width of the MLP over d_model")
    mlp_activation: Literal["gelu", "tanh"] = Field(
        "gelu", description="of the MLP; tanh, as Zoology's had it in October 2023, has no kernel"
    )
    second_norm: bool | Literal["auto"] = Field(
        False,
        description="x + norm(x) where a channel mixer would be; auto: where there is none, but "
        "not for Mamba and Mamba2",
    )
    positions: Literal["learned", "none", "attention", "auto"] = Field(
        "auto",
        description="auto: learned for the mixers the papers give positions, else none; attention: "
        "learned for attention alone, else none",
    )
    embed_dropout: Share | Literal["auto"] = Field(
        0.0,
        description="share of the first layer's inputs that training sets to 0; auto: 0.1, but "
        "none for Mamba and Mamba2",
    )
    attention_dropout: Share | Literal["auto"] = Field(
        0.0,
        description="share of attention's weights that training sets to 0; auto: 0.1 where there "
        "is attention",
    )
    initial_weights: Literal["official", "zoology"] = Field(
        "official",
        description="zoology: linear layers as its model draws them again; official where that "
        "changes nothing",
    )

    def model_post_init(self, context: Any, /) -> None:
        mixer = self.mixer
        if self.mixer_defaults == "zoology":
            mixer = mixer.with_zoology_options(self.d_model)
        mixer.check(self.d_model)
        # the model is frozen for its users; this is still its making
        object.__setattr__(self, "mixer", mixer.at_depth(self.num_layers))
        self._settle("mixer_defaults", {"zoology": "own"})
        mixers, own_block = self.mixer.each, self.mixer.own_block
        attention = [one for one in mixers if isinstance(one, Attention.Config)]
        learned = ["none", "learned"]
        self._settle("norm", {"auto": "rms" if own_block else "layer"})
        self._settle("channel_mixer", {"auto": "none" if own_block else "mlp"})
        self._settle("second_norm", {"auto": self.channel_mixer == "none" and not own_block})
        self._settle("embed_dropout", {"auto": 0.0 if own_block else ZOOLOGY_DROPOUT})
        self._settle("attention_dropout", {"auto": ZOOLOGY_DROPOUT if attention else 0.0})
        of_any = learned[any(one.uses_positions for one in mixers)]
        of_attention = learned[any(one.uses_positions for one in attention)]
        self._settle("positions", {"auto": of_any, "attention": of_attention})
        if self.second_norm and self.channel_mixer != "none":
            raise ValueError("second_norm: true needs channel_mixer: none; the MLP has this norm")
        if self.attention_dropout != 0 and not attention:
            raise ValueError(f"attention_dropout {self.attention_dropout} needs attention")
        if self.initial_weights == "zoology":
            if chosen := [one.name for one in mixers if one.chooses_weights]:
                raise ValueError(f"initial_weights: zoology stands for the init_std of {chosen[0]}")
            redrawn = any(one.redrawn_by_zoology for one in mixers)
            redrawn &= not (own_block and self.num_layers == 1)
            self._settle("initial_weights", {"zoology": "zoology" if redrawn else "official"})

    def _settle(self, name: str, meanings: dict[str, Any]) -> None:
        """Where the option has one of these values, let it have what that means."""
        value = getattr(self, name)
        object.__setattr__(self, name, meanings.get(value, value))


MAX_STEPS = 10**9
"""Of a run: at 0.1 ms a step, more than a day."""


class TrainConfig(Config):
    """Gradient descent on cross-entropy at the query positions."""

    optimizer: Literal["adamw", "sgd", "lion", "muon"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0, description="peak, reached after the warmup")
    weight_decay: float = Field(0.1, ge=0, description="decoupled; of sgd, in the gradient")
    undecayed: Literal["nothing", "official"] = Field(
        "nothing",
        description="official: the A_log, D and bias of dt that the code of Mamba, Mamba2 and "
        "Gated DeltaNet exempts from weight decay",
    )
    betas: Annotated[tuple[float, float], Field(strict=False)] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    momentum: float | None = Field(None, ge=0, lt=1, description="null: 0.9 of sgd, 0.95 of muon")
    nesterov: bool | None = Field(None, description="null: not of sgd, but of muon")
    adjust_lr_fn: Literal["original", "match_rms_adamw"] | None = Field(
        None, description="how muon's rate follows a matrix's shape, as torch's; null: the second"
    )
    adamw_learning_rate: float | None = Field(
        None, gt=0, description="muon's for all but weights of linear layers; null: learning_rate"
    )
    clip_norm: float | None = Field(None, gt=0, description="largest gradient norm of a run")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps, linear from 0")
    schedule: Literal["cosine", "cosine_by_epoch", "linear", "constant"] = Field(
        "cosine", description="what follows the warmup, down to 0 at the last step"
    )
    batch_size: int = Field(512, ge=1, le=2**31)
    data: Literal["fixed", "fresh"] = Field(
        "fixed", description="fixed: epochs over train_examples; fresh: new examples every step"
    )
    data_seed: int | None = Field(
        None, ge=0, lt=2**63, description="of the examples and their order; null: the run's seed"
    )
    order: Literal["shuffled", "fixed"] = Field(
        "shuffled", description="of fixed examples: anew in every epoch, or as they were drawn"
    )
    drop_last: bool = Field(
        True, description="whether an epoch leaves out its last examples, too few for a batch"
    )
    train_examples: int = Field(100_000, ge=1, le=2**40)
    test_examples: int = Field(3_000, ge=1, le=2**40)
    epochs: float = Field(50, gt=0, description="an epoch is train_examples, also of fresh data")
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    evaluate: Literal["quadratic", "epoch"] = Field(
        "quadratic", description="when: dense early, as evaluations says, or after every epoch"
    )
    evaluations: int = Field(
        60,
        ge=1,
        le=100_000,
        description="how many after the first, at steps num_steps * (i / evaluations)^2",
    )
    stop_at_accuracy: float | None = Field(
        None, gt=0, le=1, description="end a run at this token accuracy on the test examples"
    )
    stop_above_accuracy: float | None = Field(
        None, ge=0, lt=1, description="end a run at a higher one; not with stop_at_accuracy"
    )
    keep: Literal["nothing", "weights"] = Field(
        "nothing", description="weights: those of a finished run stay, in models/ of its folder"
    )

    def model_post_init(self, context: Any, /) -> None:
        if self.batch_size > self.train_examples:
            raise ValueError(
                f"batch_size {self.batch_size} is {self.batch_size - self.train_examples} more "
                f"than train_examples {self.train_examples}"
            )
        if self.epochs * self.steps_per_epoch > MAX_STEPS:
            raise ValueError(
                f"epochs {self.epochs:g} of {self.steps_per_epoch:,} steps are more than "
                f"{MAX_STEPS:,} steps"
            )
        if self.data == "fresh":  # in which there is no order
            object.__setattr__(self, "order", "shuffled")
        if None not in (self.stop_at_accuracy, self.stop_above_accuracy):
            raise ValueError("stop_at_accuracy and stop_above_accuracy are two ends, should be one")
        usual = type(self).model_fields["evaluations"].default
        if self.evaluate == "epoch" and self.evaluations != usual:
            raise ValueError("evaluations is no option of evaluate: epoch")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {list(self.betas)} must lie in [0, 1)")
        fields = type(self).model_fields
        for name, own in OPTIMIZER_OPTIONS.items():
            value, default = getattr(self, name), fields[name].default
            if self.optimizer not in own and value != default:
                text = f"{name} is no option of optimizer {self.optimizer}"
                raise ValueError(f"{text}, should be with {' or '.join(own)}")
            if self.optimizer in own and (value is None or name not in self.model_fields_set):
                # the config is frozen for its users; this is still its making
                object.__setattr__(self, name, own[self.optimizer])

    @property
    def steps_per_epoch(self) -> int:
        """Full batches, and the short last one unless it is dropped: what that has takes part in
        the next epoch's order."""
        full, rest = divmod(self.train_examples, self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    @property
    def num_steps(self) -> int:
        return max(1, round(self.epochs * self.steps_per_epoch))

    @property
    def evaluation_steps(self) -> list[int]:
        """Steps after which a model is evaluated, from 0 to num_steps."""
        n, last = self.evaluations, self.num_steps
        if self.evaluate == "epoch":
            return [*range(0, last, self.steps_per_epoch), last]
        return sorted({round(last * (i / n) ** 2) for i in range(n + 1)})


OPTIMIZER_OPTIONS: dict[str, dict[str, Any]] = {
    "betas": {"adamw": (0.9, 0.999), "lion": (0.9, 0.99), "muon": (0.9, 0.999)},
    "eps": {"adamw": 1e-8, "muon": 1e-8},
    "momentum": {"sgd": 0.9, "muon": 0.95},
    "nesterov": {"sgd": False, "muon": True},
    "adjust_lr_fn": {"muon": "match_rms_adamw"},
    "adamw_learning_rate": {"muon": None},
}
"""The options that not every optimizer has: what each has where a grid does not say."""


class RunConfig(Config):
    task: AnyTaskConfig = Field(default_factory=MQARConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    seed: int = Field(
        42,
        ge=0,
        lt=2**63,
        description="of initial weights and dropout, and of the data but for a data_seed",
    )

    @property
    def data_seed(self) -> int:
        """Of the examples and their order."""
        return self.seed if self.train.data_seed is None else self.train.data_seed

    @field_validator("task")
    @classmethod
    def _check_task(cls, task: AnyTaskConfig) -> AnyTaskConfig:
        check_splits(task)
        return task

    @model_validator(mode="after")
    def _try_out(self) -> "RunConfig":
        """Refuse a module of the user's own that cannot be made in these sizes."""
        model = self.model
        for mixer in model.mixer.each:
            if isinstance(mixer, CustomConfig):
                try:
                    mixer.try_out(model.d_model, self.task.seq_len, model.num_layers)
                except ValueError as error:
                    where: InitErrorDetails = {
                        "type": PydanticCustomError("value_error", "{error}", {"error": error}),
                        "loc": ("model", "mixer"),
                        "input": mixer.name,
                    }
                    raise ValidationError.from_exception_data("RunConfig", [where]) from error
        return self

    @cached_property
    def run_id(self) -> str:
        """A hash of the resolved config, see `columns.run_id`: equal configs are the same run."""
        parts = {name: _identity_of(name, getattr(self, name)) for name in columns.PARTS}
        return columns.digest({columns.SEED: self.seed, **parts})

    @cached_property
    def pack_key(self) -> str:
        """Equal for runs that can train as one pack: they differ only in `PER_RUN` numbers."""
        text = self.model_dump_json(exclude={"seed": True, "train": {*PER_RUN}})
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _identity_of(name: str, part: BaseModel) -> dict[str, Any]:
    return _identity_of_text(name, part.model_dump_json())


@lru_cache(maxsize=2**14)
def _identity_of_text(name: str, text: str) -> dict[str, Any]:
    """Computed once for all runs that share the part of a config, as JSON."""
    return columns.identity_of(name, json.loads(text))


PER_RUN = (
    "learning_rate", "adamw_learning_rate", "weight_decay", "betas", "eps", "momentum", "clip_norm",
    "warmup", "schedule", "data", "data_seed", "order", "epochs", "evaluate", "evaluations",
    "stop_at_accuracy", "stop_above_accuracy", "keep",
)  # fmt: skip
"""What a pack's runs may have of their own, besides the seed."""

ZOOLOGY_RECIPE: dict[str, dict[str, Any]] = {
    "model": {
        "mixer_defaults": "zoology",
        "norm": "auto",
        "embed_dropout": "auto",
        "attention_dropout": "auto",
        "initial_weights": "zoology",
    },
    "train": {
        "weight_decay": 0.1,
        "schedule": "cosine_by_epoch",
        "order": "fixed",
        "drop_last": False,
        "data_seed": 123,
        "evaluate": "epoch",
        "stop_above_accuracy": 0.99,
    },
}
"""What the code of Zoology (commit d88d6f5) does, whatever the layer and the length of training."""

PRESETS: dict[str, dict[str, Any]] = {
    # Okpekpe and Orvieto 2025, by their checklist: appendix A.2, and what that leaves out is
    # Zoology's. A layer is mixer + MLP, Mamba's the mixer alone as in Zoology's code (A.2 and an
    # ablation of theirs disagree: set channel_mixer); positions for attention and Based; warmup by
    # the step over five epochs, then cosine by the epoch.
    "paper": {
        "model": {**ZOOLOGY_RECIPE["model"], "channel_mixer": "auto"},
        "train": {**ZOOLOGY_RECIPE["train"], "epochs": 50, "warmup": 0.1},
    },
    # The same paper by what appendix A.2 states and nothing else: no dropout, no early end, every
    # mixer with an MLP. What follows the warmup is not stated; here it is cosine by the step.
    "paper_as_stated": {
        "model": {"channel_mixer": "mlp"},
        "train": {"epochs": 50, "weight_decay": 0.1, "warmup": 0.1, "schedule": "cosine"},
    },
    # Arora et al. 2023 (arXiv 2312.04927), figure 2, as their code is now: no MLP, but the norm in
    # front of one and its residual.
    "zoology": {
        "model": {
            **ZOOLOGY_RECIPE["model"],
            "channel_mixer": "none",
            "second_norm": "auto",
            "positions": "attention",
        },
        "train": {**ZOOLOGY_RECIPE["train"], "epochs": 64, "warmup": 0.0},
    },
}


def current_defaults() -> dict[str, Any]:
    """The default of every option as the code has it; `make schema` records it."""

    def of(config: type[BaseModel]) -> dict[str, Any]:
        fields = {key: x for key, x in config.model_fields.items() if not x.is_required()}
        known = {key: x.get_default(call_default_factory=True) for key, x in fields.items()}
        chosen = ("name", "mixer", "source")  # these always count
        return {key: to_jsonable_python(x) for key, x in known.items() if key not in chosen}

    mixers: dict[str, type[BaseModel]] = {"custom": CustomConfig, "pattern": PatternConfig}
    mixers.update({name: mixer.Config for name, mixer in MIXERS.items()})
    return {
        "task": {name: of(task.Config) for name, task in TASKS.items()},
        "mixer": {name: of(config) for name, config in mixers.items()},
        "model": of(ModelConfig),
        "train": of(TrainConfig),
    }
