"""Consent before a voice is copied: a prompt of somebody's voice needs the statement that they agreed.

require_consent(consent, "prompt.wav")     # ConsentError unless stated

The system and the command line call this wherever a voice prompt is given by the user.
"""

from speechllm.errors import ConsentError


def require_consent(given: bool, voice: str = "the voice prompt") -> None:
    """Return if consent was stated.

    Raises:
        ConsentError: it was not.
    """
    if not given:
        raise ConsentError(
            f"{voice} would be used to speak in that person's voice; state that its speaker agreed "
            "(consent=True, or --consent on the command line), or leave the voice prompt out"
        )
