"""Versions of installed packages, for manifests, reports and cache keys."""

from __future__ import annotations

from collections.abc import Iterable


def installed_version(package: str) -> str:
    """Return the version of a distribution; empty when it is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those distributions that are installed, by name."""
    return {package: version for package in packages if (version := installed_version(package))}
