"""What holds for every test: with ISTHMUS_REQUIRE_ALL=1 nothing may be skipped.

How fast the machine is decides no test, so hypothesis sets no deadline and lets examples take
their time; e2e/patience.py says how the tests that wait do it.

Warnings are errors, ours above all; those that a client library causes by itself are not ours.
A test whose client program is not installed is skipped and named with its reason. Where
everything was installed on purpose (`.ci/run`), a skip would hide a hole, so it fails there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Generator

REQUIRE_ALL = os.environ.get("ISTHMUS_REQUIRE_ALL") == "1"

CLIENT_WARNINGS = ("ignore:(read|open)_text is deprecated:DeprecationWarning",)  # kafka-python


settings.register_profile(
    "unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")


def pytest_configure(config: pytest.Config) -> None:
    for warning in CLIENT_WARNINGS:
        config.addinivalue_line("filterwarnings", warning)


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"ISTHMUS_REQUIRE_ALL=1 allows no skip, and this was one: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report
