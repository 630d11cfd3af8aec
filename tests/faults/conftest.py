"""How much of the fault campaign is run: a short one by default, a long one by scripts/campaign."""

from __future__ import annotations

import pytest

from tests.faults.fault_tools import Site, make_site

SHORT = {"--moments": 6, "--mutants": 300, "--attacks": 40, "--campaign-seed": 0}


def pytest_addoption(parser: pytest.Parser) -> None:
    for name, default in SHORT.items():
        parser.addoption(name, type=int, default=default)


def chosen(config: pytest.Config, name: str) -> int:
    """An option's value; pytest knows the options only when it is given this folder."""
    return int(config.getoption(name, default=SHORT[name]))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "moment" in metafunc.fixturenames:
        metafunc.parametrize("moment", range(chosen(metafunc.config, "--moments")))
    attacks = range(chosen(metafunc.config, "--attacks"))
    if "attack" in metafunc.fixturenames:
        metafunc.parametrize("attack", [number for number in attacks if number % 5])
    if "interruption" in metafunc.fixturenames:
        metafunc.parametrize("interruption", attacks[::5])


@pytest.fixture(scope="session")
def campaign_seed(request: pytest.FixtureRequest) -> int:
    return chosen(request.config, "--campaign-seed")


@pytest.fixture(scope="session")
def mutants(request: pytest.FixtureRequest) -> int:
    return chosen(request.config, "--mutants")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """160 phantoms, which take about a second to convert."""
    return make_site(tmp_path_factory.mktemp("site"), 160)


@pytest.fixture(scope="session")
def undisturbed(site: Site) -> dict[str, dict[str, str]]:
    """Contents of the dataset, in each layout, that an undisturbed conversion writes."""
    contents = {}
    for layout in ("shards", "folder"):
        site.convert(f"undisturbed-{layout}", "--layout", layout)
        contents[layout] = site.contents(f"undisturbed-{layout}")
    return contents
