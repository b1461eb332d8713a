"""The one exception for a user's mistake, apart so that `import curate` needs no third-party package."""


class UserError(ValueError):
    """A user's mistake. The message is one line that names the key, its value and how to mend it."""
