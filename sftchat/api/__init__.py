"""What the command line does, as functions: ``load``, ``evaluate``, ``train`` and ``chat`` of the package ``sftchat``."""
