"""mamba-ssm's own layers on a machine without a GPU, without transformers and CUDA extensions.

Needs mamba-ssm 2.3.2.post1 without its dependencies, and triton. The package's `__init__` would
import transformers and a CUDA extension and is skipped. The layers' code runs as it is; only the
kernels under it are replaced, by the reference functions that mamba-ssm puts beside them. These
compute in float32.
"""

import importlib.util
import sys
import types


def _stand_in(name: str, **contents: object) -> None:
    module = types.ModuleType(name)
    vars(module).update(contents)
    sys.modules.setdefault(name, module)


_folder = importlib.util.find_spec("mamba_ssm").submodule_search_locations
_stand_in("mamba_ssm", __path__=list(_folder))
_stand_in("selective_scan_cuda")
if importlib.util.find_spec("huggingface_hub") is None:
    _stand_in("huggingface_hub", PyTorchModelHubMixin=object)

from mamba_ssm.modules import mamba2, mamba_simple  # noqa: E402
from mamba_ssm.modules.ssd_minimal import ssd_minimal_discrete  # noqa: E402
from mamba_ssm.ops import selective_scan_interface  # noqa: E402
from mamba_ssm.ops.selective_scan_interface import selective_scan_ref  # noqa: E402
from mamba_ssm.ops.triton.layernorm_gated import rms_norm_ref  # noqa: E402
from mamba_ssm.ops.triton.ssd_combined import ssd_selective_scan  # noqa: E402


def _ssd(x, dt, A, B, C, chunk_size, D, z, dt_bias, dt_softplus, **unused):
    return ssd_selective_scan(x, dt, A, B, C, D, z, dt_bias, dt_softplus)


def _norm(self, x, z):
    return rms_norm_ref(
        x, self.weight, self.bias, z, self.eps, self.group_size, self.norm_before_gate
    )


mamba_simple.causal_conv1d_fn = mamba2.causal_conv1d_fn = None
mamba_simple.selective_scan_fn = selective_scan_ref
selective_scan_interface.selective_scan_fn = selective_scan_ref
mamba2.mamba_chunk_scan_combined = _ssd
mamba2.RMSNormGated.forward = _norm
Mamba, Mamba2 = mamba_simple.Mamba, mamba2.Mamba2

__all__ = ["Mamba", "Mamba2", "selective_scan_ref", "ssd_minimal_discrete"]
