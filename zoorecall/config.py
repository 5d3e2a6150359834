"""A run: one training of one model on one task, from one seed. Strict: an unknown key is an error.

The defaults are the settings of Okpekpe and Orvieto 2025 (arXiv 2508.19029, appendix A.2).
"""

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, to_jsonable_python

from . import columns
from .mixers import MIXERS, AnyMixerConfig, PatternConfig
from .mixers.attention import Attention
from .mixers.custom import CustomConfig
from .tasks import TASKS, AnyTaskConfig
from .tasks.mqar import MQARConfig


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)


class ModelConfig(Config):
    """`num_layers` times a sequence mixer and a channel mixer, each behind a norm, on a residual
    stream between an embedding and a head that share their weights (as in Zoology)."""

    d_model: int = Field(64, ge=1, le=2**16)
    num_layers: int = Field(2, ge=1, le=2**10)
    mixer: AnyMixerConfig = Field(default_factory=Attention.Config)
    channel_mixer: Literal["mlp", "none"] = "mlp"
    mlp_ratio: int = Field(4, ge=1, le=2**10, description="hidden width of the MLP over d_model")
    positions: Literal["learned", "none", "auto"] = Field(
        "auto", description="auto: learned for the mixers the papers give positions, else none"
    )
    embed_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of the first layer's inputs that training sets to 0"
    )

    @model_validator(mode="after")
    def _resolve(self) -> "ModelConfig":
        self.mixer.check(self.d_model)
        # the model is frozen for its users; this is still its making
        object.__setattr__(self, "mixer", self.mixer.at_depth(self.num_layers))
        if self.positions == "auto":
            learned = any(mixer.uses_positions for mixer in self.mixer.each)
            object.__setattr__(self, "positions", "learned" if learned else "none")
        return self


class TrainConfig(Config):
    """Gradient descent on cross-entropy at the query positions."""

    optimizer: Literal["adamw", "sgd", "lion", "muon"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0, description="peak, reached after the warmup")
    weight_decay: float = Field(
        0.1, ge=0, description="decoupled, on every parameter; of sgd, in the gradient"
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
    batch_size: int = Field(512, ge=1)
    data: Literal["fixed", "fresh"] = Field(
        "fixed", description="fixed: epochs over train_examples; fresh: new examples every step"
    )
    train_examples: int = Field(100_000, ge=1)
    test_examples: int = Field(3_000, ge=1)
    epochs: float = Field(50, gt=0, description="an epoch is train_examples, also of fresh data")
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    evaluations: int = Field(
        60, ge=1, description="how many after the first, at steps num_steps * (i / evaluations)^2"
    )
    stop_at_accuracy: float | None = Field(
        None, gt=0, le=1, description="end a run at this token accuracy on the test examples"
    )

    keep: Literal["nothing", "weights"] = Field(
        "nothing", description="weights: those of a finished run stay, in models/ of its folder"
    )

    @model_validator(mode="after")
    def _check(self) -> "TrainConfig":
        if self.batch_size > self.train_examples:
            raise ValueError(
                f"batch_size {self.batch_size} is {self.batch_size - self.train_examples} more "
                f"than train_examples {self.train_examples}"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {list(self.betas)} must lie in [0, 1)")
        for name, own in OPTIMIZER_OPTIONS.items():
            value, default = getattr(self, name), type(self).model_fields[name].default
            if self.optimizer not in own and value != default:
                text = f"{name} is no option of optimizer {self.optimizer}"
                raise ValueError(f"{text}, should be with {' or '.join(own)}")
            if self.optimizer in own and (value is None or name not in self.model_fields_set):
                # the config is frozen for its users; this is still its making
                object.__setattr__(self, name, own[self.optimizer])
        return self

    @property
    def steps_per_epoch(self) -> int:
        """Full batches only; what is left over takes part in the next epoch's order."""
        return self.train_examples // self.batch_size

    @property
    def num_steps(self) -> int:
        return max(1, round(self.epochs * self.steps_per_epoch))

    @property
    def evaluation_steps(self) -> list[int]:
        """Steps after which a model is evaluated, from 0 to num_steps, dense early."""
        n, last = self.evaluations, self.num_steps
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
    seed: int = Field(42, ge=0, description="of the initial weights, the examples and their order")

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
        return columns.run_id(self.model_dump(mode="json"))

    @cached_property
    def pack_key(self) -> str:
        """Equal for runs that can train as one pack: they differ only in `PER_RUN` numbers."""
        data = self.model_dump()
        del data["seed"]
        for name in PER_RUN:
            del data["train"][name]
        return columns.digest(data)


PER_RUN = (
    "learning_rate", "adamw_learning_rate", "weight_decay", "betas", "eps", "momentum", "clip_norm",
    "warmup", "schedule",
)  # fmt: skip
"""What a pack's runs may have of their own, besides the seed."""

PRESETS: dict[str, dict[str, Any]] = {
    # Okpekpe and Orvieto 2025: a layer is mixer + MLP; 50 epochs, linear warmup over 10 % of the
    # steps. What follows the warmup is not stated; here it is Zoology's cosine, by the step. Nor
    # is it stated whether their code, inspired by Zoology's, drops and stops early; here neither.
    "paper": {
        "model": {"channel_mixer": "mlp"},
        "train": {"epochs": 50, "weight_decay": 0.1, "warmup": 0.1, "schedule": "cosine"},
    },
    # Arora et al. 2023 (arXiv 2312.04927), figure 2, and the defaults of their code: the mixer
    # alone, 64 epochs or up to 99 %, no warmup, the learning rate set once an epoch, dropout on the
    # embedding. Theirs on attention's weights is not here.
    "zoology": {
        "model": {"channel_mixer": "none", "embed_dropout": 0.1},
        "train": {
            "epochs": 64,
            "weight_decay": 0.1,
            "warmup": 0.0,
            "schedule": "cosine_by_epoch",
            "stop_at_accuracy": 0.99,
        },
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
