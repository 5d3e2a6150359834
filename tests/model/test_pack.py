"""Which parameters of a pack count as weight matrices."""

import pytest
import torch
from conftest import small_run
from torch import nn

from zoorecall.config import RunConfig
from zoorecall.layers import Linear
from zoorecall.mixers import MIXERS
from zoorecall.model.pack import Pack

CPU = torch.device("cpu")
OF_THE_PACKAGE = sorted(MIXERS)
FOREIGN = {
    "name": "torch.nn:TransformerEncoderLayer",
    "options": {"nhead": 2, "dim_feedforward": 9},
}


def mark(pack: Pack) -> None:
    """Make each parameter 0, and each matrix 1, 2, ... in all its numbers."""
    pack.flat.zero_()
    for i, matrix in enumerate(pack.matrices(), start=1):
        assert pack.flat[:, matrix.part].eq(0).all()  # nothing is in two of them
        pack.flat[:, matrix.part] = i


@pytest.mark.parametrize("name", OF_THE_PACKAGE)
def test_the_matrices_are_the_weights_of_linear_layers_projection_by_projection(name):
    pack = Pack([small_run(name, seed) for seed in (1, 2)], CPU)
    mark(pack)
    found, number = {}, 0
    for module in pack.model.modules():
        if isinstance(module, Linear):
            for rows in module.weight.split(module.widths, dim=1):
                number += 1
                assert rows.eq(number).all()
            found[id(module.weight)] = module.weight
    assert number == len(pack.matrices()) > 0
    for parameter in pack.model.parameters():
        assert id(parameter) in found or parameter.eq(0).all()


def test_of_a_users_own_module_they_are_the_weights_of_torchs_linear_layers():
    run = RunConfig.model_validate({"model": {"d_model": 16, "num_layers": 1, "mixer": FOREIGN}})
    pack = Pack([run, run.model_copy(update={"seed": 2})], CPU)
    mark(pack)
    mixer = next(pack.model.each_layer()).mixer
    official = nn.TransformerEncoderLayer(16, 2, 9)
    linear = {
        f"{layer}.weight"
        for layer, module in official.named_modules()
        if isinstance(module, nn.Linear)
    }
    names = [name for name, _ in official.named_parameters()]
    assert linear == {"linear1.weight", "linear2.weight", "self_attn.out_proj.weight"}
    for copy in mixer.of_runs:
        for name, tensor in zip(names, copy.parameters(), strict=True):
            assert tensor.ne(0).all() if name in linear else tensor.eq(0).all(), name
