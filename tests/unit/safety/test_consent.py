import pytest

from speechllm.errors import ConsentError
from speechllm.safety import require_consent


def test_stated_consent_passes():
    require_consent(True)


def test_missing_consent_is_one_line_that_names_the_prompt():
    with pytest.raises(ConsentError, match=r"prompt\.wav") as caught:
        require_consent(False, "prompt.wav")
    assert "\n" not in str(caught.value)
