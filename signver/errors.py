"""What the SDK raises for an image or a file that it cannot use."""


class SignVerError(ValueError):
    """The message names the image or file, what was expected and what was found."""
