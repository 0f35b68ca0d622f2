"""Loading weights shows no advice that the user cannot follow."""

from __future__ import annotations

import warnings

from sftchat.models.loading import quiet_libraries


def test_internal_messages_of_libraries_are_not_shown() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        quiet_libraries()
        warnings.warn_explicit("`past_key_values` is deprecated", FutureWarning, "module.py", 1, module="torch.nn.modules.module")
        warnings.warn_explicit("Could not find a config file in sftchat:nano - will assume", UserWarning, "save.py", 1)
        warnings.warn_explicit("the disk is nearly full", UserWarning, "save.py", 2)

    assert [str(warning.message) for warning in shown] == ["the disk is nearly full"]
