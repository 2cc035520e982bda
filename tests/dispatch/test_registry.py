"""Handlers by name, and what is said when there is none."""

import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from fasthook import handlers
from fasthook.dispatch import registry
from fasthook.errors import ConfigError
from fasthook.handlers import log
from fasthook.handling import HandlerFactory


def install(monkeypatch, *points: tuple[str, str, str]) -> None:
    """Make these the only entry points: (name, value, package)."""
    made = []
    for name, value, package in points:
        point = EntryPoint(name, value, registry.GROUP)
        vars(point)["dist"] = SimpleNamespace(name=package) if package else None
        made.append(point)

    def entry_points(group: str) -> list[EntryPoint]:
        assert group == "fasthook.handlers"
        return made

    monkeypatch.setattr(registry, "entry_points", entry_points)


def test_the_handlers_that_come_along_are_found():
    assert {"exec", "file", "forward", "log"} <= set(registry.installed())
    assert registry.find("log") is log.log
    for name in ("exec", "file", "forward"):
        assert isinstance(registry.find(name), HandlerFactory)
    assert handlers.__doc__


def test_an_unknown_name_is_answered_with_the_closest_and_with_all(monkeypatch):
    install(monkeypatch, ("orders", "a:b", "shop"), ("mails", "a:c", "shop"))

    with pytest.raises(ConfigError) as caught:
        registry.find("order")

    assert str(caught.value) == (
        "no handler 'order' is installed; did you mean 'orders'? installed: mails, orders"
    )


def test_a_name_like_no_other_gets_no_guess(monkeypatch):
    install(monkeypatch, ("orders", "a:b", "shop"))

    with pytest.raises(ConfigError, match="no handler 'xyz' is installed; installed: orders"):
        registry.find("xyz")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError"),
        ("import a_module_that_is_not_there", "No module named 'a_module_that_is_not_there'"),
        ("g = 1", "has no attribute 'f'"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
    ],
)
def test_a_module_that_breaks_on_import_is_named_with_its_error(
    monkeypatch, tmp_path, source, said
):
    (tmp_path / "broken_shop.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_shop", raising=False)
    install(monkeypatch, ("orders", "broken_shop:f", "shop"))

    with pytest.raises(ConfigError) as caught:
        registry.find("orders")

    assert "handler 'orders' (broken_shop:f) can't be imported" in str(caught.value)
    assert said in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_plain_function_is_told_what_it_lacks(monkeypatch):
    install(monkeypatch, ("orders", "json:dumps", "shop"))

    with pytest.raises(ConfigError, match=r"is a function; expected .* @fasthook\.handler"):
        registry.find("orders")


def test_two_packages_with_one_name_are_both_named(monkeypatch):
    install(
        monkeypatch,
        ("log", "fasthook.handlers.log:log", "shop"),
        ("log", "fasthook.handlers.log:log", "mail"),
    )

    with pytest.raises(ConfigError, match="several packages have a handler 'log': mail, shop"):
        registry.find("log")


@pytest.mark.parametrize("package", ["shop", ""])
def test_one_package_found_twice_on_the_path_is_one(monkeypatch, package):
    install(monkeypatch, *[("log", "fasthook.handlers.log:log", package)] * 2)

    assert registry.find("log") is log.log
    assert registry.installed() == ["log"]
