"""`fasthook providers` lists who is known, finds by parts of names, and shows all about one."""

import json
import tomllib

import pytest

from fasthook.intake import catalogue


def test_all_providers_are_listed(run):
    result = run("providers")

    assert result.exit_code == 0
    assert all(name in result.stdout for name in catalogue.names())


def test_a_part_of_a_name_finds_those_that_contain_it(run):
    result = run("providers", "STRI")

    assert result.exit_code == 0
    assert "stripe" in result.stdout
    assert "github" not in result.stdout


def test_a_kind_finds_its_providers(run):
    found = [p["id"] for p in json.loads(run("providers", "commerce", "--json").stdout)]
    assert "shopify" in found
    assert "github" not in found


@pytest.mark.parametrize("name", catalogue.names())
def test_one_provider_is_shown_with_an_endpoint_to_copy(name, run):
    result = run("providers", name)

    assert result.exit_code == 0
    assert catalogue.load(name).docs in result.stdout
    block = result.stdout[result.stdout.index("[[endpoint]]") :]
    (copied,) = tomllib.loads(block)["endpoint"]
    assert copied["provider"] == copied["name"] == name


def test_lists_as_json_have_the_ids(run, run_process):
    for out in (run("providers", "--json").stdout, run_process("providers", "--json").stdout):
        assert [p["id"] for p in json.loads(out)] == catalogue.names()


def test_one_provider_as_json_has_its_schemes(run):
    facts = json.loads(run("providers", "stripe", "--json").stdout)

    assert facts["id"] == "stripe"
    assert facts["schemes"]["default"]["header"] == "Stripe-Signature"
    assert facts["covers_body"] == {"default": True}


@pytest.mark.parametrize("json_flag", [[], ["--json"]])
def test_an_unknown_provider_is_exit_code_1_with_a_hint(json_flag, run):
    result = run("providers", "gihub", *json_flag)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: no provider 'gihub'; did you mean 'github'?")
    assert result.stderr.count("\n") == 1


def test_nonsense_has_no_hint(run):
    result = run("providers", "zzzzzz")
    assert result.exit_code == 1
    assert "did you mean" not in result.stderr


def test_nothing_is_cut_in_a_pipe(run_process):
    out = run_process("providers").stdout
    assert "X-Hub-Signature-256" in out
    assert "…" not in out
