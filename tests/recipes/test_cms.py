"""cms: what is published is found in the index, purged from a cache's API, and built."""

import contextlib
import json
import sqlite3

import pytest

from tests.recipes.killing import Attempts

FILES = ("shop/handlers.py", "shop/index.py", "shop/cache.py")
PUBLISH = "ContentManagement.Entry.publish"
UNPUBLISH = "ContentManagement.Entry.unpublish"


@pytest.fixture
def cache(new_api):
    return new_api({"success": True})


@pytest.fixture
def project(new_project, cache):
    made = new_project("cms")
    url = f"{cache.url}/client/v4/zones/z/purge_cache"
    made.replace("settings.toml", 'purge_url = "" ', f'purge_url = "{url}"')
    (made.folder / "secrets" / "purge-token").write_text("purge-0123456789\n")
    made.replace("fasthook.toml", 'within      = "5s"', 'within      = "1s"')
    return made


def rows(project, what):
    path = project.folder / "var" / "index.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        return db.execute(what).fetchall()


def sample(project, name):
    return json.loads((project.folder / "tests" / "events" / f"{name}.json").read_text())


def purged(cache):
    return [
        url.removeprefix("https://www.example.com/") for c in cache.calls for url in c.body["files"]
    ]


def test_four_cms_fill_one_index_and_are_one_rebuild(project, cache, new_api):
    body = {"component": "page", "body": [{"text": "Clay pots for water"}]}
    story = {"name": "Teapots", "full_slug": "articles/teapots", "content": body}
    storyblok = new_api({"story": story})
    project.replace("settings.toml", "https://api.storyblok.com", storyblok.url)
    (project.folder / "secrets" / "storyblok-token").write_text("story-0123456789\n")
    serving = project.serve()
    for endpoint, event in (
        ("contentful", PUBLISH),
        ("sanity", "create"),
        ("strapi", "entry.publish"),
        ("storyblok", "published"),
    ):
        project.send(endpoint, "--event", event, "--body", f"tests/events/{endpoint}.json")
    serving.line_with(" done ", "handler=shop-rebuild")

    assert set(project.python("-m", "shop.index", "water").splitlines()) == {
        "https://www.example.com/brew-tea  How to brew tea",
        "https://www.example.com/water  Water for tea",
        "https://www.example.com/articles/teapots  Teapots",
    }
    pages = ["articles/teapots", "brew-tea", "cups", "water"]
    assert sorted(purged(cache)) == sorted(pages * 2)  # at once, and after the build
    assert rows(project, "SELECT * FROM stale") == []
    built = project.folder / "var" / "site" / "built.txt"
    assert built.read_text().count("built at") == 1
    assert {c.headers["authorization"] for c in cache.calls} == {"Bearer purge-0123456789"}
    # What is no more is found no more; and what Storyblok says in the same words is another event.
    storyblok.answers[:] = [200, 404]
    for _ in range(2):
        project.send("storyblok", "--event", "published", "--body", "tests/events/storyblok.json")
        serving.line_with(" done ", "handler=shop-storyblok")
    file = "tests/events/contentful-unpublished.json"
    project.send("contentful", "--event", UNPUBLISH, "--body", file)
    serving.line_with(" done ", "handler=shop-contentful")
    assert "teapots" not in project.python("-m", "shop.index", "water")
    assert "brew-tea" not in project.python("-m", "shop.index", "water")
    serving.kill()
    said = "".join(serving.lines) + serving.out
    assert "purge-0123456789" not in said
    assert "story-0123456789" not in said


def kill_between_steps(project, cache):
    """An event that moves a page, and is killed before its step 1, 2, …, each with a whole one
    behind it. For each: what is in the index, what is stale, what was purged.
    """
    before = {"payload": sample(project, "sanity"), "type": "create", "provider": "sanity"}
    moved = sample(project, "sanity") | {"slug": {"current": "soft-water"}}
    event = {"payload": moved, "type": "update", "provider": "sanity"}
    with contextlib.closing(
        Attempts(project.folder, project.environment, "shop-sanity", *FILES)
    ) as attempts:
        steps = attempts.done(event)
        for step in range(1, steps + 1):
            (project.folder / "var" / "index.db").unlink()
            attempts.done(before)
            rows(project, "DELETE FROM stale")  # it was built
            cache.calls.clear()
            assert attempts.run(event, kill_at=step)["killed"]
            attempts.done(event | {"attempt": 2})
            yield (
                rows(project, "SELECT path, text FROM entry"),
                {path for (path,) in rows(project, "SELECT path FROM stale")},
                set(purged(cache)),
            )


BOTH = {"water", "soft-water"}


def test_index_and_cache_are_right_whatever_step_a_kill_comes_before(project, cache):
    found = list(kill_between_steps(project, cache))

    assert len(found) > 15
    entry = [("soft-water", "Soft water is best.")]
    assert [each for each in found if each != (entry, BOTH, BOTH)] == []


def test_without_the_transaction_the_same_kills_find_pages_that_stay_in_the_cache(project, cache):
    """The control: the index forgets where a page was before it is written down as stale."""
    project.replace("shop/index.py", '"BEGIN IMMEDIATE"', '"SELECT 1"')
    project.replace("shop/index.py", '        await connection.execute("COMMIT")', "        pass")
    found = kill_between_steps(project, cache)

    assert any(pages != BOTH for _, _, pages in found)


def test_a_cache_that_refuses_is_asked_again(project, cache):
    event = {"payload": sample(project, "sanity"), "type": "create", "provider": "sanity"}
    cache.answers[:] = [503, 200]
    with contextlib.closing(
        Attempts(project.folder, project.environment, "shop-sanity", *FILES)
    ) as attempts:
        assert "503" in attempts.run(event)["error"]
        attempts.done(event | {"attempt": 2})
    assert purged(cache) == ["water", "water"]


def test_an_error_of_storybloks_api_does_not_tell_the_token(project, new_api):
    storyblok = new_api()
    storyblok.answers[:] = [401]
    project.replace("settings.toml", "https://api.storyblok.com", storyblok.url)
    (project.folder / "secrets" / "storyblok-token").write_text("story-0123456789\n")
    with contextlib.closing(
        Attempts(project.folder, project.environment, "shop-storyblok", *FILES)
    ) as attempts:
        error = attempts.run({"payload": sample(project, "storyblok"), "type": "published"})[
            "error"
        ]
    assert error == "Retry: Storyblok's API says 401"
    assert "token=story-0123456789" in storyblok.calls[0].path
