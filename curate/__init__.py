"""Data curation: load, corrupt, score, select and duplicate instruction data. Knows nothing of training.

`import curate` stays light: PyTorch is imported when `filter_sft_data` is first asked for.
"""

from typing import TYPE_CHECKING, Any

from curate.errors import UserError

if TYPE_CHECKING:
    from curate.scoring.reward_model import filter_sft_data

__all__ = ["UserError", "filter_sft_data"]


def __getattr__(name: str) -> Any:
    if name == "filter_sft_data":
        from curate.scoring.reward_model import filter_sft_data

        return filter_sft_data
    raise AttributeError(f"module 'curate' has no attribute {name!r}")
