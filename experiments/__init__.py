"""Composes `curate` and `train` into runs, evaluates, records, and judges claims."""


class UserError(ValueError):
    """A mistake of the user's: one line that names the key, the value and the mend."""
