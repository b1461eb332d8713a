"""Models, batches and the runs that fine-tune them. Knows nothing of where the rows came from or why."""


class UserError(ValueError):
    """A mistake of the user's: one line that names the key, the value and the mend."""
